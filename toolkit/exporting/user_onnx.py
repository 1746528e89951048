"""A user's ONNX file made ready for a bundle: normalized, behind its preprocessing, and proved to be the same."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.contracts import Preprocessing, UInt8
from toolkit.data import dataset_from_spec
from toolkit.data.fit import SQUASH
from toolkit.data.model_images import ModelImages, Origin, images_of_dataset
from toolkit.errors import ExportError, ModelError, ToolkitError
from toolkit.exporting.options import UserModel
from toolkit.exporting.user_torch import labels_that_fit
from toolkit.graph.answer_end import Cut
from toolkit.graph.checks import require_portable, require_same_answers
from toolkit.graph.normal.folding import BatchError
from toolkit.graph.normalize import NormalizedGraph, normalized_from_file
from toolkit.graph.preprocessing import with_preprocessing
from toolkit.graph.user.floats import require_same_in_own_types
from toolkit.graph.user.runner import (
    Form,
    UserRunner,
    classes_of_file,
    form_of_file,
    preprocessing_of_pixels,
    with_images,
)
from toolkit.graph.user.trial import require_runs
from toolkit.graph.user_file import OnnxFile, onnx_from_file
from toolkit.models.card import Card
from toolkit.runtime.ort.runner import OrtRunner
from toolkit.version import __version__
from toolkit.workspace import require_name

if TYPE_CHECKING:
    import onnx

FAMILY = "onnx"
TRACED_AT = (1, 3, 4, 8, 16, 32, 64)  # batches that people trace networks at


@dataclass(frozen=True)
class Pixels:
    """What is said of a file's input.

    Attributes:
        mean, std: of pixels on `scale`; None for no normalization.
        scale: "0-1" or "0-255"; None is 0-1.
        layout: "nchw" or "nhwc"; None finds it.
        size: (H, W, C) for a file that leaves it open.
        bgr: the network wants blue first, and mean and std are in that order.
        output: which of several outputs holds the logits.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    scale: str | None = None
    layout: str | None = None
    size: tuple[int, int, int] | None = None
    bgr: bool = False
    output: str | None = None


@dataclass(frozen=True)
class Opened:
    """A file, normalized: uint8 `images` (batch, H, W, C) to `logits` (batch, classes).

    Attributes:
        graph: the portable fp32 graph with its preprocessing inside.
        classes: how many logits.
    """

    file: OnnxFile
    form: Form
    preprocessing: Preprocessing
    classes: int
    normalized: NormalizedGraph
    graph: onnx.ModelProto

    def require_same(self, images_nhwc: UInt8) -> dict[str, Any]:
        """Compares the graph with the file as it came, at batch 1, 7 and 64.

        Raises:
            ExportError: they answer differently.
        """
        with (
            UserRunner(self.file, self.normalized.reference, self.form, self.preprocessing) as user_runner,
            _runner(self) as ours,
        ):
            own = {"own_types": self._require_same_in_own_types(user_runner, images_nhwc)} if self.file.own else {}
            try:
                return require_same_answers(user_runner, ours, images_nhwc[:64]) | own
            except ExportError as error:
                if not self.form.batch:
                    raise
                raise _baked_in(self.file, self.form.batch, error.found) from error

    def _require_same_in_own_types(self, user_runner: UserRunner, images_nhwc: UInt8) -> dict[str, Any]:
        assert self.file.own is not None
        values = user_runner.values(images_nhwc[: self.form.batch or 64])
        if len(values) < self.form.batch or values.ndim != len(
            self.file.own.model.graph.input[0].type.tensor_type.shape.dim
        ):
            return {}
        return require_same_in_own_types(self.file.path, self.file.own, self.file.model, values)


def _runner(opened: Opened) -> OrtRunner:
    return OrtRunner(opened.graph.SerializeToString(), label="the normalized graph")


def _baked_in(file: OnnxFile, batch: int, found: Any) -> ModelError:
    ends = {value.name: {0: "batch"} for value in (file.model.graph.input[0], file.model.graph.output[0])}
    how = f": dynamic_axes={ends}" if file.exporter.startswith("pytorch") else ""
    return ModelError(
        f"{file.path} works for a batch of {batch} only", found=found, fix=f"export again with a dynamic batch{how}"
    )


def _asked(file: OnnxFile, form: Form) -> tuple[Form, int]:
    """The number of classes; the batch, too, of a file that says it takes any and works with the one it was traced at.

    Raises:
        ModelError: it cannot be run, or answers with something else than a row of logits.
    """
    try:
        return form, classes_of_file(file, form)
    except ModelError:
        for batch in () if form.batch else TRACED_AT:
            with contextlib.suppress(ModelError):
                only = replace(form, batch=batch)
                return only, classes_of_file(file, only)
        raise


def opened_from_file(path: Path, pixels: Pixels) -> Opened:
    """Reads and normalizes an fp32 classifier.

    Raises:
        ModelError, ToolkitError: see `onnx_from_file`, `form_of_file`, `preprocessing_of_pixels`,
            `normalized_from_file`. ExportError: TensorRT would read the graph wrongly.
    """
    file = with_images(onnx_from_file(path, pixels.output), pixels.layout, pixels.size)
    form = form_of_file(file, pixels.layout, pixels.size)
    scale = _scale_of(file, pixels)
    preprocessing = preprocessing_of_pixels(form, scale, pixels.mean, pixels.std, pixels.bgr)
    require_runs(path, file.model.SerializeToString(), form.shape(form.batch or 2))
    form, classes = _asked(file, form)
    try:
        normalized = normalized_from_file(file, form, classes)
    except BatchError as error:
        raise (_baked_in(file, form.batch, error.found) if form.batch else error) from error
    graph = with_preprocessing(normalized.graph, preprocessing, form.nchw)
    require_portable(graph)
    return Opened(file, form, preprocessing, classes, normalized, graph)


def _scale_of(file: OnnxFile, pixels: Pixels) -> str | None:
    """What was said of the pixels; a file that takes bytes says it itself.

    Raises:
        ToolkitError: nothing was said, or something else than the file says.
    """
    said = (pixels.mean, pixels.std, pixels.scale) != (None, None, None)
    if file.own is not None and file.own.takes_bytes:
        if said and (pixels.mean, pixels.std, pixels.scale) != (None, None, "0-255"):
            raise ToolkitError(
                f"{file.path} takes pixels as they are, uint8 from 0 to 255",
                found="`mean=`, `std=` or `pixels=`",
                fix="leave them out: what it does to its pixels is in the file",
            )
        return "0-255"
    if not said:
        raise ToolkitError(
            f"{file.path} does not say what its pixels are",
            found="no `mean=` and `std=`, no `pixels=`",
            allowed="the normalization of its training",
            fix="`mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)` is ImageNet's; `pixels='0-1'` alone is none",
        )
    return pixels.scale


@dataclass(frozen=True)
class OnnxModel:
    """What a bundle is made from, where there is no PyTorch.

    Attributes:
        graph: with the card in its metadata.
        checks: what was compared on the way, for the manifest.
        normalized: somebody said by what mean and std: ranges of the input must look like it.
        cut: the softmax that ended the file and is not in the graph.
    """

    card: Card
    graph: onnx.ModelProto
    checks: dict[str, Any]
    folder: Path
    normalized: bool
    decided: dict[str, str] = field(default_factory=dict)
    cut: Cut = field(default_factory=Cut)


def model_from_onnx(
    path: Path,
    data: str,
    user: UserModel,
    *,
    count: int | None = None,
    convert: bool = False,
    skip_bad: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    resize: str = SQUASH,
) -> tuple[OnnxModel, ModelImages]:
    """Normalizes the file, reads the images and proves that they belong together and that the answers stayed the same.

    Args:
        data: the images that calibrate and judge.
        count: calibration images; None takes up to 512.
        resize: how `convert` brings images of other proportions to the model's size.

    Raises:
        ModelError: the file cannot be used, or does not fit images and labels. ExportError: the normalized graph
            answers differently. DataError: the images cannot be used.
    """
    mean, std = (None if values is None else tuple(values) for values in (user.mean, user.std))
    pixels = Pixels(mean, std, user.pixels, user.layout, user.size, user.bgr, user.output_name)
    name = require_name(user.name or default_name(path))
    opened = opened_from_file(path, pixels)
    preprocessing = opened.preprocessing
    dataset = dataset_from_spec(
        data,
        shape=preprocessing.shape,
        convert=convert,
        skip_bad=skip_bad,
        on_progress=on_progress,
        resize=resize,
    )
    labels = labels_that_fit(user.labels, dataset, opened.classes, str(path))
    images = images_of_dataset(dataset, Origin(data, convert, resize, skip_bad), labels, name, count)
    checks = {"onnx_against_original": opened.require_same(images.evaluation.images_nhwc)}
    file = opened.file
    notes = [*([file.own.note] if file.own else []), *opened.normalized.notes]
    arch = {"family": FAMILY, "file": str(file.path.resolve()), "opset": file.opset, "exporter": file.exporter}
    card = Card(name, {**arch, "repairs": notes}, labels, preprocessing, file.sha256)
    decided = {
        "normalisation": "given",
        "labels": "given" if user.labels else f"the classes of {dataset.name}",
        "weights": f"{file.path.name}, opset {file.opset}" + (f", {file.exporter}" if file.exporter else ""),
        "repairs": "; ".join(notes) or "none needed",
    }
    _describe(opened.graph, card)
    folder = file.path.resolve().parent
    model = OnnxModel(card, opened.graph, checks, folder, pixels.mean is not None, decided, opened.normalized.cut)
    return model, images


def default_name(path: Path) -> str:
    """The file's name without its ending, with a dash for what no folder's name should have."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-.") or "model"


def _describe(graph: onnx.ModelProto, card: Card) -> None:
    """The card into the ONNX file's metadata, as for every other model."""
    from onnx import helper

    del graph.metadata_props[:]
    helper.set_model_props(
        graph,
        {
            "toolkit.version": __version__,
            "toolkit.model": card.name,
            "toolkit.weights_sha256": card.weights_sha256,
            "toolkit.labels": json.dumps(card.labels),
            "toolkit.preprocessing": json.dumps(card.preprocessing.as_dict()),
        },
    )
