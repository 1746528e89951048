"""A document is held against its shape before anything in it is believed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.documents import Above, Each, Maybe, Some, faults_of_shape, require_shape
from toolkit.errors import BundleError

SHAPE = {
    "name": str,
    "rows": [{"batch": int, "p50_ms": Above(0), "note?": Maybe(str)}],
    "medians": Some(float),
    "files": Each({"bytes": int}),
}
GOOD: dict[str, Any] = {
    "name": "a",
    "rows": [{"batch": 1, "p50_ms": 0.5}],
    "medians": [1, 2.5],
    "files": {"x": {"bytes": 3}},
    "unknown to this version": None,
}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*GOOD, "batch", "bytes"]), inner),
    max_leaves=8,
)


def test_a_document_of_its_shape_is_taken_with_entries_that_nobody_knows() -> None:
    require_shape(GOOD, SHAPE, "x.json", BundleError)


@pytest.mark.parametrize(
    ("change", "found", "allowed"),
    [
        ({"name": 7}, "name is 7", "text"),
        ({"rows": None}, "rows is null", "a list"),
        ({"rows": [{"batch": True, "p50_ms": 1}]}, "rows[0].batch is true", "a whole number"),
        ({"rows": [{"batch": 1.5, "p50_ms": 1}]}, "rows[0].batch is 1.5", "a whole number"),
        ({"rows": [{"batch": 1}]}, "rows[0].p50_ms is not there", "a number above 0"),
        ({"rows": [{"batch": 1, "p50_ms": 0}]}, "rows[0].p50_ms is 0", "a number above 0"),
        ({"rows": [{"batch": 1, "p50_ms": 1, "note": []}]}, "rows[0].note is a list", "text"),
        ({"medians": []}, "medians is an empty list", "at least one entry"),
        ({"medians": [float("nan")]}, "medians[0] is nan", "a finite number"),
        ({"medians": [10**400]}, "medians[0] is 1000", "a finite number"),
        ({"medians": "1 2"}, "medians is text '1 2'", "a list"),
        ({"files": {"x": "y" * 999}}, "files.x is text 'yyyy", "an object"),
    ],
)
def test_the_first_fault_is_named_by_its_place(change: dict[str, Any], found: str, allowed: str) -> None:
    with pytest.raises(BundleError, match=r"x\.json lacks an entry or has a wrong one") as caught:
        require_shape(GOOD | change, SHAPE, "x.json", BundleError, "copy it again")
    assert str(caught.value.found).startswith(found)
    assert len(str(caught.value.found)) < 120
    assert caught.value.allowed == allowed
    assert caught.value.fix == "copy it again"


@given(ANYTHING)
def test_whatever_passes_can_be_read_and_nothing_else_raises(document: Any) -> None:
    if list(faults_of_shape(document, SHAPE)):
        return
    assert document["name"] + "" == document["name"]
    assert all(row["batch"] + 1 and row["p50_ms"] > 0 for row in document["rows"])
    assert sum(document["medians"]) == sum(document["medians"])
    json.dumps([entry["bytes"] for entry in document["files"].values()], allow_nan=False)
