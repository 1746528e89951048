"""Claims about doubts: each has its own border, and says its figures."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from toolkit.compare.doubts import chance_of, could_be_better, doubts_in_answers, is_better, percent_right
from toolkit.compare.proportions import wilson_interval
from toolkit.contracts import Int64

NAMES = ("cat", "dog", "newt")
LABELS: Int64 = np.arange(300, dtype=np.int64) % 3


def kinds(answers: Int64, labels: Int64 = LABELS, expected: tuple[tuple[str, float], ...] = ()) -> list[str]:
    return [doubt.kind for doubt in doubts_in_answers(answers, labels, NAMES, expected)]


def mostly(share: float, most: int = 1, right: Int64 = LABELS) -> Int64:
    """One class for the first `share` of the images, the right one for the others."""
    count = round(share * len(right))
    return np.concatenate([np.full(count, most), right[count:]])


def test_right_answers_raise_no_doubt() -> None:
    assert kinds(LABELS) == []
    assert percent_right(mostly(0.1), LABELS) == "93.3 % of 300 images"


def test_one_class_is_named_with_its_share_and_what_chance_would_give() -> None:
    found = doubts_in_answers(mostly(0.95), LABELS, NAMES)
    assert [(doubt.kind, doubt.what) for doubt in found] == [
        ("one class", "it gives one class, 'dog', to 97 % of the images"),
        ("chance", "it is right on 36.7 % of 300 images, and chance alone on 33.3 %"),
    ]
    assert found[0].as_dict() == {"kind": "one class", "what": found[0].what, "fix": ""}


def test_nine_answers_in_ten_are_no_doubt_yet_nor_where_most_labels_are_of_one_class() -> None:
    ninety = np.array([1] * 90 + [0] * 5 + [2] * 5)
    assert "one class" not in kinds(ninety, LABELS[:100])
    for most in range(3):
        assert "one class" in kinds(np.array([most] * 91 + [(most + 1) % 3] * 9), LABELS[:100])
    for of_one_class, doubted in ((60, True), (61, False)):
        labels = np.array([1] * of_one_class + [0] * (100 - of_one_class))
        assert ("one class" in kinds(np.ones(100, np.int64), labels)) == doubted


def test_images_without_an_answer_are_of_no_class_and_by_chance_wrong() -> None:
    answers = np.concatenate([np.full(150, -1), LABELS[150:]])
    assert kinds(answers) == []
    assert kinds(np.full(300, -1)) == ["chance"]
    assert chance_of(answers, LABELS, 3) == pytest.approx(1 / 6)


def test_chance_is_independence_of_answers_and_labels() -> None:
    assert chance_of(np.array([0, 0, 0, 1]), np.array([0, 1, 1, 1]), 3) == pytest.approx(3 / 4 * 1 / 4 + 1 / 4 * 3 / 4)


def test_who_claims_more_than_the_interval_allows_is_contradicted_by_name() -> None:
    answers = mostly(0.3)
    high = 100 * wilson_interval(int((answers == LABELS).sum()), 300)[1]
    claims = (("its card", high - 0.01), ("somebody", high + 0.01), ("another", 99.5))
    found = doubts_in_answers(answers, LABELS, NAMES, claims)
    assert [doubt.kind for doubt in found] == ["expectation"] * 2
    assert found[1].what == "it is right on 80.0 % of 300 images, and another says 99.5 %"


@given(st.integers(0, 60), st.integers(0, 60))
@example(0, 15)
@example(1, 19)
@example(0, 20)
@example(40, 60)
def test_better_is_two_images_in_a_hundred_and_no_luck(lost: int, gained: int) -> None:
    labels = np.zeros(1000, np.int64)
    before, after = labels.copy(), labels.copy()
    before[:gained], after[gained : gained + lost] = 1, 1
    net = gained - lost
    assert is_better(before, after, labels) == (net >= 20 and _tail(lost, gained) < 1e-4)


def _tail(lost: int, gained: int) -> float:
    return sum(comb(lost + gained, k) for k in range(lost + 1)) / float(2 ** (lost + gained - 1))


def test_there_is_room_above_a_model_unless_it_has_nearly_all_right() -> None:
    assert could_be_better(mostly(0.3), LABELS)
    assert not could_be_better(LABELS, LABELS)
    assert not is_better(LABELS, mostly(0.3), LABELS)
