"""Intervals and paired tests: small closed formulas with their sources, no dependency."""

from __future__ import annotations

import math

Z95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution


def wilson_interval(successes: int, trials: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (E. B. Wilson, JASA 22, 1927): (low, high) in 0..1."""
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"{successes} of {trials} is not a proportion")
    p, zz = successes / trials, z * z / trials
    centre, spread = p + zz / 2, z * math.sqrt(p * (1 - p) / trials + zz / trials / 4)
    return max(0.0, (centre - spread) / (1 + zz)), min(1.0, (centre + spread) / (1 + zz))


def mcnemar_exact_p(only_a: int, only_b: int) -> float:
    """Two-sided exact McNemar test: the p-value of `only_a` against `only_b` discordant pairs.

    Under the null both kinds are equally likely, so the smaller count is binomial with p = 1/2
    (Q. McNemar, Psychometrika 12, 1947; the exact form is the sign test).
    """
    n, k = only_a + only_b, min(only_a, only_b)
    if n == 0:
        return 1.0
    log_half = n * math.log(0.5)
    tail = math.fsum(
        math.exp(math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) + log_half) for i in range(k + 1)
    )
    return min(1.0, 2 * tail)
