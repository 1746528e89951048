"""Other ways to read the same images and labels: channels, rows, the order of classes; faults there undo themselves."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from toolkit.contracts import Int64, UInt8

SWAPPED = "the channels are swapped: RGB and BGR"


@dataclass(frozen=True)
class Hypothesis:
    """A change of the images that undoes, or imitates, a fault. `apply` keeps their shape (N, H, W, C)."""

    name: str
    apply: Callable[[UInt8], UInt8]
    fix: str


def hypotheses_for(shape: tuple[int, int, int]) -> tuple[Hypothesis, ...]:
    """Those that images of (H, W, C) can tell apart."""
    height, width, channels = shape

    def as_nchw(images: UInt8) -> UInt8:
        return images.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)

    found = [Hypothesis("the pixels are inverted (255 - x)", lambda x: 255 - x, "invert them where they are loaded")]
    found.append(Hypothesis("the rows are upside down", lambda x: x[:, ::-1], "flip them where they are loaded"))
    if channels == 3:
        found += [
            Hypothesis(SWAPPED, lambda x: x[..., ::-1], "image[..., ::-1]"),
            Hypothesis("NHWC pixels are read as NCHW", as_nchw, "transpose, do not reshape"),
        ]
    if height == width:
        found.append(Hypothesis("height and width are swapped", lambda x: x.transpose(0, 2, 1, 3), "transpose them"))
    return tuple(found)


def order_between(before: Int64, after: Int64, classes: int) -> Int64 | None:
    """The class that each class became, int64 (classes,), if that is one to one and not the identity; else None."""
    valid = (before >= 0) & (after >= 0)
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (before[valid], after[valid]), 1)
    order: Int64 = np.where(table.any(axis=1), table.argmax(axis=1), -1)
    # Classes without images go where a shift would put them, or stay.
    shifts = {int((order[c] - c) % classes) for c in range(classes) if order[c] >= 0}
    by = shifts.pop() if len(shifts) == 1 else 0
    order = np.where(order < 0, (np.arange(classes) + by) % classes, order)
    if len(set(order.tolist())) != classes or (order == np.arange(classes)).all():
        return None
    return order


def order_in_words(order: Int64, what: str) -> str:
    """'the labels are shifted by 1', or which ones changed places."""
    classes = len(order)
    by = {int((order[c] - c) % classes) for c in range(classes)}
    if len(by) == 1:
        (shift,) = by
        return f"the {what} are shifted by {shift if shift <= classes // 2 else shift - classes}"
    moved = [f"{c} to {order[c]}" for c in range(classes) if order[c] != c]
    return f"the {what} are in another order: {', '.join(moved[:6])}{', ...' if len(moved) > 6 else ''}"


def usual_orders(labels: tuple[str, ...]) -> dict[str, Int64]:
    """Orders in which a network may have been trained, in words: for each logit the index of its name in `labels`.

    Folders come sorted as text ("0", "1", "10", "11", "2"), as torchvision's ImageFolder has them. Other scripts count
    ("0", "1", "2"), or do not look at the case of letters.
    """
    sorts: dict[str, Callable[[str], object]] = {
        "counted as numbers (2 before 10)": _by_number,
        "sorted as text (10 before 2)": str,
        "sorted without looking at the case of letters": str.lower,
    }
    found: dict[str, Int64] = {}
    for words, key in sorts.items():
        order = np.array(sorted(range(len(labels)), key=lambda index: key(labels[index])), np.int64)  # type: ignore[arg-type, return-value]
        if (order != np.arange(len(labels))).any() and not any((order == other).all() for other in found.values()):
            found[words] = order
    return found


def _by_number(label: str) -> list[tuple[int, int | str]]:
    """Text as people sort it: digits by their value."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", label) if part]
