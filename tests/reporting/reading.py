"""Reads a page back: strictly, as XML, so that one forgotten escape is an error."""

from __future__ import annotations

from xml.etree import ElementTree
from xml.etree.ElementTree import Element


def tree_of(page: str) -> Element:
    """The page's root element."""
    first, _, rest = page.partition("\n")
    assert first == "<!DOCTYPE html>"
    return ElementTree.fromstring(rest)


def text_of(element: Element) -> str:
    """All text inside, spaces as single ones."""
    return " ".join(" ".join(element.itertext()).split())


def section(root: Element, name: str) -> Element:
    """The section with an id."""
    (found,) = [part for part in root.iter("section") if part.get("id") == name]
    return found


def rows_of(element: Element, caption: str) -> list[dict[str, str]]:
    """The rows of the table whose caption begins so, by the names of its columns."""
    (table,) = [t for t in element.iter("table") if text_of(next(t.iter("caption"))).startswith(caption)]
    names = [text_of(cell) for cell in next(table.iter("thead")).iter("th")]
    body = next(table.iter("tbody"))
    return [dict(zip(names, (text_of(cell) for cell in row), strict=True)) for row in body.iter("tr")]
