"""Claims about documents: what a dataclass says is written, and believed only where all of it is there and fits."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.schemas import schema_of_document
from toolkit.errors import BundleError, ToolkitError
from toolkit.storage.documents import Document, Failure, failure_of
from toolkit.storage.hints import Apart, Count, Figure, Flat, Items, Limits, Maybe, Percent, Positive, Sha256


@dataclass(frozen=True)
class Distance(Document):
    """How far two are apart.

    Attributes:
        relative_l2: infinite where one is not finite.
        flips: images that
            both answer differently.
    """

    relative_l2: Figure
    flips: Count


@dataclass(frozen=True)
class Row(Document):
    """One runner."""

    word: Literal["pass", "fail"]
    distance: Flat[Distance]
    p50_ms: Positive | None
    interval_ms: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Judgment(Document):
    """What was judged."""

    SCHEMA = "toolkit/judge/1"
    ok: bool
    folder: Path
    sha256: Sha256
    gate_percent: Percent
    rows: Annotated[tuple[Row, ...], Items(least=1, most=2)]
    by_name: dict[str, Annotated[int, Limits(least=1)]]
    note: Maybe[str] = None
    anything: Any = None
    pixels: Apart[Any] = None


ROW = Row("pass", Distance(math.inf, 3), 0.5, (0.4, 0.6))
GOOD = Judgment(
    ok=True, folder=Path("/a"), sha256="ab" * 32, gate_percent=99, rows=(ROW,), by_name={"x": 1}, pixels=object()
)
DOCUMENT: dict[str, Any] = {
    "schema": "toolkit/judge/1",
    "ok": True,
    "folder": "/a",
    "sha256": "ab" * 32,
    "gate_percent": 99,
    "rows": [{"word": "pass", "relative_l2": None, "flips": 3, "p50_ms": 0.5, "interval_ms": [0.4, 0.6]}],
    "by_name": {"x": 1},
    "anything": None,
}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["word", "flips", "x"]), inner),
    max_leaves=6,
)


def test_a_document_is_written_as_its_fields_say() -> None:
    assert GOOD.as_dict() == DOCUMENT
    json.dumps(GOOD.as_dict(), allow_nan=False)
    many = Judgment.from_dict(DOCUMENT | {"rows": 2 * DOCUMENT["rows"], "note": "so"})
    longer = Judgment(**vars(many) | {"rows": many.rows * 3})
    assert len(longer.as_dict()["rows"]) == 2
    assert longer.as_dict()["note"] == "so"


def test_what_was_written_is_read_back_with_entries_that_nobody_knows() -> None:
    found = Judgment.from_dict(json.loads(json.dumps(GOOD.as_dict() | {"of a later version": [1]})))
    assert found.as_dict() == DOCUMENT
    assert math.isnan(found.rows[0].distance.relative_l2)
    assert found.folder == Path("/a")
    assert found.pixels is None


@pytest.mark.parametrize(
    ("change", "found", "allowed"),
    [
        ({"ok": 1}, "ok is 1", "true or false"),
        ({"folder": 7}, "folder is 7", "text"),
        ({"sha256": "short"}, "sha256 is text 'short'", "text of the form [0-9a-f]{64}"),
        ({"gate_percent": 100.5}, "gate_percent is 100.5", "a number of at least 0 and up to 100"),
        ({"gate_percent": float("nan")}, "gate_percent is nan", "a finite number"),
        ({"gate_percent": 10**400}, "gate_percent is 1000", "a finite number"),
        ({"rows": None}, "rows is null", "a list"),
        ({"note": None}, "note is null", "text, or no entry"),
        ({"rows": []}, "rows is an empty list", "a list of at least 1"),
        ({"rows": [{"word": "pass"}]}, "rows[0].relative_l2 is not there", "a finite number or null"),
        ({"rows": [DOCUMENT["rows"][0] | {"word": "good"}]}, "rows[0].word is text 'good'", "'pass', 'fail'"),
        ({"rows": [DOCUMENT["rows"][0] | {"flips": True}]}, "rows[0].flips is true", "a whole number"),
        ({"rows": [DOCUMENT["rows"][0] | {"flips": 1.5}]}, "rows[0].flips is 1.5", "a whole number"),
        ({"rows": [DOCUMENT["rows"][0] | {"p50_ms": 0}]}, "rows[0].p50_ms is 0", "a number above 0"),
        ({"rows": [DOCUMENT["rows"][0] | {"interval_ms": [1]}]}, "rows[0].interval_ms is a list of 1", "a list of 2"),
        ({"by_name": {"x": 0}}, "by_name.x is 0", "a number of at least 1"),
        ({"by_name": "y" * 999}, "by_name is text 'yyyy", "an object"),
    ],
)
def test_the_first_fault_is_named_by_its_place(change: dict[str, Any], found: str, allowed: str) -> None:
    with pytest.raises(BundleError, match=r"x\.json lacks an entry or has a wrong one") as caught:
        Judgment.from_dict(DOCUMENT | change, "x.json", error=BundleError, fix="copy it again")
    assert str(caught.value.found).startswith(found)
    assert len(str(caught.value.found)) < 120
    assert caught.value.allowed == allowed
    assert caught.value.fix == "copy it again"


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ({}, "no entry 'schema'"),
        ({"schema": "toolkit/judge/2"}, "schema text 'toolkit/judge/2'"),
        ([1], "a list"),
        (failure_of(ToolkitError("there is no bundle")).as_dict(), "a command that had failed: there is no bundle"),
    ],
)
def test_what_does_not_say_that_it_is_this_document_is_refused(document: Any, found: str) -> None:
    with pytest.raises(ToolkitError, match=r"x\.json is not a document of toolkit judge") as caught:
        Judgment.from_dict(document, "x.json", fix="toolkit judge > x.json")
    assert (caught.value.found, caught.value.allowed) == (found, "schema 'toolkit/judge/1'")


def test_an_error_is_a_document_too() -> None:
    error = BundleError("no bundle", found=3, allowed="one", fix="toolkit export")
    document = failure_of(error).as_dict()
    assert document == {"schema": "toolkit/error/1", "ok": False, **error.as_dict()}
    assert Failure.from_dict(document) == failure_of(error)


@given(st.sampled_from(sorted(DOCUMENT)), ANYTHING)
def test_what_the_schema_takes_the_reader_takes_and_nothing_else(entry: str, value: Any) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="needs the dependency group oracles")
    document = DOCUMENT | {entry: value}
    valid = jsonschema.Draft202012Validator(schema_of_document(Judgment)).is_valid(document)
    try:
        json.dumps(document, allow_nan=False)
        Judgment.from_dict(document)
    except (ToolkitError, ValueError):
        assert not valid or not _is_json(value)
    else:
        assert valid or _has_more(value)


def _is_json(value: Any) -> bool:
    """Python's 1.0 is an integer for JSON Schema and NaN a number; neither comes out of a JSON file as such."""
    text = repr(value)
    return not any(word in text for word in ("nan", "inf", ".0", "e+"))


def _has_more(value: Any) -> bool:
    """An entry that the schema does not know, which a reader tolerates."""
    return isinstance(value, list | dict)


def test_a_schema_says_what_the_docstrings_say() -> None:
    schema = schema_of_document(Judgment)
    row = schema["$defs"]["Row"]
    assert row["properties"]["flips"] == {
        "description": "images that both answer differently.", "type": "integer", "minimum": 0,
    }  # fmt: skip
    assert row["required"] == ["word", "relative_l2", "flips", "p50_ms"]
    assert "pixels" not in schema["properties"]
