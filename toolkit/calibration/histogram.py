"""A histogram of |x| that needs no range beforehand, merges exactly and fits in 256 KiB.

The upper 16 bits of a float32 without its sign are 8 bits of exponent and 7 of mantissa: 32,768 bins over all
magnitudes, each at most 1/128 of its value wide. Counts are integers, so any order and any split of the images give
the same histogram bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from toolkit.contracts import Float32, Int64
from toolkit.errors import CalibrationError

BINS = 1 << 15
FIRST_NOT_FINITE = 0x7F80  # exponent bits all set: infinity and NaN


def _empty() -> Int64:
    return np.zeros(BINS, np.int64)


def upper_edges() -> NDArray[np.float64]:
    """float64 (FIRST_NOT_FINITE,): the smallest magnitude above each finite bin."""
    bits = (np.arange(1, FIRST_NOT_FINITE + 1, dtype=np.uint32) << 16).view(np.float32).astype(np.float64)
    bits[-1] = np.finfo(np.float32).max
    return bits


@dataclass
class Histogram:
    """Counts of |x| over all values seen of one tensor.

    Attributes:
        counts: int64 (BINS,).
        largest: the exact maximum of |x|, float32.
    """

    counts: Int64 = field(default_factory=_empty)
    largest: float = 0.0

    def add(self, values: Float32, step: int = 1) -> None:
        """Counts the values of a float32 array (N, ...): of each of the N every `step`-th, in C order.

        `largest` is that of all of them. The upper half goes into a buffer of numpy's index type at once, because
        `bincount` would copy anything else, and without `minlength`, because outputs of a ReLU reach 17,000 of the
        65,536 bins that have a sign.
        """
        if not values.size:
            return
        flat = np.ascontiguousarray(values, np.float32).reshape(len(values), -1)
        counted = flat[:, ::step].view(np.uint32)
        upper = np.empty(counted.shape, np.intp)
        # uint32 arithmetic keeps this independent of the machine's byte order.
        np.right_shift(counted, np.uint32(16), out=upper, casting="unsafe")
        signed = np.bincount(upper.reshape(-1))
        positive, negative = signed[:BINS], signed[BINS:]
        self.counts[: len(positive)] += positive
        self.counts[: len(negative)] += negative
        # numpy's maximum, because Python's drops NaN.
        self.largest = float(np.maximum(self.largest, np.maximum(flat.max(), -flat.min())))

    def merged(self, other: Histogram) -> Histogram:
        """The histogram of both sets of values; exact, commutative, associative."""
        return Histogram(self.counts + other.counts, float(np.maximum(self.largest, other.largest)))

    def require_finite(self, name: str) -> None:
        """Refuses NaN and infinity among the values, by tensor name."""
        bad = int(self.counts[FIRST_NOT_FINITE:].sum())
        if bad:
            raise CalibrationError(
                f"activation '{name}' holds NaN or infinity on the calibration images",
                found=f"{bad} of {int(self.counts.sum())} values",
                fix="check the weights and the images",
            )

    def minmax(self) -> float:
        """The largest |x|: nothing is clipped."""
        return self.largest

    def percentile(self, percent: float) -> float:
        """The smallest bin edge that at least `percent` of all |x| do not exceed; never above the largest |x|."""
        if not 0 < percent <= 100:
            raise CalibrationError("a percentile lies outside its range", found=percent, allowed="above 0, up to 100")
        total = int(self.counts.sum())
        reached = np.cumsum(self.counts[:FIRST_NOT_FINITE]) >= percent / 100 * total
        index = int(np.argmax(reached)) if reached.any() else FIRST_NOT_FINITE - 1
        # The first bin holds zero: with an edge of 9e-41 for a range, whatever is not zero would be clipped away.
        return min(float(upper_edges()[index]), self.largest) if index else 0.0
