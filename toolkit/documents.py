"""What a document must look like before anything in it is believed; the first fault is named by its place.

A shape is a type (`str`, `int`, `float`, `bool`, `dict`, `list`), a list of one shape, or keys with a shape each; a key
that ends in "?" may be absent. `Each` has any keys, `Maybe` may be null, `Some` is not empty. Numbers are finite: JSON
has no others.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from toolkit.errors import ToolkitError

NAMES = {str: "text", int: "a whole number", float: "a finite number", bool: "true or false",
         dict: "an object", list: "a list", type(None): "null"}  # fmt: skip
LONGEST = 60  # characters of a wrong value that are shown


@dataclass(frozen=True)
class Each:
    """An object with any keys, each of whose values has this shape."""

    of: Any


@dataclass(frozen=True)
class Maybe:
    """Its shape, or null."""

    of: Any


@dataclass(frozen=True)
class Some:
    """A list of this shape that is not empty."""

    of: Any


@dataclass(frozen=True)
class Above:
    """A finite number above this one."""

    low: float


def require_shape(document: Any, shape: Any, what: str, error: type[ToolkitError], fix: str | None = None) -> None:
    """Refuses a document that lacks an entry of the shape or has a wrong one.

    Raises:
        ToolkitError: as `error`, with the entry's place, what is there and what must be.
    """
    for place, found, allowed in faults_of_shape(document, shape):
        where = f"{place.removeprefix('.')} is {found}" if place else found
        raise error(f"{what} lacks an entry or has a wrong one", found=where, allowed=allowed, fix=fix)


def faults_of_shape(value: Any, shape: Any, place: str = "") -> Iterator[tuple[str, str, str]]:
    """Each entry that does not fit: its place, what is there, what is allowed."""
    if isinstance(shape, Maybe):
        if value is not None:
            yield from faults_of_shape(value, shape.of, place)
    elif isinstance(shape, Above):
        if not _is(value, float) or value <= shape.low:
            yield place, _said(value), f"a number above {shape.low:g}"
    elif isinstance(shape, type):
        if not _is(value, shape):
            yield place, _said(value), NAMES[shape]
    elif isinstance(shape, Some):
        yield from faults_of_shape(value, [shape.of], place)
        if _is(value, list) and not value:
            yield place, "an empty list", "at least one entry"
    elif isinstance(shape, list):
        yield from _faults_of_list(value, shape[0], place)
    elif not isinstance(value, dict):
        yield place, _said(value), NAMES[dict]
    elif isinstance(shape, Each):
        for key, entry in value.items():
            yield from faults_of_shape(entry, shape.of, f"{place}.{key}")
    else:
        yield from _faults_of_object(value, shape, place)


def _faults_of_list(value: Any, shape: Any, place: str) -> Iterator[tuple[str, str, str]]:
    if not _is(value, list):
        yield place, _said(value), NAMES[list]
        return
    for index, entry in enumerate(value):
        yield from faults_of_shape(entry, shape, f"{place}[{index}]")


def _faults_of_object(value: dict[str, Any], shape: dict[str, Any], place: str) -> Iterator[tuple[str, str, str]]:
    for name, wanted in shape.items():
        key = name.removesuffix("?")
        if key in value:
            yield from faults_of_shape(value[key], wanted, f"{place}.{key}")
        elif key == name:
            yield f"{place}.{key}", "not there", _allowed(wanted)


def _is(value: Any, kind: type) -> bool:
    """`isinstance` where true is no number, a whole number is a number, and NaN and infinity are none."""
    if kind in (int, float) and isinstance(value, bool):
        return False
    if kind is float:
        return isinstance(value, int | float) and abs(value) <= sys.float_info.max  # NaN is not
    return isinstance(value, list | tuple if kind is list else kind)  # what was not read from a file may hold tuples


def _said(value: Any) -> str:
    """What a value is, and the value itself where it is short enough to help."""
    if isinstance(value, bool) or value is None:
        return str(value).lower() if value is not None else "null"
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) else _cut(str(value))
    return (
        f"{NAMES[str]} {_cut(repr(value))}" if isinstance(value, str) else NAMES.get(type(value), type(value).__name__)
    )


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."


def _allowed(shape: Any) -> str:
    if isinstance(shape, Maybe):
        return f"{_allowed(shape.of)} or null"
    if isinstance(shape, Above):
        return f"a number above {shape.low:g}"
    return NAMES[shape] if isinstance(shape, type) else NAMES[list if isinstance(shape, list | Some) else dict]
