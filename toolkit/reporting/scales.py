"""From values to places on paper: linear and logarithmic scales, and the round numbers that mark them."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` at places from `start` to `end`.

    Attributes:
        start, end: in the drawing's units; end may be smaller than start, as for an axis that points up.
        log: equal ratios at equal distances; low must then be above 0.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"no scale from {self.low} to {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic scale cannot begin at {self.low}")

    def __call__(self, value: float) -> float:
        """The place of a value; values outside stay at the edge."""
        inside = min(max(value, self.low), self.high)
        at, low, high = (math.log(v) if self.log else v for v in (inside, self.low, self.high))
        return self.start + (self.end - self.start) * (at - low) / (high - low)

    def ticks(self, most: int = 6) -> list[float]:
        """At most about `most` round values inside, smallest first."""
        return _log_ticks(self.low, self.high, most) if self.log else _ticks(self.low, self.high, most)


def scale_of(values: list[float], start: float, end: float, *, log: bool = False, spare: float = 0.06) -> Scale:
    """A scale with room for all values and a little around them; one value alone gets a range about it."""
    low, high = min(values), max(values)
    if log:
        ratio = max((high / low) ** spare, 1.15)
        return Scale(low / ratio, high * ratio, start, end, log=True)
    room = (high - low) * spare or abs(high) * 0.05 or 1.0
    return Scale(low - room, high + room, start, end)


def _ticks(low: float, high: float, most: int) -> list[float]:
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(n * step, 12) for n in range(first, last + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [factor * 10.0**decade for decade in decades for factor in factors]
        inside = [value for value in found if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
        if len(inside) <= most:
            break
    if len(inside) > most:
        inside = inside[:: math.ceil(len(inside) / most)]
    return inside if len(inside) >= 2 else _ticks(low, high, min(most, 4))
