"""Which images two runners answer differently: one by one, by class, and from which answer to which."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from toolkit.compare.parity import answers_of
from toolkit.compare.proportions import holm_adjusted, mcnemar_exact_p
from toolkit.contracts import Float32, Float64, Int64
from toolkit.storage.documents import Document
from toolkit.storage.hints import Count, Items, Limits, NotNegative, Probability

MOST_LISTED = 200  # flips in a document: enough for pictures, and it stays small where everything flips
MOST_CONFUSIONS = 10
NOISE = 0.05  # a class moved where Holm's p over all classes is below it
Answer = Annotated[int, Limits(least=-1)]  # index into labels; -1: the logits were not finite


@dataclass(frozen=True)
class Flip(Document):
    """One image; answers are class indices, -1 for logits that are not finite.

    Attributes:
        index: among the judged images.
        margin: how sure the reference was, its largest logit minus the second; 0 where they are not finite.
    """

    index: Count
    label: Count
    reference_answer: Answer
    candidate_answer: Answer
    margin: NotNegative


@dataclass(frozen=True)
class ClassChange(Document):
    """One class.

    Attributes:
        p: McNemar's exact p of lost against gained.
        p_holm: that of all classes looked at together.
        moved: more than noise: p_holm is below 0.05.
    """

    label: Count
    images: Count
    reference_correct: Count
    candidate_correct: Count
    lost: Count
    gained: Count
    p: Probability
    p_holm: Probability
    moved: bool


@dataclass(frozen=True)
class Confusion(Document):
    """How many flips went from one answer to another."""

    reference_answer: Answer
    candidate_answer: Answer
    count: Count


@dataclass(frozen=True)
class Flips(Document):
    """All that flipped; a document holds at most `MOST_LISTED` of them and `MOST_CONFUSIONS` confusions.

    Attributes:
        per_class: every class, in the order of labels; those without images too.
        confusion: of the flips, most frequent first.
        flipped: those first of which the reference was surest; in memory as many as `Parity.flips`.
        flipped_median_margin: of the flipped.
        median_margin: of all images, to compare it with.
    """

    per_class: tuple[ClassChange, ...]
    confusion: Annotated[tuple[Confusion, ...], Items(most=MOST_CONFUSIONS)]
    flipped: Annotated[tuple[Flip, ...], Items(most=MOST_LISTED)]
    flipped_median_margin: float
    median_margin: float


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
        flipped_median_margin=float(np.median(margins[where])) if len(where) else 0.0,
        median_margin=float(np.median(margins)),
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
        ClassChange(c, images[c], right[c], still[c], lost[c], gained[c], p_values[c], holm[c], holm[c] < NOISE)
        for c in range(classes)
    )
