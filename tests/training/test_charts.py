"""Claims about charts: they are PNGs whose ink grows with the values."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from toolkit.quantization.charts import BAR, png_of_bars, png_of_curve


def _ink(png: bytes) -> int:
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    return int((pixels == BAR).all(axis=2).sum())


def test_a_longer_bar_has_more_ink_and_every_bar_a_row() -> None:
    short, long = (png_of_bars("t", [("a", 1.0, ""), ("b", value, "")]) for value in (0.1, 0.9))
    assert 0 < _ink(short) < _ink(long)
    heights = [Image.open(io.BytesIO(png_of_bars("t", [("a", 1.0, "")] * rows))).height for rows in (1, 20)]
    assert heights[1] > heights[0] + 19 * 15


def test_a_chart_of_zeros_or_of_one_point_is_drawn() -> None:
    assert _ink(png_of_bars("t", [("a", 0.0, "0")])) > 0
    assert _ink(png_of_curve("t", [(50, 99.0)])) > 0
    assert _ink(png_of_curve("t", [(0, 100.0), (100, 97.0)])) > _ink(png_of_curve("t", [(50, 99.0)]))
