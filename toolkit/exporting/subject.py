"""What is exported, calibrated or examined: a model and the images that go with it, whoever made it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.bundle.onnx_bytes import has_external_data
from toolkit.bundle.reading import bundle_from_folder
from toolkit.bundle.requirements import requirement
from toolkit.contracts import LabeledImages, Preprocessing, UInt8, preprocessing_from_dict, require_images
from toolkit.data import dataset_from_spec, sample
from toolkit.data.fit import SQUASH
from toolkit.data.model_images import (
    IMAGES,
    ModelImages,
    Origin,
    Recipe,
    images_from_origin,
    images_of_model,
    origin_from_dict,
)
from toolkit.errors import BundleError, ModelError, ToolkitError
from toolkit.exporting.artifacts import fp32_graph_of_model
from toolkit.exporting.options import PathLike, UserModel
from toolkit.exporting.user_onnx import OnnxModel, model_from_onnx
from toolkit.exporting.user_torch import model_from_builder
from toolkit.graph.user.bounds import require_bounded
from toolkit.graph.user.trial import require_runs
from toolkit.lazy import needs
from toolkit.models.card import CARD, card_from_folder
from toolkit.storage.files import content_of, from_json, read_json, read_onnx
from toolkit.storage.limits import FILE_BYTES
from toolkit.workspace import MANIFEST, find_in_room, is_name

if TYPE_CHECKING:
    import onnx

    from toolkit.models.checkpoint import LoadedModel

PREPROCESSING = "toolkit.preprocessing"  # in the metadata of every file that the toolkit wrote
ARRAY = "an array"  # the source of images that lie in memory
IMAGES_WANTED = "images to calibrate with and to judge on"


@dataclass(frozen=True)
class Subject:
    """A graph with its preprocessing inside, its calibration images, and the recipe that goes with them.

    Attributes:
        typed: the preprocessing again, where a user said it and no card.
    """

    name: str
    graph: onnx.ModelProto
    preprocessing: Preprocessing
    images: LabeledImages
    recipe: Recipe
    typed: Preprocessing | None = None


def model_with_images(
    model: PathLike | None, data: PathLike | None, user: UserModel | None, reading: dict[str, Any]
) -> tuple[LoadedModel | OnnxModel, ModelImages]:
    """A model of the workspace, or a network or ONNX file of the user's, and the images that go with it.

    Args:
        reading: as `CalibrateOptions.reading` gives it.

    Raises:
        ToolkitError: there is no such model, its images do not fit, or `user` says what only another kind leaves open.
    """
    name, spec = (None if value is None else os.fspath(value) for value in (model, data))
    user = user or UserModel()
    if name is not None and name.endswith(".onnx"):
        _refuse(user, ("checkpoint", "kwargs", "weights"), "does not go with an ONNX file", name)
        return model_from_onnx(Path(name), _data(name, spec), user, **resized(reading))
    with needs("load a model"):
        from toolkit.models.checkpoint import folder_of_model, load_model
        from toolkit.models.import_path import is_import_path

    if name is not None and is_import_path(name):
        _refuse(user, ("pixels", "layout", "output_name"), "is for an ONNX file", name)
        spec = _data(name, spec)
        if user.checkpoint is None:
            raise ToolkitError(
                f"{name} needs `checkpoint=`", found="no `checkpoint=`", fix="`checkpoint='weights.pth'`"
            )
        return model_from_builder(name, Path(user.checkpoint), spec, user, **resized(reading))
    folder = folder_of_model(name)
    _refuse(user, user.said(), "belongs to a network of your own", name or "the shipped default")
    loaded = load_model(folder)
    card = loaded.card
    return loaded, images_of_model(
        card.name, card.labels, card.preprocessing, data=spec, **resized(reading, card.resize)
    )


def resized(reading: dict[str, Any], own: str = SQUASH) -> dict[str, Any]:
    """The same, with the model's own way to resize where no other was asked for."""
    return {**reading, "resize": reading["resize"] or own}


def _refuse(user: UserModel, names: Any, why: str, model: str) -> None:
    """A model folder has all of this in its card, and a file has no constructor: what is ignored would be a trap."""
    given = [f"`{name}=`" for name in user.said() if name in names]
    if given:
        raise ToolkitError(
            f"{', '.join(given)} {why}",
            found=model,
            allowed="a network of your own is an import path, package.module:build, or a FILE.onnx",
            fix="leave it out",
        )


def _data(model: str, data: str | None) -> str:
    if Path(model).suffix == ".onnx" and not Path(model).exists():
        raise ToolkitError(f"cannot read {model}", found="it does not exist", fix="check the path")
    if data is None:
        fix = "`data=FOLDER` (or FILE.npz, cifar10, fashion-mnist)"
        raise ToolkitError(f"{model} needs `data=`", found="no `data=`", allowed=IMAGES_WANTED, fix=fix)
    return data


def subject_of(
    model: PathLike | None, images: PathLike | UInt8 | None, user: UserModel | None, reading: dict[str, Any]
) -> Subject:
    """What to measure: any model as above, or a bundle's fp32 ONNX file.

    Args:
        images: a named set, a folder, an .npz, or uint8 (N, H, W, C); None takes the model's own.

    Raises:
        ToolkitError: as above, or the file is quantized, or an array for a model that says no labels.
    """
    if model is not None and is_file_of_a_bundle(model):
        if user is not None:
            _refuse(user, user.said(), "is in a bundle's file already", os.fspath(model))
        return _of_bundles_file(Path(model), images, reading)
    if isinstance(images, np.ndarray):
        return _of_array(model, images, user, reading)
    made, found = model_with_images(model, images, user, reading)
    if isinstance(made, OnnxModel):
        typed = made.card.preprocessing if made.normalized else None
        return Subject(made.card.name, made.graph, made.card.preprocessing, found.calibration, found.recipe, typed)
    graph = fp32_graph_of_model(made)
    return Subject(made.card.name, graph, made.card.preprocessing, found.calibration, found.recipe)


def _of_array(model: PathLike | None, images: UInt8, user: UserModel | None, reading: dict[str, Any]) -> Subject:
    """A model of the workspace: its card says what the images must look like."""
    with needs("load a model"):
        from toolkit.models.checkpoint import folder_of_model, load_model
        from toolkit.models.import_path import is_import_path

    name = None if model is None else os.fspath(model)
    if user is not None or (name is not None and (name.endswith(".onnx") or is_import_path(name))):
        raise ToolkitError(
            "a network of your own takes images with labels: it is judged before it is calibrated",
            found=ARRAY,
            allowed="a named set, a folder of class folders, or an .npz file",
        )
    loaded = load_model(folder_of_model(name))
    card = loaded.card
    chosen, recipe = _drawn(images, card.labels, card.preprocessing, f"model '{card.name}'", reading)
    return Subject(card.name, fp32_graph_of_model(loaded), card.preprocessing, chosen, recipe)


def _drawn(
    images: UInt8, labels: tuple[str, ...], preprocessing: Preprocessing, who: str, reading: dict[str, Any]
) -> tuple[LabeledImages, Recipe]:
    """The images of an array that calibrate; nothing reads their labels."""
    require_images(images, preprocessing, who)
    whole = LabeledImages(images, np.zeros(len(images), np.int64), labels, ARRAY)
    recipe = Recipe(ARRAY, min(reading["count"] or IMAGES, len(whole)))
    return sample(whole, recipe.images, recipe.seed), recipe


def _of_bundles_file(path: Path, data: PathLike | UInt8 | None, reading: dict[str, Any]) -> Subject:
    if (wanted := requirement()).keys and (path.parent / MANIFEST).is_file():
        bundle_from_folder(path.parent, wanted=wanted)
    graph = _graph_from_file(path)
    properties = {entry.key: entry.value for entry in graph.metadata_props}
    try:
        preprocessing = preprocessing_from_dict(from_json(properties[PREPROCESSING]))
        labels = tuple(str(label) for label in from_json(properties.get("toolkit.labels", "[]")))
    except (ValueError, TypeError) as error:
        raise ModelError(
            f"{path} does not say its preprocessing and labels as the toolkit does", found=error
        ) from error
    require_runs(path, graph.SerializeToString(), (2, *preprocessing.shape), "uint8")
    name = properties.get("toolkit.model", path.stem)
    if data is None:
        images = _images_of_export(path, name, labels, preprocessing, reading)
        return Subject(path.stem, graph, preprocessing, images.calibration, images.recipe)
    if isinstance(data, np.ndarray):
        return Subject(path.stem, graph, preprocessing, *_drawn(data, labels, preprocessing, str(path), reading))
    origin = origin_of_file(path)
    reading = resized(reading, SQUASH if origin is None else origin.resize)
    count = reading.pop("count")
    dataset = dataset_from_spec(os.fspath(data), shape=preprocessing.shape, **reading)
    recipe = Recipe(os.fspath(data), min(count or IMAGES, len(dataset.train)))
    chosen = sample(dataset.train, recipe.images, recipe.seed)
    require_images(chosen.images_nhwc, preprocessing, str(path))
    return Subject(path.stem, graph, preprocessing, chosen, recipe)


def _images_of_export(
    path: Path, name: str, labels: tuple[str, ...], preprocessing: Preprocessing, reading: dict[str, Any]
) -> ModelImages:
    """Those of the export, where the manifest beside the file says where they are; else the model's.

    Raises:
        DataError: there are none.
    """
    origin = origin_of_file(path)
    if origin is None or not origin.is_there:
        return images_of_model(name, labels, preprocessing, **resized(reading))
    wanted = replace(origin, calibration_images=reading["count"] or origin.calibration_images)
    return images_from_origin(wanted, preprocessing.shape, labels, name)


def origin_of_file(path: PathLike) -> Origin | None:
    """Where the images of a bundle's export came from, as the manifest beside its file says."""
    beside = Path(path).parent / MANIFEST
    evaluation = read_json(beside, BundleError).get("evaluation") if beside.is_file() else None
    return origin_from_dict((evaluation or {}).get("read"))


def workspace_model_of(path: PathLike) -> str | None:
    """The model in models/ that a bundle's file was made of: the same weights under its name; None where none is."""
    properties = {entry.key: entry.value for entry in _loaded(Path(path)).metadata_props}
    name, weights = properties.get("toolkit.model", ""), properties.get("toolkit.weights_sha256")
    folder = find_in_room("models", name) if is_name(name) else None
    if folder is None or not (folder / CARD).is_file():
        return None
    return name if card_from_folder(folder).weights_sha256 == weights else None


def is_file_of_a_bundle(model: PathLike) -> bool:
    """Whether this is an ONNX file that the toolkit wrote.

    Raises:
        ModelError: not a whole ONNX file. ToolkitError: it cannot be read.
    """
    path = Path(model)
    return path.suffix == ".onnx" and any(entry.key == PREPROCESSING for entry in _loaded(path).metadata_props)


def _loaded(path: Path) -> onnx.ModelProto:
    """A file that has all its weights in it, counted before it is parsed."""
    content = content_of(path, FILE_BYTES, ModelError)
    if has_external_data(content, ModelError):
        raise ModelError(f"{path} keeps weights in another file", allowed="a file of a bundle, which has all in it")
    return read_onnx(content)


def _graph_from_file(path: Path) -> onnx.ModelProto:
    """A bundle's fp32 graph, tried like anybody's: who writes a file can write that the toolkit did; not quantized."""
    import onnx

    graph = _loaded(path)
    require_bounded(path, graph)
    try:
        onnx.checker.check_model(graph)
    except onnx.checker.ValidationError as error:
        raise ModelError(f"{path} is not a whole ONNX file", found=str(error).splitlines()[0][:200]) from error
    if any(node.op_type == "QuantizeLinear" for node in graph.graph.node):
        raise ModelError(f"{path} is quantized already", allowed="the fp32 file", fix="use the bundle's model.onnx")
    return graph
