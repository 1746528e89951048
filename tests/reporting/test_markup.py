"""Claims about markup: no text of anybody becomes an element, and labels never cover one another."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.reporting.drawing import spread
from toolkit.reporting.markup import Markup, element, escaped, joined, table

TEXTS = st.text(st.characters(), max_size=40)


@pytest.mark.slow
@given(TEXTS, TEXTS)
def test_any_text_stays_text(inside: str, attribute: str) -> None:
    root = ElementTree.fromstring(element("p", inside, class_=attribute))
    assert len(root) == 0
    readable = escaped(inside)
    assert ElementTree.fromstring(f"<p>{readable}</p>").text == root.text
    assert set(root.attrib) == {"class"}


def test_text_comes_back_as_it_was() -> None:
    text = "<script>alert('1 & \"2\"')</script>]]> \u00e9 \u2212"
    root = ElementTree.fromstring(element("p", text, title=text))
    assert (root.text, root.get("title")) == (text, text)


def test_characters_that_no_page_can_hold_are_replaced() -> None:
    assert escaped("a\x00b\x1bc\ud800d\uffff") == "a\ufffdb\ufffdc\ufffdd\ufffd"


def test_markup_is_escaped_once() -> None:
    inner = element("b", "<")
    assert element("p", inner, "<") == "<p><b>&lt;</b>&lt;</p>"
    assert joined([Markup("<i></i>"), "<i>"], ", ") == "<i></i>, &lt;i&gt;"


def test_a_table_says_what_heads_its_rows_and_columns() -> None:
    root = ElementTree.fromstring(table("Speed", ("who", "ms", "how<"), [("a", "1", "fast"), ("b", "2", "slow")]))
    assert root.get("aria-label") == "Speed"
    assert [cell.get("scope") for cell in root.iter("th")] == ["col", "col", "col", "row", "row"]
    assert [cell.get("class") for cell in root.iter("td")] == ["number", None, "number", None]


@given(st.lists(st.floats(0, 400), max_size=20))
def test_labels_cover_neither_each_other_nor_the_edge_and_keep_their_order(levels: list[float]) -> None:
    places = spread(levels, 16, 0, 400)
    rows = sorted(places)
    assert all(after - before >= 16 - 1e-9 for before, after in pairwise(rows))
    assert all(-1e-9 <= place <= 400 for place in places)
    assert [levels[i] for i in sorted(range(len(levels)), key=places.__getitem__)] == sorted(levels)


def test_labels_that_are_apart_stay_where_they_are() -> None:
    assert spread([200.0, 10.0, 100.0], 16, 0, 400) == [200, 10, 100]
