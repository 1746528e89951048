"""Claims about the gate: three verdicts, an interval behind each, and how many images would decide."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.compare.gate import FAIL, PASS, UNDECIDED, Verdict, verdict_from_counts, verdict_of_itself
from toolkit.compare.proportions import paired_ratio_interval


def test_a_healthy_int8_passes_99_on_1000_images_and_cannot_be_told_at_99_9() -> None:
    assert verdict_from_counts(938, 0, 2, 1000, 99.0).word == PASS
    verdict = verdict_from_counts(933, 5, 4, 1000, 99.9)
    assert (verdict.word, verdict.reaches) == (UNDECIDED, False)
    assert verdict.low_percent < 99.9 < verdict.high_percent


def test_a_loss_that_no_noise_explains_fails() -> None:
    verdict = verdict_from_counts(860, 78, 2, 1000, 99.0)
    assert (verdict.word, verdict.reaches, verdict.images_needed) == (FAIL, False, None)


def test_so_many_images_as_it_says_would_decide() -> None:
    verdict = verdict_from_counts(96, 0, 0, 100, 99.0)
    assert verdict.word == UNDECIDED
    assert verdict.images_needed is not None
    assert 100 < verdict.images_needed < 1000
    times = verdict.images_needed / 100
    assert verdict_from_counts(round(96 * times), 0, 0, verdict.images_needed, 99.0).word == PASS


@pytest.mark.parametrize(
    ("counts", "images", "gate", "needed"),
    [((9, 0, 0), 10, 94.0, 35), ((45, 0, 1), 50, 99.9, 230), ((920, 3, 4), 1000, 99.9, 7400)],
)
def test_the_images_needed_are_the_fewest_to_two_digits(
    counts: tuple[int, int, int], images: int, gate: float, needed: int
) -> None:
    assert verdict_from_counts(*counts, images, gate).images_needed == needed
    for count, word in ((needed, True), (round(0.96 * needed), False)):
        both, lost, gained = (round(part * count / images) for part in counts)
        assert (verdict_from_counts(both, lost, gained, count, gate).word != UNDECIDED) == word


def test_a_candidate_at_the_gate_itself_is_decided_by_no_number_of_images() -> None:
    verdict = verdict_from_counts(980, 20, 10, 1000, 99.0)
    assert (verdict.word, verdict.images_needed) == (UNDECIDED, None)
    assert verdict.reaches
    assert verdict.holds(strict=False)
    assert not verdict.holds(strict=True)


def test_logits_that_are_not_finite_fail_whatever_the_answers() -> None:
    verdict = verdict_from_counts(1000, 0, 0, 1000, 0.0, nonfinite=1)
    assert (verdict.word, verdict.reaches) == (FAIL, False)


def test_the_reference_passes_itself_unless_it_answers_nothing() -> None:
    itself = Verdict(PASS, 99.9, 100.0, 100.0, 100.0, reaches=True, images_needed=None)
    assert verdict_of_itself(99.9) == itself
    assert verdict_of_itself(99.9, nonfinite=1) == replace(itself, word=FAIL, reaches=False)


def test_a_reference_that_is_never_right_decides_nothing_and_stays_json() -> None:
    verdict = verdict_from_counts(0, 0, 3, 10, 99.0)
    assert verdict.word == UNDECIDED
    assert json.loads(json.dumps(verdict.as_dict(), allow_nan=False))["high_percent"] is None


@given(st.integers(0, 800), st.integers(0, 100), st.integers(0, 100), st.floats(1, 100))
def test_the_word_follows_from_the_interval(both: int, lost: int, gained: int, gate: float) -> None:
    verdict = verdict_from_counts(both, lost, gained, 1000, gate)
    assert verdict.low_percent <= verdict.high_percent
    if verdict.word == PASS:
        assert verdict.low_percent >= gate - 1e-9
        assert verdict.reaches
    if verdict.word == FAIL:
        assert verdict.high_percent < gate
        assert not verdict.reaches
    assert (verdict.images_needed is None) or verdict.word == UNDECIDED
    low, high = paired_ratio_interval(both, lost, gained)
    assert (verdict.low_percent, verdict.high_percent, verdict.gate_percent) == (100 * low, 100 * high, gate)
    kept = 100 * (both + gained) / (both + lost) if both + lost else 0
    assert verdict.retention_percent == pytest.approx(kept, rel=1e-15)
