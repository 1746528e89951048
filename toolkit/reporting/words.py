"""Figures as people read them: one place that decides how many digits a size, a share or a time has."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from typing import Any

from toolkit.data.fit import SQUASH

MINUS = "\u2212"
THIN = "\u202f"  # between a number and its unit, so that a line never breaks there


def percent(value: float | None, digits: int = 2) -> str:
    """94.1 to "94.10 %"."""
    return "not known" if value is None else f"{value:.{digits}f}{THIN}%"


def signed(value: float, digits: int = 2) -> str:
    """0.2 to "+0.20", with a real minus."""
    rounded = round(value, digits)
    if rounded == 0:
        return f"{0:.{digits}f}"
    return f"{'+' if rounded > 0 else MINUS}{abs(rounded):.{digits}f}"


def milliseconds(value: float | None) -> str:
    """Three significant digits: "0.541 ms", "61.6 ms", "1,364 ms"."""
    return "not known" if value is None else f"{three_digits(value)}{THIN}ms"


def three_digits(value: float) -> str:
    """Three significant digits without an exponent, thousands with a comma."""
    if value == 0:
        return "0"
    digits = 3
    for limit in (1, 10, 100):
        digits -= abs(value) >= limit
    if abs(value) < 0.01:
        return f"{value:.2g}" if abs(value) < 1e-4 else f"{value:.5f}".rstrip("0")
    return f"{value:,.{digits}f}"


def exponent(value: float | None) -> str:
    """Two digits and a power of ten: "1.9e-02", "0", a dash for what is not finite."""
    return "\u2013" if value is None or not math.isfinite(value) else f"{value:.1e}" if value else "0"


def size(count: int | None) -> str:
    """Bytes as KiB, or MiB from 10 MiB on."""
    if count is None:
        return "not known"
    return f"{count / 2**20:,.1f}{THIN}MiB" if count >= 10 * 2**20 else f"{count / 1024:,.0f}{THIN}KiB"


def between(low: float, high: float, digits: int = 2) -> str:
    """A 95 % interval in words."""
    return f"{low:.{digits}f} to {high:.{digits}f}"


def times(ratio: float) -> str:
    """How many times as fast: "3.2 times"."""
    return f"{ratio:.2g} times" if ratio < 10 else f"{ratio:,.0f} times"


def chosen(count: int, one: str, many: str) -> str:
    """1 "image", 2 "images", with thousands separated."""
    return f"{count:,} {one if count == 1 else many}"


def listed(names: list[str]) -> str:
    """Names as a sentence holds them: "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def options_that_draw(data: str | None, images: int | None, reading: Mapping[str, Any]) -> str:
    """The options of toolkit verify that draw these images, as they are typed."""
    parts = [f"--data {shlex.quote(data)}"] if data is not None else []
    if data is not None:
        resize = reading.get("resize")
        parts += ["--convert"] if reading.get("convert") else []
        parts += [f"--resize {shlex.quote(resize)}"] if resize not in (None, SQUASH) else []
        parts += ["--skip-bad"] if reading.get("skip_bad") else []
    return " ".join([*parts, *([f"--sample {images}"] if images is not None else [])])
