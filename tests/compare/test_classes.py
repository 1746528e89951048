"""Claims about classes one by one: recall and precision are scikit-learn's words, and what top-1 hides is said."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.compare.classes import Classes, classes_from_answers, classes_that_vanish

NAMES = ("cat", "dog", "newt")


def of(answers: list[int], labels: list[int]) -> Classes:
    return classes_from_answers(np.array(answers), np.array(labels), NAMES)


def test_recall_precision_and_balance_by_hand() -> None:
    found = of([0, 0, 1, 0, 1, 2], [0, 0, 0, 1, 1, 2])
    cat, dog, newt = found.per_class
    assert (cat.recall_percent, cat.precision_percent) == pytest.approx((200 / 3, 200 / 3))
    assert (dog.recall_percent, dog.precision_percent) == (50, 50)
    assert (newt.recall_percent, newt.precision_percent) == (100, 100)
    assert found.balanced_percent == pytest.approx((200 / 3 + 50 + 100) / 3)
    assert (found.majority, found.majority_percent) == ("cat", 50)
    assert [(m.label, m.answer, m.count) for m in found.mistakes] == [(0, 1, 1), (1, 0, 1)]


def test_a_class_that_is_never_right_and_one_without_images_are_told_apart() -> None:
    found = of([0] * 40 + [1] * 20, [0] * 40 + [1] * 18 + [2] * 2)
    assert found.warnings == ("never right: 'newt' (0 of 2)",)
    assert found.per_class[2].precision_percent is None
    without = of([0] * 40 + [1] * 20, [0] * 40 + [1] * 20)
    assert without.warnings == ()
    assert without.per_class[2].recall_percent is None
    assert without.balanced_percent == 100
    most = of([1] * 3 + [0], [1] * 3 + [0])
    assert (most.majority, most.majority_percent) == ("dog", 75)


def test_the_name_of_the_largest_class_for_every_image_is_no_classifier() -> None:
    found = of([0] * 100, [0] * 90 + [1] * 10)
    assert found.warnings == (
        "top-1 90.0 % is no better than the majority share: 'cat' for every image would be right on 90.0 %",
        "never right: 'dog' (0 of 10)",
    )
    assert found.balanced_percent == pytest.approx(50)


def test_five_classes_that_are_never_right_are_named_and_the_others_counted() -> None:
    names = "abcdefgh"
    for wrong, more in ((5, ""), (7, " and 2 more")):
        labels = np.arange(400) % 8
        found = classes_from_answers(np.where(labels < wrong, 7, labels), labels, names)
        named = ", ".join(f"'{name}' (0 of 50)" for name in names[:5])
        assert found.warnings[-1] == f"never right: {named}{more}"


def test_mistakes_are_listed_the_most_frequent_first_then_by_class_and_no_answer_is_one() -> None:
    found = of([1, 1, 2, 0, 0, -1, 2, 1], [0, 0, 0, 1, 2, 2, 2, 1])
    assert [(m.label, m.answer, m.count) for m in found.mistakes] == [
        (0, 1, 2), (0, 2, 1), (1, 0, 1), (2, 0, 1), (2, -1, 1),
    ]  # fmt: skip


def test_a_class_that_falls_to_nothing_is_named() -> None:
    labels = [0, 0, 0, 1, 1, 1]
    before, after = of([0, 0, 0, 1, 1, 1], labels), of([0, 0, 0, 0, 0, 0], labels)
    assert classes_that_vanish(before, after) == ["'dog': 3 of 3 right, then 0"]
    assert classes_that_vanish(after, before) == []


@given(st.lists(st.tuples(st.integers(-1, 2), st.integers(0, 2)), min_size=1, max_size=60))
def test_the_matrix_has_every_image_once_and_the_document_reads_back(pairs: list[tuple[int, int]]) -> None:
    answers, labels = (list(column) for column in zip(*pairs, strict=True))
    found = of(answers, labels)
    matrix = found.matrix()
    assert matrix.sum() == len(pairs)
    assert matrix.dtype == np.int64
    assert matrix.sum(axis=1).tolist() == [labels.count(c) for c in range(3)]
    assert matrix.sum(axis=0).tolist() == [answers.count(c) for c in (0, 1, 2, -1)]
    assert Classes.from_dict(found.as_dict()) == found
