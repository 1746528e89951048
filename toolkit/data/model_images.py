"""The images of a model: which calibrate it and which evaluate it, kept in `calibration/<name>/`, never the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.contracts import Dataset, LabeledImages, Preprocessing, require_images
from toolkit.data import dataset_from_spec, require_disjoint, sample, without_shared
from toolkit.data.fit import SQUASH
from toolkit.data.source import NAMED
from toolkit.errors import CalibrationError, DataError
from toolkit.storage.files import content_of, read_toml
from toolkit.storage.folders import folder_replaced
from toolkit.storage.limits import FILE_BYTES
from toolkit.storage.npz import arrays_of_npz, most_of_images
from toolkit.workspace import find_in_room

RECIPE = "recipe.toml"
CALIBRATION, EVALUATION = "calibration.npz", "evaluation.npz"
OWN = (
    RECIPE,
    CALIBRATION,
    EVALUATION,
    "record.json",
)  # of a model's folder; the record is what fake quantization learned
IMAGES = 512
MOST_EVALUATION_IMAGES = 2000


@dataclass(frozen=True)
class Recipe:
    """How ranges are measured; what people write in `recipe.toml`.

    Attributes:
        data: what `--data` was, as it was typed.
        images: how many training images calibrate.
        method: "auto", "minmax", "percentile", "mse" or "entropy".
    """

    data: str
    images: int = IMAGES
    seed: int = 0
    method: str = "auto"
    percentile: float = 99.99

    def text(self) -> str:
        """The TOML document; JSON strings are TOML strings."""
        return (
            "# How the ranges of this model are measured. calibration.npz holds training images, evaluation.npz test\n"
            "# images; no image is in both.\n"
            f"data = {json.dumps(self.data)}\nimages = {self.images}\nseed = {self.seed}\n"
            f"method = {json.dumps(self.method)}\npercentile = {self.percentile!r}\n"
        )


@dataclass(frozen=True)
class Origin:
    """Where images came from and how they were read: enough to read them again.

    Attributes:
        data: a named set, or the whole path of a folder or file.
        calibration_images, seed: how the calibration images were drawn, which may not judge.
    """

    data: str
    convert: bool = False
    resize: str = SQUASH
    skip_bad: bool = False
    calibration_images: int = IMAGES
    seed: int = 0

    @property
    def is_there(self) -> bool:
        """Whether there is something to read."""
        return self.data in NAMED or Path(self.data).exists()


def whole_spec(data: str) -> str:
    """What `--data` named, for other working directories."""
    return data if data in NAMED else str(Path(data).expanduser().resolve())


def origin_from_dict(values: Any) -> Origin | None:
    """The inverse of `dataclasses.asdict`; None where a later version wrote something else."""
    try:
        return Origin(**values)
    except TypeError:
        return None


@dataclass(frozen=True)
class ModelImages:
    """Disjoint sets: one measures ranges, one judges; and the recipe that goes with them.

    Attributes:
        skipped: damaged files that were left out on request, each with the reason.
        origin: where they were, unless they are a model's own, in `calibration/<name>/`.
        notes: what was done to them, in sentences.
    """

    calibration: LabeledImages
    evaluation: LabeledImages
    recipe: Recipe
    skipped: tuple[str, ...] = ()
    origin: Origin | None = None
    notes: tuple[str, ...] = ()


def images_from_dataset(dataset: Dataset, recipe: Recipe, most_evaluation: int | None = None) -> ModelImages:
    """Draws calibration images from the training part; the test part, or a draw of it, evaluates.

    Test images that also occur among the calibration images are left out of the evaluation.
    """
    calibration = sample(dataset.train, recipe.images, recipe.seed)
    evaluation = without_shared(dataset.test, calibration)
    if most_evaluation is not None:
        different = len({image.tobytes() for image in evaluation.images_nhwc})
        evaluation = sample(evaluation, min(most_evaluation, different), recipe.seed)
    require_disjoint(calibration, evaluation)
    return ModelImages(calibration, evaluation, recipe)


def write_images(folder: Path, images: ModelImages) -> None:
    """Writes recipe and images of a model together, or nothing."""
    with folder_replaced(folder, RECIPE, OWN.__contains__) as fresh:
        (fresh / RECIPE).write_text(images.recipe.text())
        for name, part in ((CALIBRATION, images.calibration), (EVALUATION, images.evaluation)):
            np.savez_compressed(
                fresh / name, images=part.images_nhwc, labels=part.labels, classes=np.array(part.classes)
            )


def recipe_from_file(path: Path) -> Recipe:
    """Reads `recipe.toml`.

    Raises:
        CalibrationError: not TOML, an unknown entry, or a value of the wrong type.
    """
    values = read_toml(path, CalibrationError)
    try:
        recipe = Recipe(**values)
        return Recipe(
            str(recipe.data), int(recipe.images), int(recipe.seed), str(recipe.method), float(recipe.percentile)
        )
    except (TypeError, ValueError) as error:
        raise CalibrationError(
            f"{path} is not a recipe", found=error, allowed="data, images, seed, method, percentile"
        ) from error


def images_from_folder(folder: Path) -> ModelImages:
    """Reads what `write_images` wrote; a recipe without images draws the same ones again from the set that it names.

    A set that may not be passed on (CIFAR-10 has no license) travels as its recipe.

    Raises:
        DataError: an image file cannot be read, or the recipe's set is not installed.
    """
    recipe = recipe_from_file(folder / RECIPE)
    if not any((folder / name).exists() for name in (CALIBRATION, EVALUATION)):
        return images_from_dataset(dataset_from_spec(recipe.data), recipe, MOST_EVALUATION_IMAGES)
    parts = [_images_from_npz(folder / name, folder.name) for name in (CALIBRATION, EVALUATION)]
    require_disjoint(*parts)
    return ModelImages(parts[0], parts[1], recipe)


def _images_from_npz(path: Path, name: str) -> LabeledImages:
    content = content_of(path, FILE_BYTES, DataError)
    fix = "restore the file from its source"
    arrays = arrays_of_npz(content, most_of_images(len(content.data)), DataError, fix)
    try:
        classes = tuple(str(label) for label in arrays["classes"])
        return LabeledImages(arrays["images"], arrays["labels"], classes, f"{name}/{path.name}")
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read", found=error, fix=fix) from error


def images_of_model(
    name: str,
    labels: tuple[str, ...],
    preprocessing: Preprocessing,
    *,
    data: str | None = None,
    count: int | None = None,
    convert: bool = False,
    skip_bad: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    resize: str = SQUASH,
) -> ModelImages:
    """The images that belong to a model: from `data` where given, else from `calibration/<name>/`.

    Args:
        count: calibration images to use; None takes the recipe's.
        skip_bad: leave damaged files of `data` out, instead of refusing it.

    Raises:
        DataError: there are none, they have another shape, other classes, or too few are there.
    """
    folder = find_in_room("calibration", name)
    if data is not None:
        dataset = dataset_from_spec(
            data,
            shape=preprocessing.shape,
            convert=convert,
            skip_bad=skip_bad,
            on_progress=on_progress,
            resize=resize,
        )
        images = images_of_dataset(dataset, Origin(data, convert, resize, skip_bad), labels, name, count)
    elif folder is not None:
        images = images_from_folder(folder)
        if count is not None and count != len(images.calibration):
            images = ModelImages(
                sample(images.calibration, count, images.recipe.seed), images.evaluation, images.recipe
            )
    else:
        raise DataError(
            f"there are no images to calibrate and evaluate '{name}' with",
            found=f"no calibration/{name}/ in the workspace",
            fix="`data='fashion-mnist'`, `data='cifar10'`, `data=FOLDER` or `data='FILE.npz'`",
        )
    for part in (images.calibration, images.evaluation):
        require_images(part.images_nhwc, preprocessing, f"model '{name}'")
    require_labels(images.evaluation, labels, name)
    return images


def images_of_dataset(
    dataset: Dataset, origin: Origin, labels: tuple[str, ...], name: str, count: int | None = None
) -> ModelImages:
    """Draws `count` calibration images, or as many as there are different ones up to `IMAGES`; see `labeled_as`."""
    dataset = replace(
        dataset,
        train=labeled_as(dataset.train, labels, name),
        test=labeled_as(dataset.test, labels, name),
    )
    different = len({image.tobytes() for image in dataset.train.images_nhwc})
    images = images_from_dataset(dataset, Recipe(origin.data, count or min(IMAGES, different)))
    recipe = images.recipe
    origin = replace(origin, data=whole_spec(origin.data), calibration_images=recipe.images, seed=recipe.seed)
    return replace(images, skipped=dataset.skipped, origin=origin, notes=dataset.notes)


def images_from_origin(origin: Origin, shape: tuple[int, int, int], labels: tuple[str, ...], name: str) -> ModelImages:
    """The same images once more: equal ones have an equal sha256.

    Raises:
        DataError: they are not there, or are no longer such images.
    """
    dataset = dataset_from_spec(
        origin.data, shape=shape, convert=origin.convert, skip_bad=origin.skip_bad, resize=origin.resize
    )
    return images_of_dataset(dataset, origin, labels, name, origin.calibration_images)


def labeled_as(images: LabeledImages, labels: tuple[str, ...], name: str) -> LabeledImages:
    """The same images with their labels counted in a model's classes, by name.

    A set may lack some of the classes, and have them in another order: folders are sorted by name, a model's logits
    stand as they were trained. Classes that are mere numbers are places among the logits.

    Raises:
        DataError: the set has a class that the model lacks.
    """
    if images.classes == labels:
        return images
    if not set(images.classes) <= set(labels):
        numbered = tuple(map(str, range(len(images.classes))))
        if images.classes != numbered or len(numbered) > len(labels):
            require_labels(images, labels, name)
        return LabeledImages(images.images_nhwc, images.labels, labels, images.source)
    places = np.array([labels.index(label) for label in images.classes], np.int64)
    return LabeledImages(images.images_nhwc, places[images.labels], labels, images.source)


def require_labels(images: LabeledImages, labels: tuple[str, ...], name: str) -> None:
    """Refuses images whose classes are not the model's: accuracy would be of something else."""
    if images.classes != labels:
        raise DataError(
            f"{images.source} has other classes than model '{name}'",
            found=", ".join(images.classes[:12]),
            allowed=", ".join(labels[:12]),
            fix="use the images that the model was trained for",
        )
