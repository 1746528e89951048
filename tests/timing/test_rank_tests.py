"""Claims about ratios: scipy's exact tests at the edge of each interval, and the rate of false alarms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.oracles import oracle
from toolkit.timing.rank_tests import ALPHA, EXACT, rank_sum_cut, ratio_from_pairs, ratio_from_runs, signed_rank_cut


@pytest.mark.parametrize("rounds", [10, 15, 20, 30, 60])
def test_a_paired_interval_ends_where_scipys_signed_rank_test_turns(rounds: int) -> None:
    draws = np.random.default_rng(rounds)
    before, after = draws.lognormal(0, 0.02, (2, rounds))
    found = ratio_from_pairs(before, after)
    assert found.low is not None
    logs = np.log(after) - np.log(before)
    for shift, rejected in ((np.log(found.low) - 1e-9, True), (np.log(found.low) + 1e-9, False)):
        p = oracle("scipy.stats").wilcoxon(logs - shift, alternative="greater", method="exact").pvalue
        assert bool(p <= ALPHA) is rejected


@pytest.mark.parametrize(("m", "n"), [(8, 10), (20, 20), (12, 30)])
def test_an_interval_of_two_runs_ends_where_scipys_rank_sum_test_turns(m: int, n: int) -> None:
    draws = np.random.default_rng(m)
    before, after = draws.lognormal(0, 0.02, m), draws.lognormal(0.01, 0.03, n)
    found = ratio_from_runs(before, after)
    assert found.low is not None
    for shift, rejected in ((np.log(found.low) - 1e-9, True), (np.log(found.low) + 1e-9, False)):
        tested = oracle("scipy.stats").mannwhitneyu(
            np.log(after) - shift, np.log(before), alternative="greater", method="exact"
        )
        p = tested.pvalue
        assert bool(p <= ALPHA) is rejected


@pytest.mark.parametrize("cut", [signed_rank_cut, lambda n: rank_sum_cut(n, n)])
def test_the_normal_limit_begins_a_hundredth_wider_and_never_narrower(
    cut: Callable[[int], int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    signed_rank_cut.cache_clear()
    rank_sum_cut.cache_clear()
    exact = cut(EXACT)
    monkeypatch.setattr("toolkit.timing.rank_tests.EXACT", EXACT - 1)
    signed_rank_cut.cache_clear()
    rank_sum_cut.cache_clear()
    normal = cut(EXACT)
    assert exact is not None
    assert normal is not None
    assert 0.98 * exact <= normal <= exact


def test_the_normal_limit_of_200_rounds_is_scipys() -> None:
    before, after = np.random.default_rng(7).lognormal(0, 0.02, (2, 200))
    found = ratio_from_pairs(before, after)
    assert found.low is not None
    logs = np.log(after) - np.log(before) - np.log(found.low)
    for shift, rejected in ((1e-9, True), (-1e-9, False)):
        tested = oracle("scipy.stats").wilcoxon(
            logs + shift, alternative="greater", method="asymptotic", correction=True
        )
        p = tested.pvalue
        assert bool(p <= ALPHA) is rejected


def test_too_few_rounds_give_no_interval() -> None:
    assert signed_rank_cut(9) is None
    assert signed_rank_cut(10) == 0
    assert rank_sum_cut(4, 4) is None
    assert ratio_from_pairs([1.0] * 9, [2.0] * 9).low is None
    assert ratio_from_pairs([1.0] * 9, [2.0] * 9).ratio == pytest.approx(2)


@given(st.floats(0.5, 2), st.integers(0, 10**6))
def test_a_ratio_scales_with_the_candidate_and_turns_over_with_the_order(factor: float, seed: int) -> None:
    before, after = np.random.default_rng(seed).lognormal(0, 0.05, (2, 20))
    for measure in (ratio_from_pairs, ratio_from_runs):
        plain, scaled, turned = measure(before, after), measure(before, after * factor), measure(after, before)
        assert plain.low is not None
        assert plain.high is not None
        assert turned.high is not None
        assert plain.low <= plain.ratio <= plain.high
        assert scaled.ratio == pytest.approx(plain.ratio * factor)
        assert turned.ratio == pytest.approx(1 / plain.ratio)
        assert turned.high == pytest.approx(1 / plain.low)


def test_one_wild_round_moves_the_ratio_little() -> None:
    before, after = np.random.default_rng(0).lognormal(0, 0.01, (2, 20))
    calm = ratio_from_pairs(before, after).ratio
    after[3] *= 50
    assert ratio_from_pairs(before, after).ratio == pytest.approx(calm, rel=0.005)


@pytest.mark.slow
def test_95_in_100_intervals_of_pairs_hold_the_true_ratio() -> None:
    # At the level of 95 %, where a simulation can tell: alpha is 2.5 % a side. Heavy tails: Student's t with 3 degrees.
    draws, hits, times = np.random.default_rng(1), 0, 4000
    for noise in oracle("scipy.stats").t.rvs(3, size=(times, 20), random_state=draws):
        found = ratio_from_pairs(np.ones(20), 1.02 * np.exp(0.01 * noise), alpha=0.025)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 1.02 <= found.high
    assert hits / times == pytest.approx(0.95, abs=0.01)
