"""Claims about mirroring: it is off where a mirrored image is another class, by names or by the images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from toolkit.contracts import LabeledImages
from toolkit.data.model_images import images_from_folder
from toolkit.training.augment import why_not_mirrored

SHIPPED = Path(__file__).parents[2] / "calibration/resnet32x32-fashion"


def noise(classes: tuple[str, ...], count: int = 40) -> LabeledImages:
    images = np.random.default_rng(0).integers(0, 255, (count, 16, 16, 3), dtype=np.uint8)
    return LabeledImages(images, np.arange(count) % len(classes), classes, "made up")


@pytest.mark.parametrize(
    ("classes", "says"),
    [
        (tuple(map(str, range(10))), "a mirrored sign is another one"),
        (("a", "b", "d"), "a mirrored sign is another one"),
        (("turn left", "turn right", "stop"), "'turn left' would become"),
        (("arrow_left", "stop"), "'arrow_left' would become"),
        (("turnLeft", "stop"), "'turnLeft' would become"),
        (("leftover", "stop"), ""),
        (("cat", "dog"), ""),
        (("airplane", "bright", "ship"), ""),
    ],
)
def test_names_say_it(classes: tuple[str, ...], says: str) -> None:
    found = why_not_mirrored(noise(classes))
    assert says in found if says else found == ""


def test_images_say_it_where_names_do_not() -> None:
    images = noise(("one way", "other way", "stop"))
    pixels = images.images_nhwc // 4
    pixels[images.labels == 0, :, :6] += 150
    pixels[images.labels == 1, :, -6:] += 150
    found = why_not_mirrored(LabeledImages(pixels, images.labels, images.classes, "arrows"))
    assert found == "mirrored, most images of 'one way' look like 'other way'"


def test_clothes_are_mirrored() -> None:
    assert why_not_mirrored(images_from_folder(SHIPPED).calibration) == ""
