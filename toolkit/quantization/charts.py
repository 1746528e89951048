"""Two small charts as PNG, drawn with Pillow: bars with names, and a curve of points."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from toolkit.lazy import needs

if TYPE_CHECKING:
    from PIL import Image

WIDTH, MARGIN, ROW, CURVE_HEIGHT = 900, 16, 22, 420
INK, PALE, BAR = (30, 30, 30), (215, 215, 215), (60, 110, 180)


def _canvas(height: int, title: str) -> tuple[Image.Image, Any]:
    with needs("draw charts"):
        from PIL import Image, ImageDraw
    image = Image.new("RGB", (WIDTH, height), "white")
    draw = ImageDraw.Draw(image)
    draw.text((MARGIN, MARGIN), title, fill=INK)
    return image, draw


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def png_of_bars(title: str, bars: Sequence[tuple[str, float, str]]) -> bytes:
    """A PNG of horizontal bars: (name, length, what to write behind it), lengths from 0 up."""
    image, draw = _canvas(3 * MARGIN + ROW * (len(bars) + 1), title)
    left, right = 320, WIDTH - 130
    longest = max((length for _, length, _ in bars), default=0.0) or 1.0
    for index, (name, length, words) in enumerate(bars):
        top = 2 * MARGIN + ROW * (index + 1) - ROW // 2
        end = left + (right - left) * length / longest
        draw.text((MARGIN, top), name[-48:], fill=INK)
        draw.rectangle((left, top + 1, max(end, left + 1), top + ROW - 8), fill=BAR)
        draw.text((end + 8, top), words, fill=INK)
    return _png(image)


def png_of_curve(title: str, points: Sequence[tuple[float, float]]) -> bytes:
    """A PNG of (x, y) points in the order given, x from 0 to 100, y from its smallest to its largest value."""
    image, draw = _canvas(CURVE_HEIGHT, title)
    left, right, top, bottom = 80, WIDTH - 40, 60, CURVE_HEIGHT - 50
    low, high = min(y for _, y in points), max(y for _, y in points)
    span = (high - low) or 1.0
    draw.rectangle((left, top, right, bottom), outline=PALE)
    places = [(left + (right - left) * x / 100, bottom - (bottom - top) * (y - low) / span) for x, y in points]
    for value in (low, high):
        draw.text((MARGIN, bottom - (bottom - top) * (value - low) / span - 6), f"{value:.2f}", fill=INK)
    for share in (0, 50, 100):
        draw.text((left + (right - left) * share / 100 - 8, bottom + 8), f"{share}", fill=INK)
    if len(places) > 1:
        draw.line(places, fill=BAR, width=2)
    for x, y in places:
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=BAR)
    return _png(image)
