"""Charts as inline SVG, drawn once for every width: x in percent, y and text in pixels, colors of the style sheet."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from toolkit.reporting.markup import Markup, element, joined
from toolkit.reporting.scales import Scale
from toolkit.reporting.words import MINUS

LETTER = 6.6  # pixels of a letter in a label, on the generous side for system fonts


@dataclass(frozen=True)
class Frame:
    """The inside of a chart, between its axes.

    Attributes:
        top, bottom: in pixels from the chart's upper edge.
        left, right: pixels beside it that labels may take.
    """

    top: float
    bottom: float
    left: int = 0
    right: int = 0


def chart(frame: Frame, height: float, says: str, *children: object) -> Markup:
    """An SVG as wide as the page leaves it, between the margins of its frame; `says` is read aloud instead of it."""
    style = f"height: {height:g}px; --left: {frame.left}px; --right: {frame.right}px"
    return element("svg", *children, role="img", aria_label=says, class_="chart", style=style)


def figure(title: str, caption: object, *children: object, class_: str | None = None) -> Markup:
    """A chart with its title above and what there is to know below."""
    head = element("h3", title) if title else Markup("")
    return element("figure", head, *children, element("figcaption", caption) if caption else "", class_=class_)


def words(
    x: float, y: float, text: object, *, dx: float = 0, anchor: str | None = None, class_: str | None = None
) -> Markup:
    """Text at a place, `dx` pixels beside it; `anchor` "middle" or "end"."""
    return element("text", text, x=_percent(x), y=y, dx=dx or None, text_anchor=anchor, class_=class_)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """A straight line."""
    return element("line", x1=_percent(x1), y1=y1, x2=_percent(x2), y2=y2, class_=class_)


def lines(points: list[tuple[float, float]], class_: str) -> Markup:
    """Straight pieces through points: a path knows no percent."""
    return joined(line(*a, *b, class_) for a, b in pairwise(points))


def circle(x: float, y: float, radius: float, *children: object, class_: str = "dot") -> Markup:
    """A point with its radius in pixels."""
    return element("circle", *children, cx=_percent(x), cy=y, r=radius, class_=class_)


def _percent(x: float) -> str:
    return f"{x:.2f}".rstrip("0").rstrip(".") + "%"


def tip(text: str) -> Markup:
    """What hovering shows, without JavaScript too."""
    return element("title", text)


def bottom_axis(frame: Frame, scale: Scale, title: str) -> Markup:
    """Grid lines, numbers below, and the title below those: few enough for a phone."""
    ticks = scale.ticks(5)
    parts = [line(scale(v), frame.top, scale(v), frame.bottom, "grid") for v in ticks]
    parts += [
        words(scale(value), frame.bottom + 16, text, anchor="middle", class_="tick")
        for value, text in zip(ticks, _numbers(ticks, scale), strict=True)
    ]
    return joined([*parts, words(50, frame.bottom + 36, title, anchor="middle", class_="axis")])


def left_axis(frame: Frame, scale: Scale, title: str) -> Markup:
    """Grid lines, numbers to their left, and the title above."""
    ticks = scale.ticks()
    parts = [line(0, scale(v), 100, scale(v), "grid") for v in ticks]
    parts += [
        words(0, scale(value) + 4, text, dx=-8, anchor="end", class_="tick")
        for value, text in zip(ticks, _numbers(ticks, scale), strict=True)
    ]
    return joined([*parts, words(0, frame.top - 14, title, dx=-frame.left, class_="axis")])


def _numbers(values: list[float], scale: Scale) -> list[str]:
    """Round values in words: all with the same decimals on a linear scale, each with its own on a logarithmic one."""
    texts = [f"{value:.10g}" for value in values]
    decimals = max((len(text.partition(".")[2]) for text in texts if "e" not in text), default=0)
    if scale.log or decimals > 6:
        return [f"{value:,.10g}".replace("-", MINUS) for value in values]
    return [f"{value:,.{decimals}f}".replace("-", MINUS) for value in values]


def spread(places: list[float], apart: float, low: float, high: float) -> list[float]:
    """Places near to these, in the same order and `apart` from one another; within the ends where all fit there."""
    order = sorted(range(len(places)), key=places.__getitem__)
    found = [0.0] * len(places)
    last = low - apart
    for index in order:
        last = found[index] = max(places[index], last + apart)
    last = high + apart
    for index in reversed(order):
        last = found[index] = min(found[index], last - apart)
    return found
