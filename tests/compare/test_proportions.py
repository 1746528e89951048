"""Claims about intervals and paired tests, against published values and exact fractions."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.compare.proportions import mcnemar_exact_p, wilson_interval


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # R. G. Newcombe, Statistics in Medicine 17 (1998), 857-872, table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_intervals(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_proportion_and_mirrors(case: tuple[int, int]) -> None:
    successes, trials = case
    low, high = wilson_interval(successes, trials)
    assert 0 <= low <= successes / trials + 1e-12
    assert successes / trials - 1e-12 <= high <= 1
    assert high - low > 0
    assert wilson_interval(trials - successes, trials) == pytest.approx((1 - high, 1 - low), abs=1e-12)


@pytest.mark.parametrize(("successes", "trials"), [(-1, 5), (6, 5), (0, 0)])
def test_what_is_no_proportion_is_refused(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match="not a proportion"):
        wilson_interval(successes, trials)


def _exact(a: int, b: int) -> Fraction:
    """The two-sided binomial tail with p = 1/2 in whole numbers."""
    n, k = a + b, min(a, b)
    return min(Fraction(1), Fraction(2 * sum(comb(n, i) for i in range(k + 1)), 2**n))


@given(st.integers(0, 150), st.integers(0, 150))
def test_mcnemar_is_exact_symmetric_and_a_probability(a: int, b: int) -> None:
    p = mcnemar_exact_p(a, b)
    assert p == pytest.approx(float(_exact(a, b)), rel=1e-9)
    assert p == mcnemar_exact_p(b, a)
    assert 0 < p <= 1


def test_mcnemar_of_six_against_none_is_one_in_thirty_two() -> None:
    assert mcnemar_exact_p(6, 0) == pytest.approx(1 / 32)
    assert mcnemar_exact_p(0, 0) == 1.0


def test_mcnemar_does_not_overflow_on_large_counts() -> None:
    assert mcnemar_exact_p(50_000, 50_000) == 1.0
    assert mcnemar_exact_p(49_000, 51_000) == pytest.approx(2.5e-10, rel=0.1)  # normal tail: z = 6.32


def test_none_and_all_reach_the_ends_exactly() -> None:
    for trials in range(1, 2000):
        assert wilson_interval(trials, trials)[1] == 1.0
        assert wilson_interval(0, trials)[0] == 0.0
    assert wilson_interval(10**12 - 2, 10**12, 1000.0)[1] == 1.0  # by rounding it would be 2e-16 more
