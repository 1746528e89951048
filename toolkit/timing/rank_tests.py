"""How much slower: Hodges and Lehmann's estimate of a ratio with the exact interval of a rank test, numpy only.

Medians of rounds go in, on a logarithmic scale. Pairs of one run use Wilcoxon's signed ranks, two runs his rank sum
(M. Hollander, D. A. Wolfe and E. Chicken, Nonparametric Statistical Methods, 3rd edition, 2014, sections 3.1 to 3.3 and
4.1 to 4.3). Both hold whatever the noise is distributed like; one wild round moves them little. The
ranks are exact up to `EXACT` rounds and those of the normal limit above, which widen an interval by a hundredth there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

# One side of the interval. A gate looks at dozens of rows a run, for years: one false alarm in a thousand rows.
ALPHA = 0.001
EXACT = 60


@dataclass(frozen=True)
class Ratio:
    """Candidate over reference: 1.02 is 2 % slower. The true ratio is below `low` once in 1 / ALPHA times, if ever.

    Attributes:
        low: None where there are too few rounds to say; so is `high`.
    """

    ratio: float
    low: float | None
    high: float | None


def ratio_from_pairs(reference: ArrayLike, candidate: ArrayLike, alpha: float = ALPHA) -> Ratio:
    """Rounds of one run, the two measured one after the other in each: what drifts hits both.

    Args:
        reference: a positive number a round, such as its median in ms.
        candidate: of the same rounds, in the same order.
        alpha: probability that the true ratio lies below `low`, and that it lies above `high`.
    """
    logs = np.log(np.asarray(candidate, np.float64)) - np.log(np.asarray(reference, np.float64))
    rows, columns = np.triu_indices(len(logs))
    walsh = np.sort((logs[rows] + logs[columns]) / 2)
    return _ratio(walsh, signed_rank_cut(len(logs), alpha))


def ratio_from_runs(reference: ArrayLike, candidate: ArrayLike, alpha: float = ALPHA) -> Ratio:
    """Rounds of two runs at two times: what drifted between them is in the ratio, and no test can see that."""
    before, after = np.log(np.asarray(reference, np.float64)), np.log(np.asarray(candidate, np.float64))
    differences = np.sort((after[:, None] - before[None, :]).ravel())
    return _ratio(differences, rank_sum_cut(len(before), len(after), alpha))


def _ratio(sorted_differences: NDArray[np.float64], cut: int | None) -> Ratio:
    middle = math.exp(float(np.median(sorted_differences)))
    if cut is None:
        return Ratio(middle, None, None)
    return Ratio(middle, math.exp(sorted_differences[cut]), math.exp(sorted_differences[-1 - cut]))


@lru_cache(maxsize=64)
def signed_rank_cut(rounds: int, alpha: float = ALPHA) -> int | None:
    """The 0-based index of the Walsh average that bounds the interval; None below 10 rounds at ALPHA."""
    if rounds > EXACT:
        return _normal_cut(rounds * (rounds + 1) / 4, rounds * (rounds + 1) * (2 * rounds + 1) / 24, alpha)
    ways = np.zeros(rounds * (rounds + 1) // 2 + 1)
    ways[0] = 1.0
    for rank in range(1, rounds + 1):  # each rank is added to the sum or not, with probability 1/2
        moved = np.zeros_like(ways)
        moved[rank:] = ways[: len(ways) - rank]
        ways = (ways + moved) / 2
    return _last_within(ways, alpha)


@lru_cache(maxsize=64)
def rank_sum_cut(before: int, after: int, alpha: float = ALPHA) -> int | None:
    """The 0-based index of the difference that bounds the interval of two runs of so many rounds."""
    if max(before, after) > EXACT:
        return _normal_cut(before * after / 2, before * after * (before + after + 1) / 12, alpha)
    size = before * after + 1
    # Row m holds how often Mann and Whitney's U is u among m and n values; the last value is of either sample.
    table = [np.eye(1, size)[0] for _ in range(before + 1)]
    for n in range(1, after + 1):
        row = [np.eye(1, size)[0]]
        for m in range(1, before + 1):
            moved = np.zeros(size)
            moved[n:] = row[m - 1][: size - n] if n < size else 0.0
            row.append((m * moved + n * table[m]) / (m + n))
        table = row
    return _last_within(table[before], alpha)


def _normal_cut(mean: float, variance: float, alpha: float) -> int | None:
    """The same of the statistic's normal limit, with the continuity correction."""
    cut = math.floor(mean + NormalDist().inv_cdf(alpha) * math.sqrt(variance) - 0.5)
    return cut if cut >= 0 else None


def _last_within(probabilities: NDArray[np.float64], alpha: float) -> int | None:
    """The largest k with P(statistic <= k) <= alpha."""
    within = int(np.searchsorted(np.cumsum(probabilities), alpha * (1 + 1e-12), side="right"))
    return within - 1 if within > 0 else None
