"""Claims about our statistics: scipy and statsmodels get the same numbers, and intervals cover what they promise."""

from __future__ import annotations

from functools import lru_cache
from math import inf, sqrt
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.oracles import oracle
from toolkit.compare.proportions import Z95, holm_adjusted, mcnemar_exact_p, paired_ratio_interval, wilson_interval

DRAWS = 20_000


@given(st.integers(1, 20_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_that_of_statsmodels(case: tuple[int, int]) -> None:
    assert wilson_interval(*case) == pytest.approx(
        oracle("statsmodels.stats.proportion").proportion_confint(*case, alpha=0.05, method="wilson"), abs=1e-12
    )


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_that_of_statsmodels_and_the_sign_test_of_scipy(lost: int, gained: int) -> None:
    table = [[50, lost], [gained, 7]]
    assert mcnemar_exact_p(lost, gained) == pytest.approx(
        oracle("statsmodels.stats.contingency_tables").mcnemar(table, exact=True).pvalue, rel=1e-9
    )
    if lost + gained:
        assert mcnemar_exact_p(lost, gained) == pytest.approx(
            oracle("scipy.stats").binomtest(lost, lost + gained).pvalue, rel=1e-9
        )


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_is_that_of_statsmodels(p_values: list[float]) -> None:
    with patch("gc.collect"):  # statsmodels asks for it in every call, and half a second goes where torch is loaded
        theirs = oracle("statsmodels.stats.multitest").multipletests(p_values, method="holm")[1]
    assert holm_adjusted(p_values) == pytest.approx(theirs)


def test_z_is_the_quantile_of_scipy() -> None:
    assert pytest.approx(oracle("scipy.stats").norm.ppf(0.975), abs=1e-15) == Z95


def _as_published(n11: int, n12: int, n21: int) -> tuple[float, float]:
    """Bonett and Price's interval of (n11 + n12) / (n11 + n21), step by step as the formula is printed."""
    n, first, second = n11 + n12 + n21, n11 + n12, n11 + n21
    a = sqrt((n12 + n21 + 2) / ((first + 1) * (second + 1)))
    b = sqrt((1 - (first + 1) / (n + 2)) / (first + 1))
    c = sqrt((1 - (second + 1) / (n + 2)) / (second + 1))
    z = a / (b + c) * float(oracle("scipy.stats").norm.ppf(0.975))

    def ends(x: int) -> tuple[float, float]:
        root = z * sqrt(z * z + 4 * x * (1 - x / n))
        return (2 * x + z * z - root) / (2 * (n + z * z)), (2 * x + z * z + root) / (2 * (n + z * z))

    (low_1, high_1), (low_2, high_2) = ends(first), ends(second)
    return low_1 / high_2, high_1 / low_2


@given(st.integers(0, 2000), st.integers(0, 300), st.integers(0, 300))
def test_the_paired_ratio_is_the_published_formula(both: int, only_a: int, only_b: int) -> None:
    got = paired_ratio_interval(both, only_a, only_b)
    if both + only_a == 0 or both + only_b == 0:
        assert got == (0.0, inf)
        return
    # The paper divides the first by the second; ours is b over a.
    assert got == pytest.approx(_as_published(both, only_b, only_a), rel=1e-9)


@given(st.integers(1, 5000), st.integers(0, 300), st.integers(0, 300))
def test_the_paired_ratio_holds_its_estimate_and_mirrors(both: int, only_a: int, only_b: int) -> None:
    low, high = paired_ratio_interval(both, only_a, only_b)
    assert 0 < low <= (both + only_b) / (both + only_a) <= high
    assert paired_ratio_interval(both, only_b, only_a) == pytest.approx((1 / high, 1 / low))


def test_no_flips_still_leave_room_for_some() -> None:
    low, high = paired_ratio_interval(938, 0, 0)
    assert 0.997 < low < 0.999 < 1.001 < high < 1.003


@pytest.mark.parametrize("counts", [(-1, 0, 0), (5, -1, 0), (5, 0, -1)])
def test_negative_counts_are_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="no counts"):
        paired_ratio_interval(*counts)


# Images, top-1 of the reference, and the parts that the candidate loses and gains: at least 20 flips are expected.
# With fewer, discreteness makes the interval wider than it must be: see the next test.
PAIRED = [(1000, 0.93, 0.01, 0.01), (1000, 0.9, 0.02, 0.01), (1000, 0.7, 0.05, 0.05), (10_000, 0.93, 0.003, 0.003)]


def _cover(images: int, top1: float, lost: float, gained: float) -> float:
    """How often the paired interval holds the true ratio, of `DRAWS` draws."""
    interval = lru_cache(None)(paired_ratio_interval)
    rates = [top1 - lost, lost, gained, 1 - top1 - gained]
    draws = np.random.default_rng(0).multinomial(images, rates, DRAWS)
    true = (top1 - lost + gained) / top1
    found = np.array([interval(int(both), int(a), int(b)) for both, a, b, _ in draws])
    return float(((found[:, 0] <= true) & (true <= found[:, 1])).mean())


@pytest.mark.parametrize("case", PAIRED)
def test_the_paired_ratio_covers_95_percent(case: tuple[int, float, float, float]) -> None:
    assert _cover(*case) == pytest.approx(0.95, abs=0.01)


def test_with_a_handful_of_flips_the_paired_ratio_covers_more_not_less() -> None:
    assert _cover(1000, 0.93, 0.002, 0.002) >= 0.95


@pytest.mark.parametrize(("trials", "rate"), [(1000, 0.93), (1000, 0.6), (10_000, 0.947), (400, 0.9)])
def test_wilson_covers_95_percent(trials: int, rate: float) -> None:
    interval = lru_cache(None)(wilson_interval)
    draws = np.random.default_rng(1).binomial(trials, rate, DRAWS)
    found = np.array([interval(int(k), trials) for k in draws])
    assert ((found[:, 0] <= rate) & (rate <= found[:, 1])).mean() == pytest.approx(0.95, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("discordant", [1000, 4000])
def test_mcnemar_calls_noise_a_difference_in_5_percent(discordant: int) -> None:
    p = lru_cache(None)(mcnemar_exact_p)
    lost = np.random.default_rng(2).binomial(discordant, 0.5, DRAWS)
    quiet = np.mean([p(int(k), discordant - int(k)) > 0.05 for k in lost])
    assert quiet == pytest.approx(0.95, abs=0.01)


@pytest.mark.parametrize("discordant", [6, 20, 60])
def test_mcnemar_on_few_flips_is_exact_so_never_above_5_percent(discordant: int) -> None:
    lost = np.random.default_rng(3).binomial(discordant, 0.5, DRAWS)
    assert np.mean([mcnemar_exact_p(int(k), discordant - int(k)) <= 0.05 for k in lost]) <= 0.05 + 0.003
