"""Every class by itself: how much of it is found, how often its name is right, and what is taken for what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from toolkit.compare.proportions import wilson_interval
from toolkit.contracts import Int64
from toolkit.storage.documents import Document
from toolkit.storage.hints import Count, Items, Limits, Percent

MOST_CONFUSED = 1000  # in a document: every mistake of a hundred classes, and it stays small where there are thousands
MOST_NAMED = 5


@dataclass(frozen=True)
class ClassScore(Document):
    """One class.

    Attributes:
        images: of this class. right: of those, answered so. answers: how often this class was the answer at all.
        recall_percent: right of images; null for a class without images.
        precision_percent: right of answers; null for a class that is never the answer.
    """

    name: str
    images: Count
    right: Count
    answers: Count
    recall_percent: Percent | None
    precision_percent: Percent | None


@dataclass(frozen=True)
class Mistake(Document):
    """How many images of one class got the name of another; indices of labels, -1 for no finite answer."""

    label: Count
    answer: Annotated[int, Limits(least=-1)]
    count: Count


@dataclass(frozen=True)
class Classes(Document):
    """What top-1 hides: a rare class that is never found, or a classifier that knows nothing but the largest.

    Attributes:
        per_class: every class, in the order of the labels.
        mistakes: the confusion matrix without its diagonal and its zeros, most frequent first.
        balanced_percent: balanced accuracy, the mean recall of the classes that have images (K. H. Brodersen et al.,
            The balanced accuracy and its posterior distribution, ICPR 2010).
        majority: the class with the most images. majority_percent: of all images, which its name alone has right.
        warnings: sentences on classes that are never right, and on a top-1 that is no better than the majority's.
    """

    per_class: Annotated[tuple[ClassScore, ...], Items(least=1)]
    mistakes: Annotated[tuple[Mistake, ...], Items(most=MOST_CONFUSED)]
    balanced_percent: Percent
    majority: str
    majority_percent: Percent
    warnings: tuple[str, ...]

    def matrix(self) -> Int64:
        """Confusions, int64 (classes, classes + 1): rows are labels, columns answers, the last is no answer."""
        count = len(self.per_class)
        found = np.zeros((count, count + 1), np.int64)
        for index, score in enumerate(self.per_class):
            found[index, index] = score.right
        for mistake in self.mistakes:
            found[mistake.label, mistake.answer] = mistake.count
        return found


def classes_from_answers(answers: Int64, labels: Int64, names: Sequence[str]) -> Classes:
    """Counts answers (N,), -1 for none, against labels (N,).

    Args:
        names: one a class.
    """
    count = len(names)
    matrix = np.zeros((count, count + 1), np.int64)
    np.add.at(matrix, (labels, answers), 1)  # an answer of -1 is counted in the last column
    images, given = matrix.sum(axis=1).tolist(), matrix.sum(axis=0).tolist()
    right = np.diagonal(matrix).tolist()
    scores = tuple(
        ClassScore(name, images[i], right[i], given[i], _percent(right[i], images[i]), _percent(right[i], given[i]))
        for i, name in enumerate(names)
    )
    wrong = [(int(matrix[i, j]), int(i), int(j)) for i, j in np.argwhere(matrix) if i != j]
    mistakes = tuple(
        Mistake(i, -1 if j == count else j, times) for times, i, j in sorted(wrong, key=lambda w: (-w[0], *w[1:]))
    )
    recalls = [score.recall_percent for score in scores if score.recall_percent is not None]
    most = int(np.argmax(images))
    return Classes(
        scores,
        mistakes,
        sum(recalls) / len(recalls),
        names[most],
        100 * images[most] / len(labels),
        tuple(_warnings(scores, most, len(labels))),
    )


def classes_that_vanish(before: Classes, after: Classes) -> list[str]:
    """Sentences on classes that are found before and never after: "'cat': 3 of 3 right, then 0"."""
    return [
        f"'{old.name}': {old.right:,} of {old.images:,} right, then 0"
        for old, new in zip(before.per_class, after.per_class, strict=True)
        if old.right and not new.right
    ]


def _percent(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole else None


def _warnings(scores: Sequence[ClassScore], most: int, images: int) -> list[str]:
    right = sum(score.right for score in scores)
    low, _ = wilson_interval(right, images)
    share = scores[most].images / images
    found = []
    if low <= share:
        found.append(
            f"top-1 {100 * right / images:.1f} % is no better than the majority share: '{scores[most].name}' for every "
            f"image would be right on {100 * share:.1f} %"
        )
    never = [f"'{score.name}' (0 of {score.images:,})" for score in scores if score.images and not score.right]
    if never:
        more = f" and {len(never) - MOST_NAMED} more" if len(never) > MOST_NAMED else ""
        found.append(f"never right: {', '.join(never[:MOST_NAMED])}{more}")
    return found
