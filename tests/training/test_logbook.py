"""Claims about what a run leaves: lines that can be read again, a curve that is a picture."""

from __future__ import annotations

import io
import json

import pytest

from toolkit.errors import ModelError
from toolkit.training.logbook import EpochLine, curve_png, lines_from_text, text_from_lines

LINES = (EpochLine(1, 1.25, 0.5, 0.1, 1000.04, 2.0004), EpochLine(2, 0.75, 0.625, 0.05, 1200.0, 1.5))


def test_lines_survive_being_written_and_read() -> None:
    text = text_from_lines(LINES)
    assert len(text.splitlines()) == 2
    assert json.loads(text.splitlines()[0])["images_per_s"] == 1000.0
    assert text_from_lines(lines_from_text(text)) == text
    assert lines_from_text("") == ()


@pytest.mark.parametrize("text", ["{", '{"epoch": 1}', "[1]", "3"])
def test_a_line_that_is_no_epochs_is_one_error(text: str) -> None:
    with pytest.raises(ModelError, match="log of the interrupted run"):
        lines_from_text(text)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 100])
def test_a_curve_is_a_picture_that_people_can_read(count: int) -> None:
    Image = pytest.importorskip("PIL.Image")
    lines = [EpochLine(i + 1, 1 / (i + 1), i / (i + 1), 0.1, 1.0, 1.0) for i in range(count)]
    with Image.open(io.BytesIO(curve_png(lines, "a_$name$", count))) as picture:
        assert picture.size == (800, 600)
