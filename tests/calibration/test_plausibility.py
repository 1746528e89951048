"""Claims about plausibility: noise, constants and copies are refused in words, real structure is not."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.calibration.plausibility import (
    ImageStatistics,
    implausible_images,
    implausible_input,
    require_plausible,
    statistics_of_images,
)
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


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (ImageStatistics(20, 0.15, 0.5, 0.5), []),
        (ImageStatistics(20, -0.15, 0, 0), []),
        (ImageStatistics(20, -0.149, 0, 0), ["neighbors correlate by -0.15"]),
        (
            ImageStatistics(20, 0.9, 0.51, 0.51),
            ["51 % of the images are of one color", "51 % of the images are copies"],
        ),
    ],
)
def test_each_sign_has_its_border(found: ImageStatistics, words: list[str]) -> None:
    reasons = implausible_images(found)
    assert len(reasons) == len(words)
    assert all(word in reason for word, reason in zip(words, reasons, strict=True))


def test_statistics_of_a_mixed_set_are_shares_and_a_median() -> None:
    steps = np.repeat(np.array([[0, 255]], np.uint8), 8, axis=1)  # of each pixel's pairs, one in four differs
    stripes = np.tile(steps, (16, 1))[None, ..., None]
    images = np.concatenate([stripes, stripes, SMOOTH[:5, :, :16], CONSTANT[:3, ..., :1]])
    found = statistics_of_images(images)
    assert (found.images, found.constant) == (10, 0.3)
    assert found.duplicates == pytest.approx(0.1)
    alone = [statistics_of_images(image[None]).correlation for image in images[:7]]
    assert found.correlation == np.median(alone)
    assert statistics_of_images(CONSTANT).correlation == 1  # nothing has a neighbor that differs
    assert statistics_of_images(np.array([[[[3]]], [[[9]]]], np.uint8)).correlation == 1


def test_a_correlation_is_that_of_right_and_lower_neighbors() -> None:
    image = RNG.integers(0, 256, (1, 5, 7, 2), dtype=np.uint8)
    values = image[0] - image[0].mean(axis=(0, 1))
    pairs = [values[y, x] * values[y, x + 1] for y in range(5) for x in range(6)]
    pairs += [values[y, x] * values[y + 1, x] for y in range(4) for x in range(7)]
    assert statistics_of_images(image).correlation == pytest.approx(np.mean(pairs) / np.square(values).mean())


def test_the_channel_that_is_not_normalized_is_named_with_its_figures() -> None:
    images = np.zeros((8, 16, 16, 3), np.uint8)
    images[:4] = 255  # of each channel: mean 0.5, spread 0.5
    for mean, std, words in (
        ((0.5,) * 3, (0.5, 0.5, 1.3), ("channel 2", "0.00 and spread 0.38,")),
        ((0.5,) * 3, (0.5, 0.16, 0.5), ("channel 1", "0.00 and spread 3.13,")),
        ((0.5, 0.5, 1.3), (0.5,) * 3, ("channel 2", "mean -1.60 and spread 1.00,")),
    ):
        (reason,) = implausible_input(images, Preprocessing(16, 16, 3, mean, std))
        assert all(word in reason for word in words)
    for mean, std in (((0.5,) * 3, (1.24, 0.5, 0.168)), ((0.5, -0.24, 1.24), (0.5,) * 3)):
        assert implausible_input(images, Preprocessing(16, 16, 3, mean, std)) == []


def test_each_channel_is_normalized_by_itself_and_a_faint_pattern_is_no_constant() -> None:
    draws = np.random.default_rng(3)
    images = np.stack([draws.integers(0, 60, (9, 8, 8)), draws.integers(100, 250, (9, 8, 8))], axis=-1).astype(np.uint8)
    assert implausible_input(images, preprocessing_from_images(images)) == []
    faint = np.broadcast_to(100 + np.arange(16, dtype=np.uint8)[:, None] // 8, (16, 16))[None, ..., None]
    assert statistics_of_images(faint).constant == 0
