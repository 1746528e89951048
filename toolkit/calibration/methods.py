"""From a histogram of |x| to the |x| that int8 127 stands for: every method reads the same histogram.

A method has a full name, the one that a record holds: "minmax", "percentile 99.99", "mse", "entropy".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from toolkit.calibration.histogram import FIRST_NOT_FINITE, Histogram, upper_edges
from toolkit.errors import CalibrationError

AUTO = "auto"
METHODS = (AUTO, "minmax", "percentile", "mse", "entropy")
QAT = "learned"  # the method of a record that `toolkit train --qat` wrote: no images measure it again
PERCENTILE = 99.99
# What `auto` tries, in the order that decides between equals.
CANDIDATES = ("percentile 99.99", "percentile 99.999", "percentile 99.9", "mse", "entropy", "minmax")
LEVELS = 127  # int8 is used from -127 to 127, symmetric about zero
UNSIGNED_LEVELS = 255  # uint8 of what is never negative

Float64 = NDArray[np.float64]

PARTS = 4  # of a bin: near the clip a bin is as wide as a step, and its center alone would sit on a level by chance
COARSE, NARROWEST = 25, 256.0  # clips tried at first, from the largest |x| down to 1/256 of it
LINEAR_BINS, STRIDE = 2048, 16  # of the entropy method: as many as TensorRT's; every 16th bin is a candidate


def require_method(method: str, percentile: float = PERCENTILE) -> str:
    """The method's full name, such as "percentile 99.99", or "auto"; refuses unknown ones."""
    if method not in METHODS:
        raise CalibrationError(f"unknown calibration method '{method}'", allowed=", ".join(METHODS))
    if not 50 < percentile <= 100:
        raise CalibrationError("`percentile=` out of range", found=percentile, allowed="above 50, up to 100")
    return f"percentile {percentile!r}".removesuffix(".0") if method == "percentile" else method


def amax_from_histogram(histogram: Histogram, name: str, levels: int = LEVELS) -> float:
    """The range that a method, by its full name, takes from a histogram; 0.0 where all values are zero.

    Args:
        levels: the number that the range stands for.
    """
    kind, _, percent = name.partition(" ")
    if kind == "percentile":
        return histogram.percentile(float(percent))
    if kind == "minmax" or histogram.largest == 0:
        return histogram.minmax()
    return {"mse": least_squares_amax, "entropy": least_divergence_amax}[kind](histogram, levels)


def least_squares_amax(histogram: Histogram, levels: int = LEVELS) -> float:
    """The clip a that minimizes E[(|x| - Q_a(|x|))^2], Q_a(v) = s min(rint(v / s), levels), s = a / levels.

    Every bin stands for `PARTS` values, the centers of its equal parts, that share its count. The clip is searched on
    25 geometric steps from the largest |x| to 1/256 of it, then on 25 more between the neighbors of the best one:
    within 2 % of the optimum of a smooth error. The first bin (zeros) has no error and does not count.

    Source: the L2 clip of Choukroun et al., "Low-bit Quantization of Neural Networks for Efficient Inference",
    ICCV Workshops 2019, section 3, searched on a histogram.
    """
    used = np.flatnonzero(histogram.counts[1:FIRST_NOT_FINITE]) + 1
    edges = upper_edges()
    low, high = edges[used - 1], np.minimum(edges[used], histogram.largest)
    offsets = (np.arange(PARTS) + 0.5) / PARTS
    values = (low[:, None] + (high - low)[:, None] * offsets).reshape(-1)
    weights = np.repeat(histogram.counts[used].astype(np.float64), PARTS)
    coarse = np.geomspace(histogram.largest, histogram.largest / NARROWEST, COARSE)
    best = int(np.argmin(_squared_errors(values, weights, coarse, levels)))
    fine = np.geomspace(coarse[max(best - 1, 0)], coarse[min(best + 1, COARSE - 1)], COARSE)
    return float(fine[int(np.argmin(_squared_errors(values, weights, fine, levels)))])


def _squared_errors(values: Float64, weights: Float64, clips: Float64, levels: int) -> Float64:
    """float64 (clips,): the weighted sum of squared errors of each clip over values (V,)."""
    scales = clips[:, None] / levels
    errors: Float64 = values - scales * np.minimum(np.rint(values / scales), levels)
    total: Float64 = np.square(errors) @ weights
    return total


def linear_counts(histogram: Histogram, bins: int = LINEAR_BINS) -> Float64:
    """float64 (bins,): the counts on equal bins from 0 to the largest |x|; each bin's count spread evenly inside it.

    The sum is that of the histogram without its first bin, the zeros.
    """
    edges = np.minimum(upper_edges(), histogram.largest)
    below = np.cumsum(histogram.counts[:FIRST_NOT_FINITE], dtype=np.float64) - float(histogram.counts[0])
    last = int(np.flatnonzero(histogram.counts[:FIRST_NOT_FINITE])[-1])
    at = np.interp(np.linspace(0, histogram.largest, bins + 1), edges[: last + 1], below[: last + 1])
    counts: Float64 = np.diff(at)
    return counts


def least_divergence_amax(histogram: Histogram, levels: int = LEVELS) -> float:
    """The clip whose quantized distribution diverges least from the clipped one, by Kullback and Leibler.

    On 2,048 equal bins from 0 to the largest |x|. For a clip behind bin i: P is bins 0..i-1 with everything beyond
    added to the last; Q merges the same bins, without what lies beyond, into `levels` + 1 parts and spreads each evenly
    over its bins that are not empty. The first bin takes the second's count: zeros are exact in every clip, and the
    spike they make after a ReLU would decide otherwise. Clips from `levels` + 1 bins up, every 16th and the last.

    Source: S. Migacz, "8-bit Inference with TensorRT", GTC 2017, pages 37 to 43; the first bin and the strided search
    as in NVIDIA's pytorch-quantization, calib/histogram.py.
    """
    counts = linear_counts(histogram)
    counts[0] = counts[1]
    ends = np.unique(np.append(np.arange(levels + 1, LINEAR_BINS, STRIDE), LINEAR_BINS))
    divergences = divergences_of_clips(counts, ends, levels + 1)
    # Of equals the widest: it clips least.
    best = int(ends[len(ends) - 1 - int(np.argmin(divergences[::-1]))])
    return histogram.largest * best / LINEAR_BINS


def divergences_of_clips(counts: Float64, ends: NDArray[np.int64], levels: int) -> Float64:
    """KL(P || Q) in nats for a clip behind each of the bins `ends`: float64 (E,).

    Infinite where P has what Q has not: a last bin that is empty but for what was clipped. Q is even within a level, so
    sums over bins become differences of running sums, and all clips are computed at once.
    """
    bounds = -(-np.arange(levels + 1) * ends[:, None] // levels)  # bin b belongs to level b * levels // end
    filled = counts > 0
    running = [np.append(0.0, np.cumsum(x)) for x in (counts, filled, counts * np.log(np.where(filled, counts, 1.0)))]
    sums, members = (np.diff(total[bounds], axis=1) for total in running[:2])
    inside, last = running[0][ends], counts[ends - 1]
    clipped = np.maximum(running[0][-1] - inside, 0.0)
    total = inside + clipped
    # sum of p log p, p the counts over their total; the last bin has what was clipped added
    with np.errstate(divide="ignore", invalid="ignore"):
        own = running[2][ends] + _times_log(last + clipped) - _times_log(last)
        of_p = own / total - np.log(total)
        height = np.where(members > 0, np.log(sums / members) - np.log(inside)[:, None], 0.0)
        sums[:, -1] += clipped  # the last bin lies in the last level
        found: Float64 = of_p - (sums * height).sum(axis=1) / total
    lacking = (inside <= 0) | ((last <= 0) & (clipped > 1e-9 * total))
    return np.where(lacking, np.inf, found)


def _times_log(values: Float64) -> Float64:
    product: Float64 = values * np.log(np.where(values > 0, values, 1.0))
    return product
