"""Claims about images and preprocessing: wrong ones are refused in words, right ones keep their identity."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.contracts import (
    LabeledImages,
    Preprocessing,
    preprocessing_from_dict,
    preprocessing_from_images,
    require_images,
    sha256_of_each,
)
from toolkit.errors import DataError, ModelError

MEANS = st.floats(-1, 2, allow_nan=False)
STDS = st.floats(0.01, 2)


def _labeled(images: Any = None, labels: Any = None, classes: tuple[str, ...] = ("a", "b")) -> LabeledImages:
    images = np.arange(4 * 2 * 2 * 3, dtype=np.uint8).reshape(4, 2, 2, 3) if images is None else images
    labels = np.array([0, 1, 0, 1], np.int64) if labels is None else labels
    return LabeledImages(images, labels, classes, "somewhere")


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (np.zeros((4, 2, 2, 3), np.float32), None, "wrong form"),
        (np.zeros((4, 2, 2), np.uint8), None, "wrong form"),
        (np.zeros((4, 3, 2, 2), np.uint8), None, "wrong form"),
        (np.zeros((0, 2, 2, 3), np.uint8), np.zeros(0, np.int64), "no images"),
        (None, np.zeros(3, np.int64), "do not fit"),
        (None, np.zeros(4, np.int32), "do not fit"),
        (None, np.array([0, 1, 2, 0], np.int64), "outside the classes"),
        (None, np.array([0, -1, 0, 0], np.int64), "outside the classes"),
    ],
)
def test_wrong_images_or_labels_are_refused_with_their_source(images: Any, labels: Any, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        _labeled(images, labels)
    assert "somewhere" in caught.value.what


def test_a_part_keeps_the_order_that_was_asked_for() -> None:
    whole = _labeled()
    part = whole.take(np.array([3, 0]), "a part")
    assert np.array_equal(part.images_nhwc, whole.images_nhwc[[3, 0]])
    assert part.labels.tolist() == [1, 0]
    assert (part.source, part.classes) == ("a part", whole.classes)


@given(st.integers(0, 47), st.integers(1, 255))
def test_one_pixel_changes_the_identity_of_the_set_and_of_one_image_only(place: int, by: int) -> None:
    whole = _labeled()
    pixels = whole.images_nhwc.copy()
    pixels.reshape(-1)[place] ^= np.uint8(by)
    assert _labeled(pixels).sha256 != whole.sha256
    before, after = sha256_of_each(whole.images_nhwc), sha256_of_each(pixels)
    assert [i for i in range(4) if before[i] != after[i]] == [place // 12]


def test_labels_and_order_belong_to_the_identity_of_a_set() -> None:
    whole = _labeled()
    assert _labeled().sha256 == whole.sha256
    assert _labeled(labels=np.array([1, 1, 0, 1], np.int64)).sha256 != whole.sha256
    assert whole.take(np.array([1, 0, 2, 3])).sha256 != whole.sha256


@given(MEANS, STDS)
def test_scale_and_shift_are_the_formula_for_every_pixel(mean: float, std: float) -> None:
    scale, shift = Preprocessing(4, 4, 1, (mean,), (std,)).scale_and_shift()
    assert scale.dtype == shift.dtype == np.float32
    pixels = np.arange(256)
    exact = (pixels / 255 - mean) / std
    assert np.abs(pixels.astype(np.float32) * scale + shift - exact).max() <= 1e-6 * (1 + 3 / std)


@given(st.integers(1, 64), st.integers(1, 64), st.lists(st.tuples(MEANS, STDS), min_size=1, max_size=3))
def test_preprocessing_survives_its_dictionary(height: int, width: int, channels: list[tuple[float, float]]) -> None:
    mean, std = zip(*channels, strict=True)
    preprocessing = Preprocessing(height, width, len(channels), mean, std)
    assert preprocessing_from_dict(preprocessing.as_dict()) == preprocessing


@pytest.mark.parametrize(
    ("mean", "std"),
    [((0.5,), (0.0,)), ((0.5,), (-1.0,)), ((float("nan"),), (1.0,)), ((0.5,), (float("inf"),)), ((0.5, 0.5), (1.0,))],
)
def test_a_mean_or_std_that_cannot_be_used_is_refused(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    with pytest.raises(ModelError, match="mean"):
        Preprocessing(4, 4, 1, mean, std)


@pytest.mark.parametrize("broken", [{}, {"height": "x"}, {"mean": None}, {"std": ["a"]}])
def test_a_dictionary_that_is_no_preprocessing_is_a_model_error(broken: dict[str, Any]) -> None:
    whole = Preprocessing(4, 4, 1, (0.5,), (0.5,)).as_dict()
    with pytest.raises(ModelError, match="cannot be read"):
        preprocessing_from_dict(whole | broken if broken else {})


def test_one_mean_and_one_std_serve_all_channels_in_python_and_in_documents() -> None:
    whole = Preprocessing(4, 4, 3, (0.5,) * 3, (0.25,) * 3)
    assert Preprocessing(4, 4, 3, (0.5,), (0.25,)) == whole
    assert preprocessing_from_dict(whole.as_dict() | {"mean": [0.5], "std": [0.25]}) == whole
    with pytest.raises(ModelError, match="a channel"):
        Preprocessing(4, 4, 3, (0.5, 0.5), (0.25,))


def test_mean_and_std_are_those_of_all_pixels_of_a_channel() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)
    found = preprocessing_from_images(images)
    assert found.shape == (6, 7, 3)
    assert np.allclose(found.mean, (images / 255).mean(axis=(0, 1, 2)), atol=1e-6)
    assert np.allclose(found.std, (images / 255).std(axis=(0, 1, 2)), atol=1e-6)


def test_a_constant_channel_cannot_be_normalized() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)
    images[..., 1] = 9
    with pytest.raises(DataError, match="constant in a channel"):
        preprocessing_from_images(images)


@pytest.mark.parametrize(
    ("shape", "fix"),
    [((2, 31, 31, 3), "resize the images to 32x32"), ((2, 32, 32, 1), "numpy.repeat"), ((2, 3, 32, 32), "transpose")],
)
def test_images_that_a_model_does_not_take_come_with_a_cure(shape: tuple[int, ...], fix: str) -> None:
    preprocessing = Preprocessing(32, 32, 3, (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(DataError, match="the model does not take") as caught:
        require_images(np.zeros(shape, np.uint8), preprocessing, "the model")
    assert str(shape) in str(caught.value.found)
    assert "uint8 (N, 32, 32, 3)" in str(caught.value.allowed)
    assert fix in str(caught.value.fix)


def test_float_images_are_refused_and_right_ones_pass() -> None:
    preprocessing = Preprocessing(4, 4, 1, (0.5,), (0.5,))
    require_images(np.zeros((1, 4, 4, 1), np.uint8), preprocessing, "it")
    with pytest.raises(DataError, match="it does not take"):
        require_images(np.zeros((1, 4, 4, 1), np.float32), preprocessing, "it")


def test_a_class_whose_name_is_no_utf_8_is_refused_before_anything_is_trained_on_it() -> None:
    with pytest.raises(DataError, match="no text in UTF-8"):
        LabeledImages(np.zeros((1, 4, 4, 1), np.uint8), np.zeros(1, np.int64), ("cat", "d\udcffg"), "photos")
