"""Claims about flips: each is listed once, the surest first, and a class has moved only beyond noise."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from toolkit.compare.flips import MOST_LISTED, Flip, flips_from_logits, margins_of
from toolkit.compare.parity import parity_from_logits
from toolkit.contracts import Float32


def _logits(answers: list[int], margins: list[float] | None = None, classes: int = 4) -> Float32:
    logits: Float32 = np.eye(classes, dtype=np.float32)[answers]
    return logits if margins is None else logits * np.array(margins, np.float32)[:, None]


def test_a_flip_says_which_image_from_what_to_what_and_how_sure_the_reference_was() -> None:
    flips = flips_from_logits(_logits([0, 1, 2], [1, 2, 3]), _logits([0, 3, 1]), np.array([0, 1, 1]))
    assert flips.flipped == (Flip(2, 1, 2, 1, 3.0), Flip(1, 1, 1, 3, 2.0))
    assert (flips.flipped_median_margin, flips.median_margin) == (2.5, 2.0)
    assert [(c.reference_answer, c.candidate_answer, c.count) for c in flips.confusion] == [(1, 3, 1), (2, 1, 1)]


ROWS = st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=60)


@given(ROWS)
def test_classes_confusions_and_flips_add_up_to_the_parity(rows: list[tuple[int, int, int]]) -> None:
    before, after, truth = (list(column) for column in zip(*rows, strict=True))
    expected, got, labels = _logits(before), _logits(after), np.array(truth, np.int64)
    flips, parity = flips_from_logits(expected, got, labels), parity_from_logits("a", "b", expected, got, labels)
    assert len(flips.flipped) == sum(c.count for c in flips.confusion) == parity.flips
    assert sum(row.images for row in flips.per_class) == len(rows)
    assert sum(row.lost for row in flips.per_class) == parity.lost
    assert sum(row.gained for row in flips.per_class) == parity.gained
    assert sum(row.reference_correct for row in flips.per_class) == parity.reference_score.correct
    assert sum(row.candidate_correct for row in flips.per_class) == parity.candidate_score.correct
    assert parity.changed == parity.flips - parity.lost - parity.gained


def test_confusions_are_listed_the_most_frequent_first_and_without_a_flip_there_is_none() -> None:
    flips = flips_from_logits(_logits([0, 3, 3, 2, 1]), _logits([1, 0, 0, 0, 0]), np.zeros(5, np.int64))
    listed = [(c.reference_answer, c.candidate_answer, c.count) for c in flips.confusion]
    assert listed == [(3, 0, 2), (0, 1, 1), (1, 0, 1), (2, 0, 1)]
    same = flips_from_logits(_logits([0, 1]), _logits([0, 1]), np.zeros(2, np.int64))
    assert (same.flipped, same.confusion, same.flipped_median_margin) == ((), (), 0)


def test_one_class_that_collapses_is_more_than_noise_and_the_others_are_not() -> None:
    labels = np.arange(200) % 4
    got = np.where(labels == 2, 3, labels)
    flips = flips_from_logits(_logits(labels.tolist()), _logits(got.tolist()), labels)
    assert [row.label for row in flips.per_class if row.moved] == [2]
    assert all(row.p_holm >= row.p for row in flips.per_class)


def test_four_lost_images_spread_over_classes_are_noise() -> None:
    labels = np.arange(200) % 4
    got = labels.copy()
    got[:4] = (got[:4] + 1) % 4
    flips = flips_from_logits(_logits(labels.tolist()), _logits(got.tolist()), labels)
    assert not any(row.moved for row in flips.per_class)


def test_a_document_lists_a_limited_number_and_is_finite() -> None:
    expected = _logits([0] * 500)
    got = np.full_like(expected, np.nan)
    document = flips_from_logits(expected, got, np.zeros(500, np.int64)).as_dict()
    assert len(json.loads(json.dumps(document, allow_nan=False))["flipped"]) == MOST_LISTED
    assert document["flipped"][0]["candidate_answer"] == -1


@given(st.integers(2, 6), st.integers(0, 2**32 - 1))
def test_a_margin_is_the_largest_logit_minus_the_second(classes: int, seed: int) -> None:
    logits = np.random.default_rng(seed).normal(size=(7, classes)).astype(np.float32)
    ordered = np.sort(logits.astype(np.float64), axis=1)
    assert margins_of(logits).tolist() == (ordered[:, -1] - ordered[:, -2]).tolist()
    logits[3, classes - 1] = np.nan
    assert margins_of(logits)[3] == 0


def test_one_class_has_no_margin() -> None:
    assert margins_of(np.ones((3, 1), np.float32)).tolist() == [0, 0, 0]


def test_flips_of_equal_margins_are_listed_as_the_images_are() -> None:
    flips = flips_from_logits(_logits([0] * 90, [1.0, 2.0] * 45), _logits([1] * 90), np.zeros(90, np.int64))
    assert [flip.index for flip in flips.flipped] == [*range(1, 90, 2), *range(0, 90, 2)]
