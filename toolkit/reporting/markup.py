"""HTML and SVG as text in which nothing is left unescaped: what is not `Markup` is somebody's text."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

EMPTY_ELEMENTS = ("meta", "link", "img", "br", "hr", "col", "input")
# XML 1.0 has no place for these, not even escaped; a label or an error message may hold one.
FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def escaped(value: object) -> Markup:
    """Any text as it can stand in an element or in an attribute's quotes."""
    if isinstance(value, Markup):
        return value
    return Markup(html.escape(FORBIDDEN.sub("\ufffd", str(value)), quote=True))


def joined(parts: Iterable[object], between: str = "") -> Markup:
    """Parts behind one another, each escaped unless it is markup."""
    return Markup(escaped(between).join(escaped(part) for part in parts))


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """An element; `class_` and `data_tip` become `class` and `data-tip`, None leaves an attribute out."""
    names = {name: name.rstrip("_").replace("_", "-") for name in attributes}
    written = "".join(
        f' {names[name]}="{escaped(_short(value))}"' for name, value in attributes.items() if value is not None
    )
    if tag in EMPTY_ELEMENTS:
        return Markup(f"<{tag}{written}/>")
    return Markup(f"<{tag}{written}>{joined(children)}</{tag}>")


def _short(value: object) -> object:
    """Coordinates with two decimals: a tenth of a pixel is invisible and every digit is a byte."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


def paragraph(*children: object, **attributes: object) -> Markup:
    """A paragraph."""
    return element("p", *children, **attributes)


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, class_: str = "") -> Markup:
    """A table with a caption; its first column heads the rows, a column name ending in "<" holds text, not numbers.

    A cell may be a ready `td` element.
    """
    text = [index == 0 or name.endswith("<") for index, name in enumerate(columns)]
    head = [
        element("th", name.removesuffix("<"), scope="col", class_=None if text[index] else "number")
        for index, name in enumerate(columns)
    ]
    body = [element("tr", *(_cell(value, index, text[index]) for index, value in enumerate(row))) for row in rows]
    grid = element(
        "table",
        element("caption", element("span", caption)),
        element("thead", element("tr", *head)),
        element("tbody", *body),
        class_=class_ or None,
    )
    return element("div", grid, class_="scroll", tabindex="0", role="region", aria_label=caption)


def _cell(value: object, index: int, text: bool) -> Markup:
    if isinstance(value, Markup) and value.startswith("<td"):
        return value
    if index == 0:
        return element("th", value, scope="row")
    return element("td", value, class_=None if text else "number")


def definitions(pairs: Iterable[tuple[str, object]]) -> Markup:
    """Names with what they stand for, in two columns."""
    return element("dl", *(element("div", element("dt", name), element("dd", value)) for name, value in pairs))


def unfolded(summary: str, *children: object) -> Markup:
    """What opens when it is asked for; the style sheet opens it on paper."""
    return element("details", element("summary", summary), *children)
