"""Claims about percentiles and their intervals: numpy's and scipy's own, and 95 % of intervals hold the truth."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.oracles import oracle
from toolkit.contracts import Float64
from toolkit.timing.percentiles import (
    fewest_for,
    inflation,
    interval_ranks,
    percentile_interval,
    percentile_nearest_rank,
    quantiles_from_sorted,
)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300), st.integers(1, 100))
def test_a_percentile_is_numpys_nearest_rank(values: list[float], percent: int) -> None:
    found = percentile_nearest_rank(sorted(values), percent)
    assert found in values
    assert sum(value <= found for value in values) * 100 >= percent * len(values)
    assert sum(value < found for value in values) * 100 < percent * len(values)


@pytest.mark.parametrize("count", [1, 2, 7, 100, 1000, 12345])
@pytest.mark.parametrize("percent", [0, 1, 50, 90, 95, 99, 100])
def test_the_estimator_is_definition_1_of_hyndman_and_fan(count: int, percent: int) -> None:
    values = np.sort(np.random.default_rng(count).lognormal(size=count))
    assert percentile_nearest_rank(values, percent) == np.percentile(values, percent, method="inverted_cdf")


@pytest.mark.parametrize(("count", "rank"), [(1, 1), (999, 999), (1000, 999), (1001, 1000), (10_000, 9990)])
def test_the_rank_of_the_far_tail_is_exact_where_floating_point_is_not(count: int, rank: int) -> None:
    assert percentile_nearest_rank(np.arange(1.0, count + 1), 99.9) == rank


def test_percentiles_of_ten_are_the_fifth_the_ninth_and_the_last() -> None:
    values = [float(value) for value in range(1, 11)]
    assert [percentile_nearest_rank(values, percent) for percent in (0.1, 50, 90, 99, 100)] == [1, 5, 9, 10, 10]


def test_there_are_101_quantiles_from_the_least_to_the_most() -> None:
    values = np.sort(np.random.default_rng(0).lognormal(size=777))
    quantiles = quantiles_from_sorted(values)
    assert len(quantiles) == 101
    assert (quantiles[0], quantiles[50], quantiles[100]) == (values[0], np.median(values), values[-1])
    assert quantiles == sorted(quantiles)


@pytest.mark.parametrize("count", [6, 20, 100, 999, 5000])
@pytest.mark.parametrize("percent", [50.0, 90.0, 99.0])
def test_ranks_are_scipys_for_the_same_quantile(count: int, percent: float) -> None:
    values = np.random.default_rng(count).lognormal(size=count)
    ordered, ranks = np.sort(values), interval_ranks(percent, count)
    expected = oracle("scipy.stats").quantile_test(values, q=1, p=percent / 100).confidence_interval(0.95)
    if ranks is None:
        assert math.isnan(expected.low) or math.isnan(expected.high)
    else:
        assert (ordered[ranks[0] - 1], ordered[ranks[1] - 1]) == (expected.low, expected.high)


@given(st.integers(1, 200_000), st.sampled_from([10.0, 50.0, 90.0, 95.0, 99.0, 99.9]))
def test_each_tail_of_the_ranks_holds_a_fortieth_at_most_and_no_rank_is_wasted(count: int, percent: float) -> None:
    ranks = interval_ranks(percent, count)
    law = oracle("scipy.stats").binom(count, percent / 100)
    if ranks is None:
        assert count < fewest_for(percent)
        return
    low, high = ranks
    assert law.cdf(low - 1) <= 0.025 < law.cdf(low)
    assert law.sf(high - 1) <= 0.025 < law.sf(high - 2)


@pytest.mark.parametrize(("percent", "count"), [(50, 6), (90, 36), (95, 72), (99, 368), (99.9, 3688)])
def test_the_fewest_calls_are_the_first_that_give_an_interval(percent: float, count: int) -> None:
    assert fewest_for(percent) == count
    assert interval_ranks(percent, count) is not None
    assert interval_ranks(percent, count - 1) is None


def _coverage(draw: Callable[[], Float64], percent: float, truth: float, times: int) -> float:
    hits = 0
    for _ in range(times):
        values = draw()
        interval = percentile_interval(values, np.sort(values), percent)
        assert interval is not None
        hits += interval[0] <= truth <= interval[1]
    return hits / times


@pytest.mark.parametrize(("percent", "count"), [(50.0, 1000), (90.0, 2000), (99.0, 6000)])
def test_intervals_of_independent_latencies_hold_the_truth_95_times_in_100(percent: float, count: int) -> None:
    draws = np.random.default_rng(1)
    times = 2500 if count == 1000 else 1000
    found = _coverage(lambda: draws.standard_exponential(count), percent, -math.log1p(-percent / 100), times)
    # One point, and two standard errors of the simulation: 0.4 points of 2,500 draws, 0.7 of 1,000.
    assert found == pytest.approx(0.955, abs=0.01 + 2 * math.sqrt(0.95 * 0.05 / times))


def _dependent(draws: np.random.Generator, count: int, of_one_before: float) -> Float64:
    """Normal values whose correlation with the one before is given."""
    noise = draws.standard_normal(count + 200) * math.sqrt(1 - of_one_before**2)
    return np.asarray(oracle("scipy.signal").lfilter([1.0], [1.0, -of_one_before], noise)[200:])


@pytest.mark.slow
@pytest.mark.parametrize("of_one_before", [0.5, 0.8])
def test_intervals_of_calls_that_are_like_their_neighbors_hold_it_too(of_one_before: float) -> None:
    draws = np.random.default_rng(2)
    found = _coverage(lambda: _dependent(draws, 3000, of_one_before), 50, 0.0, 800)
    assert found == pytest.approx(0.95, abs=0.01 + 2 * math.sqrt(0.95 * 0.05 / 800))
    # What the plain ranks would have made of them: far too narrow.
    low, high = interval_ranks(50, 3000) or (0, 0)
    naive = [np.sort(_dependent(draws, 3000, of_one_before))[[low - 1, high - 1]] for _ in range(300)]
    assert np.mean([a <= 0 <= b for a, b in naive]) < 0.87


def test_the_inflation_is_the_one_of_theory() -> None:
    # Whether a normal AR(1) is below its median: correlations (2/pi) asin(rho^k); summed on both sides.
    values = _dependent(np.random.default_rng(3), 400_000, 0.8)
    theory = 1 + 2 * sum(2 / math.pi * math.asin(0.8**lag) for lag in range(1, 60))
    assert inflation(values, 0.0) == pytest.approx(theory, rel=0.03)
    assert inflation(np.random.default_rng(4).standard_normal(400_000), 0.0) == pytest.approx(1, abs=0.02)
    assert inflation(np.ones(100), 1.0) == 1.0


def test_one_huge_outlier_moves_no_percentile_but_the_last() -> None:
    values = np.random.default_rng(5).lognormal(size=999)
    wild = np.concatenate([values, [1e9]])
    assert percentile_nearest_rank(np.sort(wild), 99.9) == values.max()
    assert percentile_nearest_rank(np.sort(wild), 100) == 1e9
