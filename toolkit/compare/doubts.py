"""What answers to labeled images say against a classifier: no better than chance, one class, less than claimed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from toolkit.compare.proportions import mcnemar_exact_p, wilson_interval
from toolkit.contracts import Int64

ONE_CLASS = 0.9  # of the answers
SPREAD = 0.6  # of the labels may be of one class, for such answers to say something
SURE = 1e-4  # the p-value of a better reading: some twenty are tried at each export
BETTER = 0.02  # of the images, at least: less is not worth stopping for


@dataclass(frozen=True)
class Doubt:
    """A sign that a model is not read as it was trained.

    Attributes:
        kind: for machines: "normalisation", "reading", "order of labels", "one class", "chance", "expectation",
            "multi-label" or "numbers".
        what: a sentence with its figures.
        fix: what to type; "" where nothing does it.
    """

    kind: str
    what: str
    fix: str = ""

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return asdict(self)


def percent_right(answers: Int64, labels: Int64) -> str:
    """'88.5 % of 480 images'."""
    return f"{100 * float((answers == labels).mean()):.1f} % of {len(labels):,} images"


def chance_of(answers: Int64, labels: Int64, classes: int) -> float:
    """The part of the images, 0..1, that such answers have right where they know nothing of the images.

    Answers and labels as often as they are, and independent (J. Cohen, Educational and Psychological Measurement 20,
    1960): half of two equal classes, and as many as one class has where that is the only answer.
    """
    count = np.bincount(answers[answers >= 0], minlength=classes), np.bincount(labels, minlength=classes)
    return float((count[0] / len(answers) * (count[1] / len(labels))).sum())


def doubts_in_answers(
    answers: Int64, labels: Int64, names: Sequence[str], expected: Sequence[tuple[str, float]] = ()
) -> list[Doubt]:
    """The doubts that answers (N,) raise by themselves.

    Args:
        names: one a class.
        expected: who says that it is right on how many percent: ("its card", 93.4).
    """
    found: list[Doubt] = []
    right = int((answers == labels).sum())
    low, high = wilson_interval(right, len(labels))
    words = percent_right(answers, labels)
    counts = np.bincount(answers[answers >= 0], minlength=len(names))
    most, largest = int(counts.argmax()), float(np.bincount(labels).max()) / len(labels)
    if counts[most] > ONE_CLASS * len(answers) and largest <= SPREAD:
        share = 100 * counts[most] / len(answers)
        found.append(Doubt("one class", f"it gives one class, '{names[most]}', to {share:.0f} % of the images"))
    chance = chance_of(answers, labels, len(names))
    if low <= chance:
        found.append(Doubt("chance", f"it is right on {words}, and chance alone on {100 * chance:.1f} %"))
    for who, percent in expected:
        if 100 * high < percent:
            found.append(Doubt("expectation", f"it is right on {words}, and {who} says {percent:g} %"))
    return found


def is_better(before: Int64, after: Int64, labels: Int64) -> bool:
    """Whether other answers to the same images are right on so many more that it cannot be luck."""
    was, now = before == labels, after == labels
    lost, gained = int((was & ~now).sum()), int((~was & now).sum())
    return gained - lost >= BETTER * len(labels) and mcnemar_exact_p(lost, gained) < SURE


def could_be_better(answers: Int64, labels: Int64) -> bool:
    """Whether there is room for `is_better`: a model that has nearly all right has none."""
    return is_better(answers, labels, labels)
