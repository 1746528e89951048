"""What a type hint says about an entry of a document: null or not, absent or not, its words and its limits."""

from __future__ import annotations

from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
LONGEST = 60  # characters of a wrong value that are shown
NAMES = {str: "text", Path: "text", int: "a whole number", float: "a finite number", bool: "true or false",
         dict: "an object", list: "a list", NoneType: "null"}  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """What a number must be: at least `least`, more than `above`, at most `most`."""

    least: float | None = None
    above: float | None = None
    most: float | None = None

    def __str__(self) -> str:
        parts = (("of at least", self.least), ("above", self.above), ("up to", self.most))
        return "a number " + " and ".join(f"{word} {limit:g}" for word, limit in parts if limit is not None)

    def hold(self, value: float) -> bool:
        """Whether a number is within them."""
        low = (self.least is None or value >= self.least) and (self.above is None or value > self.above)
        return low and (self.most is None or value <= self.most)


@dataclass(frozen=True)
class Items:
    """How many entries a list has; of a longer one the first `most` are written."""

    least: int = 0
    most: int | None = None


@dataclass(frozen=True)
class Pattern:
    """A regular expression that the whole text matches."""

    text: str


@dataclass(frozen=True)
class Mark:
    """How a field is written; see `Maybe`, `Flat`, `Apart` and `Figure`."""

    name: str


LEFT_OUT, FLAT, APART, FIGURE = Mark("left out"), Mark("flat"), Mark("apart"), Mark("figure")
Maybe = Annotated[T | None, LEFT_OUT]  # None is not written
Flat = Annotated[T, FLAT]  # a dataclass whose entries are written among its owner's; none of them where it is None
Apart = Annotated[T, APART]  # in memory alone: neither written nor read
Figure = Annotated[float, FIGURE]  # NaN and infinity are written as null, which is read as NaN
Count = Annotated[int, Limits(least=0)]
Percent = Annotated[float, Limits(least=0, most=100)]
NotNegative = Annotated[float, Limits(least=0)]
Positive = Annotated[float, Limits(above=0)]
Probability = Annotated[float, Limits(least=0, most=1)]
Sha256 = Annotated[str, Pattern("[0-9a-f]{64}")]


@dataclass(frozen=True)
class Entry:
    """A field of a document: its name, its type, what else its hint says, and whether it must be there."""

    name: str
    hint: Any
    marks: tuple[Any, ...]
    required: bool


@cache
def entries_of(kind: Any) -> tuple[Entry, ...]:
    """The fields of a dataclass that are written, in order."""
    hints = get_type_hints(kind, include_extras=True)
    found = [Entry(field.name, hints[field.name], split(hints[field.name])[1], _is_required(field)) for field in
             fields(kind)]  # fmt: skip
    return tuple(entry for entry in found if APART not in entry.marks)


def _is_required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def split(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type hint without what `Annotated` says about it, and that."""
    return (hint.__origin__, hint.__metadata__) if get_origin(hint) is Annotated else (hint, ())


def without_null(kind: Any) -> Any:
    """X of `X | None`; None where null is not allowed."""
    if get_origin(kind) not in (Union, UnionType):
        return None
    (only,) = (part for part in get_args(kind) if part is not NoneType)
    return only


def allowed_of(hint: Any) -> str:
    """What a type hint allows, in words."""
    kind, marks = split(hint)
    optional = without_null(kind)
    if optional is not None:
        return f"{allowed_of(optional)}{' or null' if LEFT_OUT not in marks else ', or no entry'}"
    for mark in marks:
        if isinstance(mark, Limits):
            return str(mark)
    if FIGURE in marks:
        return f"{NAMES[float]} or null"
    if get_origin(kind) is Literal:
        return ", ".join(repr(word) if isinstance(word, str) else said(word) for word in get_args(kind))
    return NAMES.get(dict if is_dataclass(kind) else get_origin(kind) or kind, NAMES[list])


def said(value: Any) -> str:
    """What a value is, and the value itself where it is short enough to help."""
    if isinstance(value, bool) or value is None:
        return str(value).lower() if value is not None else "null"
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) else _cut(str(value))
    named = NAMES.get(type(value), type(value).__name__)
    return f"{named} {_cut(repr(value))}" if isinstance(value, str) else named


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."
