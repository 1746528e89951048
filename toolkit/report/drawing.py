"""Charts as inline SVG: a frame, axes with round numbers, text; colors are classes of the style sheet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from toolkit.report.markup import Markup, element, joined
from toolkit.report.scales import Scale
from toolkit.report.words import MINUS

WIDE, NARROW = 880.0, 352.0  # drawn for a desk and for a phone; neither is shrunk until its text is unreadable
LETTER = 6.6  # the width of a letter in a label of 12 units, on the generous side for system fonts


@dataclass(frozen=True)
class Frame:
    """The inside of a chart, between its axes."""

    left: float
    top: float
    right: float
    bottom: float


def chart(width: float, height: float, says: str, *children: object, class_: str | None = None) -> Markup:
    """An SVG of its own; `says` is read aloud instead of it."""
    return element(
        "svg",
        *children,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_label=says,
        class_=class_,
    )


def for_desk_and_phone(draw: Callable[[float], Markup]) -> Markup:
    """The same chart for both widths; the style sheet shows one of them."""
    return joined(
        [element("div", draw(WIDE), class_="desk"), element("div", draw(NARROW), class_="phone")],
    )


def figure(title: str, caption: object, *children: object, class_: str | None = None) -> Markup:
    """A chart with its title above and what there is to know below."""
    head = element("h3", title) if title else Markup("")
    return element("figure", head, *children, element("figcaption", caption) if caption else "", class_=class_)


def words(x: float, y: float, text: object, *, anchor: str | None = None, class_: str | None = None) -> Markup:
    """Text at a place; `anchor` "middle" or "end"."""
    return element("text", text, x=x, y=y, text_anchor=anchor, class_=class_)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def tip(text: str) -> Markup:
    """What hovering shows, without JavaScript too."""
    return element("title", text)


def bottom_axis(frame: Frame, scale: Scale, title: str) -> Markup:
    """Grid lines, numbers below, and the title below those."""
    ticks = scale.ticks(min(9, max(3, int((frame.right - frame.left) / 70))))
    parts = [line(scale(v), frame.top, scale(v), frame.bottom, "grid") for v in ticks]
    parts += [
        words(scale(value), frame.bottom + 16, text, anchor="middle", class_="tick")
        for value, text in zip(ticks, _numbers(ticks, scale), strict=True)
    ]
    middle = (frame.left + frame.right) / 2
    return joined([*parts, words(middle, frame.bottom + 36, title, anchor="middle", class_="axis")])


def left_axis(frame: Frame, scale: Scale, title: str) -> Markup:
    """Grid lines, numbers to their left, and the title above."""
    ticks = scale.ticks()
    parts = [line(frame.left, scale(v), frame.right, scale(v), "grid") for v in ticks]
    parts += [
        words(frame.left - 8, scale(value) + 4, text, anchor="end", class_="tick")
        for value, text in zip(ticks, _numbers(ticks, scale), strict=True)
    ]
    return joined([*parts, words(0, frame.top - 14, title, class_="axis")])


def _numbers(values: list[float], scale: Scale) -> list[str]:
    """Round values in words: all with the same decimals on a linear scale, each with its own on a logarithmic one."""
    texts = [f"{value:.10g}" for value in values]
    decimals = max((len(text.partition(".")[2]) for text in texts if "e" not in text), default=0)
    if scale.log or decimals > 6:
        return [f"{value:,.10g}".replace("-", MINUS) for value in values]
    return [f"{value:,.{decimals}f}".replace("-", MINUS) for value in values]


def path(points: list[tuple[float, float]], *, closed: bool = False, class_: str) -> Markup:
    """Straight pieces through points."""
    steps = " ".join(f"{'L' if index else 'M'}{x:.1f} {y:.1f}" for index, (x, y) in enumerate(points))
    return element("path", d=steps + (" Z" if closed else ""), class_=class_)
