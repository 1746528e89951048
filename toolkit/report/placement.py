"""Where labels of points go so that none covers another, a point or the edge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

DIRECTIONS = 16
STEP, FARTHEST = 4.0, 400.0  # in the drawing's units: how finely, and how far from its point a label is looked for


@dataclass(frozen=True)
class Box:
    """A rectangle on paper, y downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        """Whether both have some area in common."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def inside(self, other: Box) -> bool:
        """Whether it does not reach beyond `other`."""
        return (
            other.left <= self.left
            and self.right <= other.right
            and other.top <= self.top
            and self.bottom <= other.bottom
        )


def places_of_labels(
    points: Sequence[tuple[float, float, float]], sizes: Sequence[tuple[float, float]], frame: Box
) -> list[Box | None]:
    """A box for each point's label: the nearest free place, looked for in rings about the point.

    Args:
        points: (x, y, radius), nothing may lie on them.
        sizes: (width, height) of the labels, one a point.
        frame: the boxes stay inside.

    Returns:
        One box a point; None where no place is left.
    """
    taken = [Box(x - r, y - r, x + r, y + r) for x, y, r in points]
    found: list[Box | None] = []
    for (x, y, radius), (width, height) in zip(points, sizes, strict=True):
        box = next(
            (
                candidate
                for candidate in _candidates(x, y, radius, width, height)
                if candidate.inside(frame) and not any(candidate.overlaps(other) for other in taken)
            ),
            None,
        )
        found.append(box)
        if box is not None:
            taken.append(box)
    return found


def _candidates(x: float, y: float, radius: float, width: float, height: float) -> list[Box]:
    """Boxes around a point, nearest first; right and left before above and below."""
    boxes = []
    gap = radius + 3
    while gap < FARTHEST:
        for turn in sorted(range(DIRECTIONS), key=lambda n: (min(n, DIRECTIONS - n) > 4, min(n, DIRECTIONS - n))):
            angle = 2 * math.pi * turn / DIRECTIONS
            middle_x = x + math.cos(angle) * (gap + width / 2)
            middle_y = y - math.sin(angle) * (gap + height / 2)
            boxes.append(Box(middle_x - width / 2, middle_y - height / 2, middle_x + width / 2, middle_y + height / 2))
        gap += STEP
    return boxes
