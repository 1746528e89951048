"""Claims about what deserves a look in a set before anything learns from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from toolkit.contracts import Dataset, LabeledImages
from toolkit.data import summary
from toolkit.data.describe import findings, similar
from toolkit.data.source import inspect_data


def part(labels: list[int], classes: tuple[str, ...], seed: int = 0) -> LabeledImages:
    images = np.random.default_rng(seed).integers(0, 255, (len(labels), 8, 8, 1), dtype=np.uint8)
    return LabeledImages(images, np.array(labels), classes, "made up")


def kinds(train: LabeledImages, test: LabeledImages) -> dict[str, str]:
    facts: dict[str, Any] = summary(Dataset("set", train, test))
    return {finding.kind: finding.what for finding in findings(facts)}


def test_a_good_set_has_none() -> None:
    classes = ("cat", "dog")
    assert kinds(part([0, 1] * 20, classes), part([0, 1] * 10, classes, 1)) == {}


def test_tiny_and_uneven_classes_are_named() -> None:
    classes = ("cat", "dog")
    found = kinds(part([0] * 60 + [1] * 3, classes), part([0, 1] * 5, classes, 1))
    assert "dog (3)" in found["tiny class"]
    assert "20 times" in found["uneven classes"]


def test_images_that_train_and_judge_and_those_under_two_labels_are_counted() -> None:
    classes = ("cat", "dog")
    train, test = part([0, 1] * 20, classes), part([0, 1] * 10, classes, 1)
    test.images_nhwc[:3] = train.images_nhwc[:3]
    found = kinds(train, test)
    assert found["test images in train"].startswith("3 of 20 test images")
    train.images_nhwc[1] = train.images_nhwc[0]
    found = kinds(train, test)
    assert "two labels" in found
    assert "repeated images" in found


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (("cat", "Cat", "dog"), [("cat", "Cat")]),
        (("T-shirt", "t shirt"), [("T-shirt", "t shirt")]),
        (("cat", "cats"), [("cat", "cats")]),
        (("pedestrian", "pedestrain"), [("pedestrian", "pedestrain")]),
        (("cat", "car", "can"), []),
        (tuple(map(str, range(12))), []),
        (("speed limit 30", "speed limit 50"), []),
        (("deer", "horse", "frog", "ship", "truck"), []),
    ],
)
def test_names_that_may_be_one_class(names: tuple[str, ...], pairs: list[tuple[str, str]]) -> None:
    assert similar(names) == pairs


def test_without_a_set_the_named_ones_are_listed() -> None:
    found = inspect_data()
    assert set(found.sets) == {"fashion-mnist", "cifar10"}
    assert found.data is None
