"""What a command prints and a file holds, described once: frozen dataclasses, written as JSON and read back with care.

A class says what its document holds by fields and type hints: `float | None` may be null, a field with a default may be
absent, `Literal` lists words, `Count`, `Percent` and their like have limits. docs/schema is generated from the same
hints. Reading tolerates entries that it does not know; the first fault is named by its place. Numbers are finite: JSON
has no others.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args, get_origin

from toolkit.errors import ToolkitError
from toolkit.storage.hints import (
    FIGURE,
    FLAT,
    LEFT_OUT,
    NAMES,
    Items,
    Limits,
    Maybe,
    Pattern,
    allowed_of,
    entries_of,
    said,
    split,
    without_null,
)

T = TypeVar("T")


class Document:
    """Base of the dataclasses that are written as JSON.

    Attributes:
        SCHEMA: what a whole document calls itself, such as "toolkit/verify/1"; a part of one has none.
    """

    SCHEMA: ClassVar[str] = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return ({"schema": self.SCHEMA} if self.SCHEMA else {}) | _entries_of(self)

    @classmethod
    def from_dict(
        cls: type[T],
        document: object,
        what: str = "the document",
        *,
        error: type[ToolkitError] = ToolkitError,
        fix: str | None = None,
    ) -> T:
        """The inverse of `as_dict`; entries that this version does not know are left aside.

        Args:
            document: what was read from JSON.
            what: what the document is called where it is refused.
            fix: what to type then.

        Raises:
            ToolkitError: as `error`: another schema or none; the first entry that is missing or wrong, by its place.
        """
        _require_schema(str(getattr(cls, "SCHEMA", "")), document, what, error, fix)
        try:
            value: T = _read(document, cls, "")
        except _Fault as fault:
            where = f"{fault.place.removeprefix('.')} is {fault.found}" if fault.place else fault.found
            raise error(
                f"{what} lacks an entry or has a wrong one", found=where, allowed=fault.allowed, fix=fix
            ) from None
        return value


@dataclass(frozen=True)
class Failure(Document):
    """What a command prints that could not do what it was asked for.

    Attributes:
        error: the error's name, such as "BundleError".
        what: one sentence naming the thing that is wrong.
        found: what was there instead.
        allowed: what would have been right.
        fix: what to type or do next.
        kinds: names of what is wrong, where several things may be.
    """

    SCHEMA = "toolkit/error/1"
    ok: Literal[False]
    error: str
    what: str
    found: str | None = None
    allowed: str | None = None
    fix: str | None = None
    kinds: Maybe[tuple[str, ...]] = None


def failure_of(error: ToolkitError) -> Failure:
    """An error as it is printed."""
    return Failure(False, type(error).__name__, error.what, error.found, error.allowed, error.fix, error.kinds or None)


def _entries_of(value: Any) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for entry in entries_of(value.__class__):
        found = getattr(value, entry.name)
        if FLAT in entry.marks:
            document |= {} if found is None else _entries_of(found)
        elif found is not None or LEFT_OUT not in entry.marks:
            most = next((mark.most for mark in entry.marks if isinstance(mark, Items)), None)
            document[entry.name] = _written(found if most is None else found[:most])
    return document


def _written(value: Any) -> Any:
    if is_dataclass(value):
        return _entries_of(value)
    if isinstance(value, Mapping):
        return {str(key): _written(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_written(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


class _Fault(Exception):
    """The first entry that does not fit: its place, what is there, what is allowed."""

    def __init__(self, place: str, found: str, allowed: str) -> None:
        super().__init__(place)
        self.place, self.found, self.allowed = place, found, allowed


def _require_schema(schema: str, document: object, what: str, error: type[ToolkitError], fix: str | None) -> None:
    """A whole document says what it is; a document of an error says what had gone wrong."""
    found = document.get("schema") if isinstance(document, dict) else None
    if found == schema or not schema:
        return
    words = f"schema {said(found)}" if found is not None else "no entry 'schema'"
    if not isinstance(document, dict):
        words = said(document)
    elif isinstance(document.get("what"), str) and document.get("ok") is False:
        words = f"a command that had failed: {document['what']}"
    raise error(f"{what} is not a document of {named(schema)}", found=words, allowed=f"schema '{schema}'", fix=fix)


def named(schema: str) -> str:
    """What printed it: toolkit verify for "toolkit/verify/1"."""
    return schema.rpartition("/")[0].replace("/", " ")


def _read(value: Any, hint: Any, place: str) -> Any:
    kind, marks = split(hint)
    optional = without_null(kind)
    if value is None and LEFT_OUT in marks:  # what is never written as null is read by nobody as one
        raise _Fault(place, said(value), allowed_of(hint))
    if value is None and (optional is not None or FIGURE in marks):
        return None if optional is not None else math.nan
    read = _read_kind(value, kind if optional is None else optional, place)
    for mark in marks:
        _require_mark(read, mark, place)
    return read


def _read_kind(value: Any, kind: Any, place: str) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin is Annotated:
        return _read(value, kind, place)
    if origin is Literal:
        if not any(value == word and type(value) is type(word) for word in inner):
            raise _Fault(place, said(value), allowed_of(kind))
        return value
    if is_dataclass(kind):
        return _read_object(_required(value, dict, place), kind, place)
    if origin is dict:
        found = _required(value, dict, place)
        return {key: _read(entry, inner[1], f"{place}.{key}") for key, entry in found.items()}
    if origin in (tuple, list):
        return origin(_read_list(_required(value, list, place), inner, place))
    _required(value, kind, place)
    return kind(value) if kind in (float, Path) else value


def _read_object(document: dict[str, Any], kind: Any, place: str) -> Any:
    values = {}
    for entry in entries_of(kind):
        if FLAT in entry.marks:
            values[entry.name] = _read_flat(document, split(entry.hint)[0], place)
        elif entry.name in document:
            values[entry.name] = _read(document[entry.name], entry.hint, f"{place}.{entry.name}")
        elif entry.required:
            raise _Fault(f"{place}.{entry.name}", "not there", allowed_of(entry.hint))
    return kind(**values)


def _read_flat(document: dict[str, Any], kind: Any, place: str) -> Any:
    optional = without_null(kind)
    if optional is not None and not any(entry.name in document for entry in entries_of(optional)):
        return None
    return _read_object(document, kind if optional is None else optional, place)


def _read_list(value: list[Any], inner: tuple[Any, ...], place: str) -> Iterator[Any]:
    """Entries of `tuple[X, ...]` and `list[X]`, or of a tuple of so many as `tuple[X, Y]` has."""
    same = len(inner) == 1 or inner[1] is Ellipsis
    if not same and len(value) != len(inner):
        raise _Fault(place, f"a list of {len(value)}", f"a list of {len(inner)}")
    for index, entry in enumerate(value):
        yield _read(entry, inner[0] if same else inner[index], f"{place}[{index}]")


def _required(value: Any, kind: type, place: str) -> Any:
    if not _is(value, kind):
        raise _Fault(place, said(value), NAMES[kind])
    return value


def _is(value: Any, kind: type) -> bool:
    """`isinstance` where true is no number, a whole number is a number, and NaN and infinity are none."""
    if kind in (int, float) and isinstance(value, bool):
        return False
    if kind is float:
        return isinstance(value, int | float) and abs(value) <= sys.float_info.max  # NaN is not
    if kind is list:
        return isinstance(value, list | tuple)  # what was not read from a file may hold tuples
    return isinstance(value, str if kind is Path else kind)


def _require_mark(value: Any, mark: Any, place: str) -> None:
    if isinstance(mark, Limits) and not mark.hold(value):
        raise _Fault(place, said(value), str(mark))
    if isinstance(mark, Pattern) and not re.fullmatch(mark.text, value):
        raise _Fault(place, said(value), f"text of the form {mark.text}")
    if isinstance(mark, Items) and len(value) < mark.least:
        found = f"a list of {len(value)}" if value else "an empty list"
        raise _Fault(place, found, f"a list of at least {mark.least}")
