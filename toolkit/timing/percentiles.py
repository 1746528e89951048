"""Percentiles of latencies and their intervals, from the sorted values alone: no distribution is assumed.

A percentile is nearest-rank: a latency that really occurred (R. J. Hyndman and Y. Fan, The American Statistician 50,
1996, definition 1). Its interval lies between two order statistics whose ranks are binomial quantiles (H. A. David and
H. N. Nagaraja, Order Statistics, 3rd edition, 2003, section 7.1). No value is thrown away: an outlier is a latency that
somebody waited for, and ranks do not care how far out it is.

Calls that follow each other are alike, and n of them say less than n independent ones. The ranks are therefore those of
an effective number of calls: n divided by the integrated autocorrelation of "was at most the percentile"
(P. Heidelberger and P. A. W. Lewis, Operations Research 32, 1984, for quantiles; C. J. Geyer, Statistical Science 7,
1992, for where the sum ends).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from toolkit.contracts import Float64

LEVEL = 0.95
MOST_LAG_PAIRS = 100  # a dependence over more than 200 calls is drift, and rounds show that


def rank_of_percentile(percent: float, count: int) -> int:
    """The 1-based rank of the smallest of `count` sorted values that at least `percent` of all do not exceed."""
    # 99.9 / 100 * 1000 is 999.0000000000001 in floating point: a rank is not moved by the last bit.
    return max(1, math.ceil(percent * count / 100 - 1e-9))


def percentile_nearest_rank(sorted_values: Float64 | list[float], percent: float) -> float:
    """The smallest value that at least `percent` of all values do not exceed."""
    return float(sorted_values[rank_of_percentile(percent, len(sorted_values)) - 1])


def quantiles_from_sorted(sorted_values: Float64) -> list[float]:
    """The 0th to 100th percentile, 101 values: least first, most last."""
    return [percentile_nearest_rank(sorted_values, percent) for percent in range(101)]


@lru_cache(maxsize=4096)
def interval_ranks(percent: float, count: int, level: float = LEVEL) -> tuple[int, int] | None:
    """1-based ranks (low, high) of the order statistics that hold a percentile with probability `level` at least.

    Each tail has at most (1 - level) / 2. None where `count` values cannot: the 99th percentile needs 368 of them.
    """
    first, tail = _binomial_window(count, percent / 100)
    at_most = np.cumsum(tail)  # P(B <= first + i)
    allowed = (1 - level) / 2
    below = np.nonzero(at_most <= allowed)[0]
    # P(B >= k), summed from the far end, where its terms are smallest.
    at_least = np.cumsum(tail[::-1])[::-1]
    above = np.nonzero(at_least <= allowed)[0]
    low = first + int(below[-1]) + 1 if len(below) else first
    high = first + int(above[0]) if len(above) else count + 1
    return (low, high) if low >= 1 and high <= count else None


def _binomial_window(count: int, p: float) -> tuple[int, Float64]:
    """The binomial probabilities of a window around the mean, and its first number; outside they are below 1e-15."""
    spread = 9 * math.sqrt(count * p * (1 - p)) + 40
    first, last = max(0, math.floor(count * p - spread)), min(count, math.ceil(count * p + spread))
    log_first = (
        math.lgamma(count + 1) - math.lgamma(first + 1) - math.lgamma(count - first + 1)
        + first * math.log(p) + (count - first) * math.log1p(-p)
    )  # fmt: skip
    k = np.arange(first, last, dtype=np.float64)
    steps = np.log((count - k) / (k + 1)) + math.log(p) - math.log1p(-p)
    return first, np.exp(log_first + np.concatenate([[0.0], np.cumsum(steps)]))


def fewest_for(percent: float, level: float = LEVEL) -> int:
    """How many independent values an interval of a percentile needs: 6 for the median, 3,688 for the 99.9th."""
    rare = min(percent, 100 - percent) / 100
    return math.ceil(math.log((1 - level) / 2) / math.log1p(-rare))


def inflation(values_in_order: Float64, threshold: float) -> float:
    """By how much dependence widens the variance of the part of values at most `threshold`; 1 for independent ones.

    Args:
        values_in_order: as they were measured, not sorted.
    """
    below = (values_in_order <= threshold).astype(np.float64)
    below -= below.mean()
    variance = float(below @ below)
    if variance == 0:
        return 1.0
    total = 0.0
    for pair in range(min(MOST_LAG_PAIRS, len(below) // 4)):
        # Geyer's pairs of lags 2k and 2k + 1 are positive; the first that is not is noise.
        gained = _correlation(below, 2 * pair, variance) + _correlation(below, 2 * pair + 1, variance)
        if gained <= 0:
            break
        total += gained
    return max(1.0, 2 * total - 1)


def _correlation(centered: Float64, lag: int, variance: float) -> float:
    return float(centered[: len(centered) - lag] @ centered[lag:]) / variance


def percentile_interval(
    values_in_order: Float64, sorted_values: Float64, percent: float, level: float = LEVEL
) -> tuple[float, float] | None:
    """The interval of a percentile at `level`; None where there are too few calls that say something new."""
    count = len(sorted_values)
    effective = int(count / inflation(values_in_order, percentile_nearest_rank(sorted_values, percent)))
    ranks = interval_ranks(percent, effective, level) if effective else None
    if ranks is None:
        return None
    # Ranks among `effective` values become ranks among all: the outer neighbors, so that nothing is lost by rounding.
    low = math.floor(ranks[0] * count / effective)
    high = min(count, math.ceil(ranks[1] * count / effective))
    return float(sorted_values[max(1, low) - 1]), float(sorted_values[high - 1])
