"""Other bytes from sound ones: bits, pieces, and values of JSON and TOML that somebody did not think of."""

from __future__ import annotations

import json
import random
import re
from typing import Any

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, -(10**400), 0.5, 1e308, 5e-324, "", "x", "../..", "a\nb",
    "\x1b[2J", "\ud800", "[/b]", "x" * 300, [], {}, [[]], [{}], {"": 0}, ["x"], [1, 2, 3], [None], "\u202e", "NaN",
    "0" * 64,
)  # fmt: skip
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF)


def mutated(data: bytes, others: list[bytes], text: bool, draw: random.Random) -> bytes:
    """One to four changes of one file."""
    for _ in range(draw.randint(1, 4)):
        change = draw.choice((_json, _json, _line, *BYTES)) if text else draw.choice(BYTES)
        data = change(data, others, draw)
    return data


def _json(data: bytes, others: list[bytes], draw: random.Random) -> bytes:
    """A value anywhere in a document becomes another one, or goes, or comes twice."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return _line(data, others, draw)
    at: Any = document
    while isinstance(at, dict | list) and at:
        key = draw.choice(list(at) if isinstance(at, dict) else range(len(at)))
        if not isinstance(at[key], dict | list) or not at[key] or draw.random() < 0.25:
            if draw.random() < 0.15:
                del at[key]
            else:
                at[key] = draw.choice(VALUES)
            break
        at = at[key]
    return json.dumps(document).encode("utf-8", "surrogatepass")


def _line(data: bytes, others: list[bytes], draw: random.Random) -> bytes:
    """A value of one line of text becomes another one."""
    lines = data.split(b"\n")
    index = draw.randrange(len(lines))
    value = json.dumps(draw.choice(VALUES)).encode()
    lines[index] = re.sub(rb"([=:]\s*).*", lambda found: found[1] + value, lines[index], count=1)
    if draw.random() < 0.2:
        lines.insert(index, lines[draw.randrange(len(lines))])
    return b"\n".join(lines)


def _bit(data: bytes, others: list[bytes], draw: random.Random) -> bytes:
    found = bytearray(data or b"\0")
    for _ in range(draw.choice((1, 1, 2, 8))):
        found[draw.randrange(len(found))] ^= 1 << draw.randrange(8)
    return bytes(found)


def _number(data: bytes, others: list[bytes], draw: random.Random) -> bytes:
    found, width = bytearray(data or b"\0"), draw.choice((1, 2, 4, 8))
    place = draw.randrange(len(found))
    found[place : place + width] = bytes([draw.choice(NUMBERS)]) * width
    return bytes(found)


def _cut(data: bytes, others: list[bytes], draw: random.Random) -> bytes:
    start = draw.randrange(len(data) + 1)
    return data[:start] + data[min(len(data), start + draw.choice((1, 4, 64, len(data)))) :]


def _twice(data: bytes, others: list[bytes], draw: random.Random) -> bytes:
    start = draw.randrange(len(data) + 1)
    piece = data[start : start + draw.randint(1, 256)]
    return data[:start] + piece * draw.choice((2, 3, 100)) + data[start:]


def _spliced(data: bytes, others: list[bytes], draw: random.Random) -> bytes:
    other = draw.choice(others)
    return data[: draw.randrange(len(data) + 1)] + other[draw.randrange(len(other) + 1) :]


BYTES = (_bit, _bit, _number, _number, _cut, _twice, _spliced)
