"""What `toolkit calibrate` and `toolkit sensitivity` work on: an fp32 graph and the images that measure it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.bundle.graphs import fp32_graph_of_model
from toolkit.bundle.images import IMAGES, Recipe, images_of_model
from toolkit.contracts import LabelledImages, Preprocessing, preprocessing_from_dict, require_images
from toolkit.data import dataset_from_spec, sample
from toolkit.errors import DataError, ModelError
from toolkit.export.prepended import preprocessing_of_float_input, with_preprocessing
from toolkit.files import os_errors
from toolkit.lazy import needs

if TYPE_CHECKING:
    import onnx

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
    images: LabelledImages
    recipe: Recipe
    typed: Preprocessing | None = None


def subject_of(
    model: str | None,
    *,
    data: str | None = None,
    count: int | None = None,
    convert: bool = False,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    on_progress: Progress | None = None,
) -> Subject:
    """From a model's name or folder, or from an fp32 ONNX file.

    Args:
        mean, std: of an ONNX file with a float input, see `toolkit.export.prepended`.

    Raises:
        ModelError: no such model, or a file that does not say what it takes. DataError: no images that fit.
    """
    if model is not None and model.endswith(".onnx"):
        return _of_file(Path(model), data, count, convert, (mean, std), on_progress)
    if mean is not None or std is not None:
        raise ModelError("--mean and --std are for ONNX files with a float input", found=f"model {model}")
    with needs("load a model"):
        from toolkit.models.checkpoint import folder_of_model, load_model
    loaded = load_model(folder_of_model(model))
    card = loaded.card
    images = images_of_model(
        card.name, card.labels, card.preprocessing, data=data, count=count, convert=convert, on_progress=on_progress
    )
    return Subject(card.name, fp32_graph_of_model(loaded), card.preprocessing, images.calibration, images.recipe)


def _of_file(
    path: Path,
    data: str | None,
    count: int | None,
    convert: bool,
    normalisation: tuple[tuple[float, ...] | None, tuple[float, ...] | None],
    on_progress: Progress | None,
) -> Subject:
    graph, facts = graph_from_file(path)
    typed = None
    if facts:
        preprocessing = preprocessing_from_dict(facts["preprocessing"])
    else:
        preprocessing, nchw = preprocessing_of_float_input(graph, *normalisation)
        graph, typed = with_preprocessing(graph, preprocessing, nchw), preprocessing
        if data is None:
            raise DataError(f"there are no images to calibrate {path} with", fix="--data FOLDER or --data FILE.npz")
    if data is None:
        name, labels = str(facts["model"]), tuple(facts["labels"])
        found = images_of_model(name, labels, preprocessing, count=count, on_progress=on_progress)
        return Subject(path.stem, graph, preprocessing, found.calibration, found.recipe)
    dataset = dataset_from_spec(data, shape=preprocessing.shape, convert=convert, on_progress=on_progress)
    recipe = Recipe(data, min(count or IMAGES, len(dataset.train)))
    images = sample(dataset.train, recipe.images, recipe.seed)
    require_images(images.images_nhwc, preprocessing, str(path))
    return Subject(path.stem, graph, preprocessing, images, recipe, typed)


def graph_from_file(path: Path) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """An fp32 ONNX file and what its metadata says: model, labels, preprocessing; nothing for foreign files.

    Raises:
        ModelError: not ONNX, or quantised already.
    """
    with needs("read ONNX files"):
        import onnx
    with os_errors(path, "read"):
        content = path.read_bytes()
    try:
        graph = onnx.load_from_string(content)
        onnx.checker.check_model(graph)
    except Exception as error:  # protobuf and the checker raise types of their own
        raise ModelError(f"{path} is not a whole ONNX file", found=str(error).splitlines()[0][:200]) from error
    if any(node.op_type == "QuantizeLinear" for node in graph.graph.node):
        raise ModelError(f"{path} is quantised already", allowed="the fp32 file", fix="use the bundle's model.onnx")
    properties = {entry.key: entry.value for entry in graph.metadata_props}
    if "toolkit.preprocessing" not in properties:
        return graph, {}
    preprocessing, labels = (json.loads(properties.get(f"toolkit.{key}", "[]")) for key in ("preprocessing", "labels"))
    return graph, {
        "model": properties.get("toolkit.model", path.stem),
        "preprocessing": preprocessing,
        "labels": labels,
    }
