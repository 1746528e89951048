"""Which images two runners answer differently: one by one, by class, and from which answer to which."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from toolkit.compare.parity import answers_of
from toolkit.compare.proportions import holm_adjusted, mcnemar_exact_p
from toolkit.contracts import Float32, Float64, Int64

MOST_LISTED = 200  # flips in a document: enough for pictures, and it stays small where everything flips
MOST_CONFUSIONS = 10
NOISE = 0.05  # a class moved where Holm's p over all classes is below it


@dataclass(frozen=True)
class Flip:
    """One image; answers are class indices, -1 for logits that are not finite.

    Attributes:
        index: among the judged images.
        margin: how sure the reference was, its largest logit minus the second; 0 where they are not finite.
    """

    index: int
    label: int
    reference_answer: int
    candidate_answer: int
    margin: float


@dataclass(frozen=True)
class ClassChange:
    """One class. `p` is McNemar's exact p of lost against gained, `p_holm` that of all classes looked at together."""

    label: int
    images: int
    reference_correct: int
    candidate_correct: int
    lost: int
    gained: int
    p: float
    p_holm: float

    @property
    def moved(self) -> bool:
        """More than noise."""
        return self.p_holm < NOISE


@dataclass(frozen=True)
class Confusion:
    """How many flips went from one answer to another."""

    reference_answer: int
    candidate_answer: int
    count: int


@dataclass(frozen=True)
class Flips:
    """All that flipped.

    Attributes:
        flipped: surest first; the same as `Parity.flips` in number.
        per_class: every class, in order; those without images too.
        confusion: most frequent first.
        median_margin: of the flipped; of all images in `median_margin_of_all`, to compare it with.
    """

    flipped: tuple[Flip, ...]
    per_class: tuple[ClassChange, ...]
    confusion: tuple[Confusion, ...]
    median_margin: float
    median_margin_of_all: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON: at most `MOST_LISTED` flips and `MOST_CONFUSIONS` confusions."""
        return {
            "per_class": [{**asdict(row), "moved": row.moved} for row in self.per_class],
            "confusion": [asdict(row) for row in self.confusion[:MOST_CONFUSIONS]],
            "flipped": [asdict(flip) for flip in self.flipped[:MOST_LISTED]],
            "flipped_median_margin": self.median_margin,
            "median_margin": self.median_margin_of_all,
        }


def margins_of(logits: Float32) -> Float64:
    """The largest logit minus the second of each row, float64 (N,); 0 where a row is not finite, or has one class."""
    finite = np.all(np.isfinite(logits), axis=1)
    if logits.shape[1] < 2:
        return np.zeros(len(logits))
    top = np.partition(np.where(finite[:, None], logits, 0).astype(np.float64), -2, axis=1)[:, -2:]
    margins: Float64 = top[:, 1] - top[:, 0]
    return margins


def flips_from_logits(expected: Float32, got: Float32, labels: Int64) -> Flips:
    """Compares the answers of logits (N, classes) of a reference and a candidate."""
    before, after, margins = answers_of(expected), answers_of(got), margins_of(expected)
    where = np.flatnonzero((before != after) | (after < 0))
    where = where[np.argsort(-margins[where], kind="stable")]
    flipped = tuple(
        Flip(int(i), int(labels[i]), int(before[i]), int(after[i]), float(margins[i])) for i in where.tolist()
    )
    pairs = Counter((flip.reference_answer, flip.candidate_answer) for flip in flipped)
    return Flips(
        flipped=flipped,
        per_class=_per_class(before, after, labels, expected.shape[1]),
        confusion=tuple(Confusion(a, b, count) for (a, b), count in sorted(pairs.items(), key=lambda p: (-p[1], p[0]))),
        median_margin=float(np.median(margins[where])) if len(where) else 0.0,
        median_margin_of_all=float(np.median(margins)),
    )


def _per_class(before: Int64, after: Int64, labels: Int64, classes: int) -> tuple[ClassChange, ...]:
    was, now = before == labels, after == labels

    def counted(which: Any) -> Any:
        return np.bincount(labels[which], minlength=classes).tolist()

    images, right, still = counted(labels >= 0), counted(was), counted(now)
    lost, gained = counted(was & ~now), counted(~was & now)
    p_values = [mcnemar_exact_p(lost[c], gained[c]) for c in range(classes)]
    holm = holm_adjusted(p_values)
    return tuple(
        ClassChange(c, images[c], right[c], still[c], lost[c], gained[c], p_values[c], holm[c]) for c in range(classes)
    )
