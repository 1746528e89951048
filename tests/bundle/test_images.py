"""Claims about the classes of images and the labels of a model: matched by name, or refused."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.bundle.images import images_of_dataset, labelled_as
from toolkit.contracts import Dataset, LabelledImages
from toolkit.errors import DataError


def _images(*classes: str, count: int = 12, seed: int = 0) -> LabelledImages:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 1), dtype=np.uint8)
    return LabelledImages(pixels, np.arange(count, dtype=np.int64) % len(classes), classes, "a set")


def test_classes_in_another_order_are_counted_as_the_model_counts_them() -> None:
    images = _images("ant", "bee", "cat")
    found = labelled_as(images, ("cat", "ant", "dog", "bee"), "net")
    assert found.classes == ("cat", "ant", "dog", "bee")
    names = [found.classes[label] for label in found.labels]
    assert names == [images.classes[label] for label in images.labels]


def test_numbers_are_places_unless_the_model_has_them_as_names() -> None:
    assert labelled_as(_images("0", "1", "2"), ("cat", "ant", "dog"), "net").labels[:3].tolist() == [0, 1, 2]
    assert labelled_as(_images("0", "1", "2"), ("2", "1", "0"), "net").labels[:3].tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    ("classes", "labels"),
    [(("ant", "wolf"), ("ant", "bee")), (("0", "1", "2"), ("ant", "bee")), (("0", "2"), ("ant", "bee", "cat"))],
)
def test_a_class_that_the_model_lacks_is_refused(classes: tuple[str, ...], labels: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="has other classes than model 'net'"):
        labelled_as(_images(*classes), labels, "net")


def test_as_many_images_calibrate_as_there_are_different_ones() -> None:
    train = _images("ant", "bee")
    doubled = LabelledImages(
        np.repeat(train.images_nhwc, 2, axis=0), np.repeat(train.labels, 2), train.classes, "twice"
    )
    found = images_of_dataset(Dataset("set", doubled, _images("ant", "bee", seed=1)), "set", train.classes, "net")
    assert len(found.calibration) == found.recipe.images == 12
