"""Claims about suspicion: noise, constants and copies are refused in words, real structure is not."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.calibration.plausibility import require_plausible, statistics_of_images
from toolkit.contracts import LabeledImages, Preprocessing, UInt8, preprocessing_from_images
from toolkit.errors import CalibrationError

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
NORMAL = (RNG.standard_normal((20, 32, 32, 1)) * 40 + 128).clip(0, 255).astype(np.uint8)
CONSTANT = np.broadcast_to(np.arange(20, dtype=np.uint8)[:, None, None, None], (20, 16, 16, 3)).copy()
SMOOTH = (np.add.outer(np.arange(20), np.add.outer(np.arange(16) * 7, np.arange(16) * 5)) % 256).astype(np.uint8)[
    ..., None
]


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (NOISE, "pixels are noise"),
        (NORMAL, "pixels are noise"),
        (CONSTANT, "100 % of the images are of one color"),
        (np.repeat(SMOOTH[:5], 4, axis=0), "75 % of the images are copies"),
        (np.repeat(SMOOTH[:1], 20, axis=0), "95 % of the images are copies"),
    ],
)
def test_wrong_images_are_refused_in_words_and_forced_into_the_record(images: UInt8, words: str) -> None:
    with pytest.raises(CalibrationError, match="would set wrong ranges") as caught:
        require_plausible(images, force=False)
    assert words in str(caught.value.found)
    assert "`force=True`" in str(caught.value.fix)
    (reason,) = require_plausible(images, force=True)["forced"]
    assert words in reason


def test_images_with_structure_pass_and_leave_no_note(structured_images: LabeledImages) -> None:
    assert require_plausible(structured_images.images_nhwc, force=False) == {}
    assert require_plausible(SMOOTH, force=False) == {}


def test_statistics_are_those_of_the_pixels() -> None:
    found = statistics_of_images(NOISE)
    assert abs(found.correlation) < 0.05
    assert (found.images, found.constant, found.duplicates) == (20, 0, 0)
    checkers = np.tile(np.array([[0, 255], [255, 0]], np.uint8), (8, 8))[None, :, :, None]
    assert statistics_of_images(checkers).correlation == pytest.approx(-1)


def test_an_input_that_is_not_normalized_is_refused_and_a_normalized_one_passes(
    structured_images: LabeledImages,
) -> None:
    images = structured_images.images_nhwc
    require_plausible(images, False, preprocessing_from_images(images))
    for mean, std in (((0.0,) * 3, (1.0,) * 3), ((0.0,) * 3, (1 / 255,) * 3), ((0.5,) * 3, (0.01,) * 3)):
        with pytest.raises(CalibrationError, match="would set wrong ranges") as caught:
            require_plausible(images, False, Preprocessing(16, 16, 3, mean, std))
        assert "not normalized" in str(caught.value.found)
