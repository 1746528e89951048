"""Claims about the classes of images and the labels of a model: matched by name, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from toolkit.contracts import Dataset, LabeledImages
from toolkit.data import dataset_from_spec
from toolkit.data.model_images import (
    CALIBRATION,
    EVALUATION,
    MOST_EVALUATION_IMAGES,
    Origin,
    Recipe,
    images_from_dataset,
    images_from_folder,
    images_of_dataset,
    labeled_as,
    write_images,
)
from toolkit.errors import DataError, ToolkitError


def _images(*classes: str, count: int = 12, seed: int = 0) -> LabeledImages:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 1), dtype=np.uint8)
    return LabeledImages(pixels, np.arange(count, dtype=np.int64) % len(classes), classes, "a set")


def test_classes_in_another_order_are_counted_as_the_model_counts_them() -> None:
    images = _images("ant", "bee", "cat")
    found = labeled_as(images, ("cat", "ant", "dog", "bee"), "net")
    assert found.classes == ("cat", "ant", "dog", "bee")
    names = [found.classes[label] for label in found.labels]
    assert names == [images.classes[label] for label in images.labels]


def test_numbers_are_places_unless_the_model_has_them_as_names() -> None:
    assert labeled_as(_images("0", "1", "2"), ("cat", "ant", "dog"), "net").labels[:3].tolist() == [0, 1, 2]
    assert labeled_as(_images("0", "1", "2"), ("2", "1", "0"), "net").labels[:3].tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    ("classes", "labels"),
    [(("ant", "wolf"), ("ant", "bee")), (("0", "1", "2"), ("ant", "bee")), (("0", "2"), ("ant", "bee", "cat"))],
)
def test_a_class_that_the_model_lacks_is_refused(classes: tuple[str, ...], labels: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="has other classes than model 'net'"):
        labeled_as(_images(*classes), labels, "net")


def test_as_many_images_calibrate_as_there_are_different_ones() -> None:
    train = _images("ant", "bee")
    doubled = LabeledImages(np.repeat(train.images_nhwc, 2, axis=0), np.repeat(train.labels, 2), train.classes, "twice")
    found = images_of_dataset(
        Dataset("set", doubled, _images("ant", "bee", seed=1)), Origin("set"), train.classes, "net"
    )
    assert len(found.calibration) == found.recipe.images == 12


def test_a_recipe_without_images_draws_the_same_ones_again(tmp_path: Path) -> None:
    source = _images("ant", "bee", count=90)
    np.savez(tmp_path / "set.npz", images=source.images_nhwc, labels=source.labels, classes=np.array(source.classes))
    recipe = Recipe(str(tmp_path / "set.npz"), images=20, seed=7)
    drawn = images_from_dataset(dataset_from_spec(recipe.data), recipe, MOST_EVALUATION_IMAGES)
    write_images(tmp_path / "net", drawn)
    for name in (CALIBRATION, EVALUATION):
        (tmp_path / "net" / name).unlink()
    again = images_from_folder(tmp_path / "net")
    assert again.calibration.sha256 == drawn.calibration.sha256
    assert again.evaluation.sha256 == drawn.evaluation.sha256


def test_a_recipe_whose_set_is_not_here_says_what_brings_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_DATA", str(tmp_path))
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.toml").write_text(Recipe("cifar10").text())
    with pytest.raises(DataError, match="CIFAR-10 is not installed"):
        images_from_folder(tmp_path)


def test_one_image_file_without_the_other_is_damage_not_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(Recipe("cifar10").text())
    images = _images("ant", "bee")
    np.savez(tmp_path / EVALUATION, images=images.images_nhwc, labels=images.labels, classes=np.array(images.classes))
    with pytest.raises(ToolkitError, match=CALIBRATION):
        images_from_folder(tmp_path)
