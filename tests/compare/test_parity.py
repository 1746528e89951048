"""Claims about parity: every difference is reported as a value, and nothing that is broken counts as right."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.compare.parity import (
    BATCH,
    Parity,
    logits_in_batches,
    parity_from_logits,
    parity_without_labels,
    relative_l2,
    score_from_logits,
)
from toolkit.compare.proportions import mcnemar_exact_p, paired_ratio_interval, wilson_interval
from toolkit.contracts import Float32, Int64, UInt8
from toolkit.runtime.null import NullRunner


def _logits(answers: list[int], classes: int = 4) -> Float32:
    """Distinct logits whose largest is at `answers`."""
    logits: Float32 = 0.1 * np.eye(classes, dtype=np.float32)[[(a + 1) % classes for a in answers]]
    return logits + np.eye(classes, dtype=np.float32)[answers]


def _parity(expected: list[int], got: list[int], labels: list[int]) -> Parity:
    return parity_from_logits("a", "b", _logits(expected), _logits(got), np.array(labels, np.int64))


def _random(seed: int, count: int = 40) -> tuple[Float32, Int64]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, 4)).astype(np.float32), rng.integers(0, 4, count)


def test_identical_logits_have_no_flips_and_no_difference() -> None:
    logits, labels = _random(0)
    parity = parity_from_logits("a", "b", logits, logits.copy(), labels)
    assert (parity.flips, parity.lost, parity.gained, parity.nonfinite) == (0, 0, 0, 0)
    assert (parity.agreement_percent, parity.mcnemar_p, parity.relative_l2, parity.max_abs_dlogit) == (100, 1, 0, 0)
    assert (parity.reference, parity.candidate) == ("a", "b")
    assert parity.reference_score == parity.candidate_score


def test_a_shifted_head_is_reported_not_raised() -> None:
    logits, labels = _random(0)
    parity = parity_from_logits("a", "b", logits, np.roll(logits, 1, axis=1), labels)
    assert parity.flips == len(labels)
    assert parity.agreement_percent == 0
    assert parity.relative_l2 > 1


def test_lost_and_gained_are_what_was_right_before_and_is_right_now() -> None:
    #          kept right, lost, lost, gained, wrong to another wrong, kept wrong
    parity = _parity([0, 1, 2, 0, 1, 3], [0, 2, 0, 3, 2, 3], [0, 1, 2, 3, 0, 0])
    assert (parity.flips, parity.lost, parity.gained) == (4, 2, 1)
    assert (parity.reference_score.correct, parity.candidate_score.correct) == (3, 2)
    assert parity.retention_percent == pytest.approx(100 * 2 / 3)
    assert parity.mcnemar_p == mcnemar_exact_p(2, 1)


ANSWERS = st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=50)


@given(ANSWERS)
def test_counts_of_any_answers_fit_together(rows: list[tuple[int, int, int]]) -> None:
    expected, got, labels = (list(column) for column in zip(*rows, strict=True))
    parity = _parity(expected, got, labels)
    count = len(rows)
    assert parity.flips == sum(a != b for a, b in zip(expected, got, strict=True))
    assert round(count * parity.agreement_percent / 100) == count - parity.flips
    assert parity.candidate_score.correct - parity.reference_score.correct == parity.gained - parity.lost
    assert parity.lost + parity.gained <= parity.flips
    back = _parity(got, expected, labels)
    assert (back.lost, back.gained, back.mcnemar_p) == (parity.gained, parity.lost, parity.mcnemar_p)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_without_a_finite_answer_are_wrong_and_flips(bad: float) -> None:
    expected, labels = _logits([0, 1, 2, 3]), np.array([0, 1, 2, 3])
    got = expected.copy()
    got[1, 3] = got[2, 2] = bad
    parity = parity_from_logits("a", "b", expected, got, labels)
    assert (parity.flips, parity.lost, parity.nonfinite) == (2, 2, 2)
    assert parity.candidate_score.correct == 2
    document = json.loads(json.dumps(parity.as_dict(), allow_nan=False))
    assert document["max_abs_dlogit"] is None
    assert document["relative_l2"] is None


def test_nan_on_both_sides_is_no_agreement() -> None:
    logits = np.full((3, 4), np.nan, np.float32)
    parity = parity_from_logits("a", "b", logits, logits.copy(), np.zeros(3, np.int64))
    assert (parity.flips, parity.agreement_percent) == (3, 0)
    assert (parity.worst_cosine_image, *map(np.isnan, (parity.mean_cosine, parity.worst_cosine))) == (-1, True, True)


def test_infinity_on_both_sides_is_no_answer_and_no_warning() -> None:
    logits = np.full((3, 4), -np.inf, np.float32)
    parity = parity_from_logits("a", "b", logits, logits.copy(), np.zeros(3, np.int64))
    assert (parity.flips, parity.nonfinite, parity.relative_l2) == (3, 12, np.inf)


def test_differences_are_measured_over_all_logits() -> None:
    expected, labels = _random(1)
    got = expected.copy()
    got[5, 2] += 0.5
    parity = parity_from_logits("a", "b", expected, got, labels)
    assert parity.max_abs_dlogit == pytest.approx(0.5)
    assert parity.mean_abs_dlogit == pytest.approx(0.5 / expected.size)
    assert parity.relative_l2 == pytest.approx(0.5 / np.linalg.norm(expected))


def test_a_score_is_top1_with_wilsons_interval() -> None:
    score = score_from_logits(_logits([0, 1, 2, 0]), np.array([0, 1, 2, 3]))
    low, high = wilson_interval(3, 4)
    assert (score.top1_percent, score.correct, score.images) == (75, 3, 4)
    assert (score.low_percent, score.high_percent) == (100 * low, 100 * high)


@pytest.mark.parametrize(("rows", "classes", "labels"), [(3, 4, 4), (4, 3, 4), (4, 4, 3)])
def test_logits_that_do_not_belong_together_are_refused(rows: int, classes: int, labels: int) -> None:
    with pytest.raises(ValueError, match=r"for \d labels"):
        parity_from_logits("a", "b", _logits([0] * 4), _logits([0] * rows, classes), np.zeros(labels, np.int64))


class _Counting(NullRunner):
    """Remembers the size of each batch."""

    def __init__(self) -> None:
        super().__init__(4)
        self.sizes: list[int] = []

    def logits(self, images_nhwc: UInt8) -> Float32:
        self.sizes.append(len(images_nhwc))
        return super().logits(images_nhwc)


def test_batches_cover_every_image_once_in_order() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2 * BATCH + 3, 2, 2, 1), dtype=np.uint8)
    runner, seen = _Counting(), list[tuple[int, int]]()
    got = logits_in_batches(runner, images, lambda done, total: seen.append((done, total)))
    assert np.array_equal(got, NullRunner(4).logits(images))
    assert runner.sizes == [BATCH, BATCH, 3]
    assert seen == [(BATCH, len(images)), (2 * BATCH, len(images)), (len(images), len(images))]


def test_cosine_finds_the_worst_image_and_noise_is_in_decibels() -> None:
    expected, labels = _random(2)
    for worst in (0, 7):
        got = expected.copy()
        got[worst] = -got[worst]
        parity = parity_from_logits("a", "b", expected, got, labels)
        assert parity.worst_cosine_image == worst
        assert parity.worst_cosine == pytest.approx(-1)
        assert parity.mean_cosine == pytest.approx(1 - 2 / len(labels))
        assert parity.snr_db == pytest.approx(-20 * np.log10(parity.relative_l2))


def _cosine(expected: Float32, got: Float32) -> float:
    """Of one image."""
    return parity_from_logits("a", "b", expected[None], got[None], np.zeros(1, np.int64)).mean_cosine


@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-3, 1.0, 1e3]))
def test_a_cosine_is_its_definition_at_any_scale_and_within_its_range(seed: int, scale: float) -> None:
    expected, got = (np.random.default_rng(seed).normal(size=(2, 9)) * scale).astype(np.float32)
    a, b = expected.astype(np.float64), got.astype(np.float64)
    assert _cosine(expected, got) == pytest.approx(a @ b / np.sqrt(a @ a * (b @ b)), abs=1e-12)
    assert 1 - 1e-12 < _cosine(expected, 3 * expected) <= 1
    assert -1 <= _cosine(expected, -3 * expected) < -1 + 1e-12
    assert relative_l2(expected, got) == pytest.approx(np.sqrt((a - b) @ (a - b) / (a @ a)), rel=1e-12)


def test_logits_of_nothing_but_zeros_are_like_themselves_alone() -> None:
    zeros, ones = np.zeros((1, 4), np.float32), np.ones((1, 4), np.float32)
    for expected, got, cosine in ((zeros, zeros, 1), (zeros, ones, 0), (ones, zeros, 0)):
        assert _cosine(expected[0], got[0]) == cosine
    both = parity_from_logits("a", "b", np.concatenate([zeros, zeros]), np.concatenate([zeros, ones]), np.zeros(2, int))
    assert (both.worst_cosine, both.worst_cosine_image, both.mean_cosine) == (0, 1, 0.5)


def test_equal_logits_have_a_cosine_of_one_and_no_noise() -> None:
    logits = np.zeros((3, 4), np.float32)
    parity = parity_from_logits("a", "b", logits, logits.copy(), np.zeros(3, np.int64))
    assert (parity.worst_cosine, parity.snr_db) == (1, np.inf)
    assert parity.as_dict()["snr_db"] is None


def test_retention_has_a_paired_interval() -> None:
    logits, labels = _random(3, 400)
    parity = parity_from_logits("a", "b", logits, logits.copy(), labels)
    assert parity.retention_low_percent < 100 < parity.retention_high_percent
    assert parity.both_right == parity.reference_score.correct


def test_the_change_in_points_is_the_retention_of_the_references_top1() -> None:
    parity = _parity([0, 1, 2, 0, 1, 3] * 20, [0, 2, 0, 3, 2, 3] * 20, [0, 1, 2, 3, 0, 0] * 20)
    assert parity.change_points == pytest.approx(parity.candidate_score.top1_percent - 50)
    low, high = paired_ratio_interval(20, 40, 20)
    assert (parity.retention_low_percent, parity.retention_high_percent) == (100 * low, 100 * high)
    assert parity.change_interval_points == pytest.approx((50 * (low - 1), 50 * (high - 1)))
    wrong = _parity([1, 1], [0, 0], [0, 0])
    assert (wrong.retention_percent, wrong.retention_high_percent, wrong.change_interval_points) == (0, np.inf, None)


def test_a_tensor_that_is_not_finite_is_infinitely_far_away() -> None:
    assert relative_l2(np.ones(3, np.float32), np.array([1, np.nan, 1], np.float32)) == np.inf
    assert relative_l2(np.zeros(3, np.float32), np.zeros(3, np.float32)) == 0


def test_flips_and_distances_are_counted_alike_wherever_they_are_printed() -> None:
    rng = np.random.default_rng(0)
    expected = rng.normal(size=(100, 10)).astype(np.float32)
    got = expected + rng.normal(scale=0.3, size=expected.shape).astype(np.float32)
    for broken in (False, True):
        if broken:
            got[7, 3] = np.nan
        parity = parity_from_logits("a", "b", expected, got, expected.argmax(1))
        found = parity_without_labels(expected, got)
        assert (found.flips, found.relative_l2, found.images) == (parity.flips, parity.relative_l2, 100)
        assert found.percent == pytest.approx(parity.agreement_percent)
    assert found.relative_l2 == np.inf
    assert found.flips < 50  # one image without an answer is one flip


def test_no_images_and_single_numbers_have_a_distance_too() -> None:
    none = np.zeros((0, 10), np.float32)
    assert relative_l2(none, none) == 0
    assert relative_l2(np.array(2.0, np.float32), np.array(1.0, np.float32)) == 0.5


@given(order=st.permutations(range(40)))
def test_a_distance_is_the_same_bits_for_any_order_of_the_images(order: list[int]) -> None:
    rng = np.random.default_rng(1)
    expected, got = rng.normal(size=(2, 40, 7, 3)).astype(np.float32)
    assert relative_l2(expected[order], got[order]) == relative_l2(expected, got)
