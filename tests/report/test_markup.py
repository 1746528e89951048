"""Claims about markup: no text of anybody becomes an element, and labels never cover one another."""

from __future__ import annotations

from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from toolkit.report.markup import Markup, element, escaped, joined, table
from toolkit.report.placement import Box, places_of_labels

TEXTS = st.text(st.characters(), max_size=40)
POINTS = st.lists(st.tuples(st.floats(0, 700), st.floats(0, 400), st.floats(2, 17)), max_size=12)


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


@given(POINTS)
def test_labels_cover_neither_each_other_nor_a_point_nor_the_edge(points: list[tuple[float, float, float]]) -> None:
    frame = Box(0, 0, 760, 420)
    boxes = places_of_labels(points, [(90.0, 15.0)] * len(points), frame)
    placed = [box for box in boxes if box is not None]
    assert len(placed) == len(points)
    for index, box in enumerate(placed):
        assert box.inside(frame)
        assert not any(box.overlaps(other) for other in placed[index + 1 :])
        assert not any(box.overlaps(Box(x - r, y - r, x + r, y + r)) for x, y, r in points)


def test_a_label_without_a_place_is_left_out() -> None:
    frame = Box(0, 0, 100, 20)
    boxes = places_of_labels([(50, 10, 4)] * 3, [(90.0, 15.0)] * 3, frame)
    assert boxes == [None, None, None]


def test_a_lone_label_stands_right_of_its_point() -> None:
    (box,) = places_of_labels([(100, 100, 5)], [(60.0, 14.0)], Box(0, 0, 400, 200))
    assert box == Box(108, 93, 168, 107)
