"""Intervals and paired tests: small closed formulas with their sources, no dependency."""

from __future__ import annotations

import math
from collections.abc import Sequence

Z95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution


def wilson_interval(successes: int, trials: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (E. B. Wilson, JASA 22, 1927): (low, high) in 0..1."""
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"{successes} of {trials} is not a proportion")
    p, zz = successes / trials, z * z / trials
    center, spread = p + zz / 2, z * math.sqrt(p * (1 - p) / trials + zz / trials / 4)
    # Of none and of all, rounding would leave the ends a bit inside of 0 and 1: 48 of 48 would be less than 100 %.
    low = 0.0 if successes == 0 else (center - spread) / (1 + zz)
    high = 1.0 if successes == trials else (center + spread) / (1 + zz)
    return max(0.0, low), min(1.0, high)


def mcnemar_exact_p(only_a: int, only_b: int) -> float:
    """Two-sided exact McNemar test: the p-value of `only_a` against `only_b` discordant pairs.

    Under the null both kinds are equally likely, so the smaller count is binomial with p = 1/2
    (Q. McNemar, Psychometrika 12, 1947; the exact form is the sign test).
    """
    n, k = only_a + only_b, min(only_a, only_b)
    log_half = n * math.log(0.5)
    tail = math.fsum(
        math.exp(math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) + log_half) for i in range(k + 1)
    )
    return min(1.0, 2 * tail)


def paired_ratio_interval(both: int, only_a: int, only_b: int, z: float = Z95) -> tuple[float, float]:
    """Interval of (b's successes) / (a's successes) over the same trials: (low, high), high infinite for none of a's.

    The Wilson-type interval of D. G. Bonett and R. M. Price, Statistics in Medicine 25, 2006: each proportion gets a
    Wilson interval, narrowed by how far the two go together. Trials in which neither succeeded do not enter.

    Args:
        both: trials in which both succeeded.
        only_a, only_b: trials in which one alone did.
    """
    if min(both, only_a, only_b) < 0:
        raise ValueError(f"{both}, {only_a} and {only_b} are no counts")
    a, b, n = both + only_a, both + only_b, both + only_a + only_b
    if a == 0 or b == 0:
        return 0.0, math.inf  # nothing to divide, or nothing known of the ratio but that it is not negative
    together = math.sqrt((only_a + only_b + 2) / ((a + 1) * (b + 1)))
    spread_a = math.sqrt((1 - (a + 1) / (n + 2)) / (a + 1))
    spread_b = math.sqrt((1 - (b + 1) / (n + 2)) / (b + 1))
    narrowed = z * together / (spread_a + spread_b)
    low_a, high_a = wilson_interval(a, n, narrowed)
    low_b, high_b = wilson_interval(b, n, narrowed)
    return low_b / high_a, high_b / low_a


def holm_adjusted(p_values: Sequence[float]) -> tuple[float, ...]:
    """p-values of several tests at once, in the order given: below 0.05 holds for all of them together.

    Source: S. Holm, Scandinavian Journal of Statistics 6, 1979: the smallest times m, the next times m - 1, and so on,
    none below the one before it.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, before = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        before = min(1.0, max(before, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = before
    return tuple(adjusted)
