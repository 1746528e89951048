"""What `toolkit calibrate` and `toolkit sensitivity` work on: an fp32 graph and the images that measure it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.contracts import LabeledImages, Preprocessing, preprocessing_from_dict, require_images
from toolkit.data import dataset_from_spec, sample
from toolkit.data.model_images import IMAGES, Recipe, images_of_model
from toolkit.errors import ModelError
from toolkit.exporting.artifacts import fp32_graph_of_model
from toolkit.exporting.user_onnx import OnnxRequest, model_from_onnx
from toolkit.files import os_errors
from toolkit.lazy import needs

if TYPE_CHECKING:
    import onnx

PREPROCESSING = "toolkit.preprocessing"  # in the metadata of every file that the toolkit wrote
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Subject:
    """A graph with its preprocessing inside, its calibration images, and the recipe that goes with them.

    Attributes:
        typed: the preprocessing again, where it comes from the command line and not from a card.
    """

    name: str
    graph: onnx.ModelProto
    preprocessing: Preprocessing
    images: LabeledImages
    recipe: Recipe
    typed: Preprocessing | None = None


def subject_of(
    model: str | None,
    *,
    data: str | None = None,
    count: int | None = None,
    convert: bool = False,
    skip_bad: bool = False,
    on_progress: Progress | None = None,
) -> Subject:
    """From a model's name or folder, or from a bundle's fp32 ONNX file.

    Raises:
        ModelError: no such model, or no fp32 file. DataError: no images that fit.
    """
    reading: Any = {"count": count, "convert": convert, "skip_bad": skip_bad, "on_progress": on_progress}
    if model is not None and model.endswith(".onnx"):
        return _of_bundles_file(Path(model), data, reading)
    with needs("load a model"):
        from toolkit.models.checkpoint import folder_of_model, load_model
    loaded = load_model(folder_of_model(model))
    card = loaded.card
    images = images_of_model(card.name, card.labels, card.preprocessing, data=data, **reading)
    return Subject(card.name, fp32_graph_of_model(loaded), card.preprocessing, images.calibration, images.recipe)


def subject_of_user_file(request: OnnxRequest, **reading: Any) -> Subject:
    """From somebody else's ONNX file, exactly as `toolkit export` takes it, so that export takes the record.

    Args:
        reading: as of `toolkit.exporting.user_onnx.model_from_onnx`.

    Raises:
        ToolkitError: see `model_from_onnx`.
    """
    made, images = model_from_onnx(request, **reading)
    typed = made.card.preprocessing if made.normalized else None
    return Subject(made.card.name, made.graph, made.card.preprocessing, images.calibration, images.recipe, typed)


def _of_bundles_file(path: Path, data: str | None, reading: dict[str, Any]) -> Subject:
    graph = _graph_from_file(path)
    properties = {entry.key: entry.value for entry in graph.metadata_props}
    preprocessing = preprocessing_from_dict(json.loads(properties[PREPROCESSING]))
    name, labels = properties.get("toolkit.model", path.stem), json.loads(properties.get("toolkit.labels", "[]"))
    if data is None:
        images = images_of_model(name, tuple(labels), preprocessing, **reading)
        return Subject(path.stem, graph, preprocessing, images.calibration, images.recipe)
    count = reading.pop("count")
    dataset = dataset_from_spec(data, shape=preprocessing.shape, **reading)
    recipe = Recipe(data, min(count or IMAGES, len(dataset.train)))
    chosen = sample(dataset.train, recipe.images, recipe.seed)
    require_images(chosen.images_nhwc, preprocessing, str(path))
    return Subject(path.stem, graph, preprocessing, chosen, recipe)


def is_user_file(model: str) -> bool:
    """Whether this is an ONNX file that the toolkit did not write.

    Raises:
        ModelError: not a whole ONNX file. ToolkitError: it cannot be read.
    """
    if not model.endswith(".onnx"):
        return False
    return all(entry.key != PREPROCESSING for entry in _loaded(Path(model)).metadata_props)


def _loaded(path: Path) -> onnx.ModelProto:
    with needs("read ONNX files"):
        import onnx
    with os_errors(path, "read"):
        content = path.read_bytes()
    try:
        return onnx.load_from_string(content)
    except Exception as error:  # protobuf raises types of its own
        raise ModelError(f"{path} is not a whole ONNX file", found=str(error).splitlines()[0][:200]) from error


def _graph_from_file(path: Path) -> onnx.ModelProto:
    """A bundle's fp32 graph; a quantized one is refused."""
    import onnx

    graph = _loaded(path)
    try:
        onnx.checker.check_model(graph)
    except onnx.checker.ValidationError as error:
        raise ModelError(f"{path} is not a whole ONNX file", found=str(error).splitlines()[0][:200]) from error
    if any(node.op_type == "QuantizeLinear" for node in graph.graph.node):
        raise ModelError(f"{path} is quantized already", allowed="the fp32 file", fix="use the bundle's model.onnx")
    return graph
