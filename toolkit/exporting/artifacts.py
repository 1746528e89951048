"""The graph of every precision of a bundle: one export, one calibration, every artifact that follows from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.bundle.manifest import VARIANTS
from toolkit.calibration.plausibility import require_plausible
from toolkit.calibration.ranges import ranges_from_images, require_complete
from toolkit.calibration.record import (
    OBSERVER_VERSION,
    Record,
    sha256_of_graph,
    sha256_of_image_set,
    sha256_of_preprocessing,
)
from toolkit.contracts import Preprocessing
from toolkit.data.model_images import ModelImages
from toolkit.errors import CalibrationError, ExportError
from toolkit.exporting.fp32 import Fp32, Said, fp32_of_graph, require_right
from toolkit.exporting.readings import CARD, ONNX, TORCH
from toolkit.exporting.user_onnx import OnnxModel
from toolkit.graph.answer_end import Cut, cut_to_logits
from toolkit.graph.checks import (
    HALF_TOLERANCE,
    RELATIVE_TOLERANCE,
    computes_in_half,
    require_portable,
    require_same_answers,
)
from toolkit.graph.fp16 import fp16_from_onnx, require_fits_fp16
from toolkit.graph.from_torch import onnx_from_torch
from toolkit.graph.int8_layers import Int8Share, share_in_int8
from toolkit.graph.qdq_placement import layers_in_graph
from toolkit.quantization.calib_cache import JETPACK_6_TENSORRT, cache_from_ranges
from toolkit.quantization.choose_method import Choice, ranges_by_parity
from toolkit.quantization.held_out import held_out
from toolkit.quantization.ort_cpu import cpu_from_ranges
from toolkit.quantization.qdq import qdq_from_ranges
from toolkit.quantization.sensitivity import Budget, keep_float_within, sensitivities_of_layers
from toolkit.runtime.ort.runner import OrtRunner
from toolkit.runtime.pytorch import TorchRunner
from toolkit.target import Target
from toolkit.version import __version__

if TYPE_CHECKING:
    import onnx

    from toolkit.models.checkpoint import LoadedModel

Step = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Options:
    """What goes into a bundle.

    Attributes:
        int8: every INT8 artifact: the Q/DQ files, the CPU form and the calib.cache.
        method, percentile: how ranges are measured, unless `record` has them already.
        max_drop: points of agreement with fp32 that INT8 may lose; layers stay in float until it does not.
        force: go on although images or answers look wrong.
        expect_top1: the percentage of the images that judge that fp32 must be right on.
        target: what engines are built for, where a TensorRT of its kind can build here; None builds none.
        tensorrt_version: (major, minor, patch) that the `calib.cache` is for; () is JetPack 6.1's.
    """

    fp16: bool = False
    int8: bool = False
    method: str = "auto"
    percentile: float = 99.99
    record: Record | None = None
    max_drop: float | None = None
    force: bool = False
    target: Target | None = None
    tensorrt_version: tuple[int, ...] = ()
    expect_top1: float | None = None


@dataclass
class Graphs:
    """What a bundle is made of, before anything is written.

    Attributes:
        onnx: by precision, fp32 first.
        left_out: precisions that this model cannot have, with the reason.
        facts: what was checked on the way.
        share: how much of the network the INT8 files compute in INT8.
        fp32: what the fp32 graph answers to the images that judge.
        cut: the softmax that ended the network and is in no graph.
    """

    onnx: dict[str, onnx.ModelProto]
    facts: dict[str, Any]
    fp32: Fp32
    cut: Cut = field(default_factory=Cut)
    record: Record | None = None
    choice: Choice | None = None
    budget: Budget | None = None
    calib_cache: str = ""
    share: Int8Share | None = None
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def keep_float(self) -> frozenset[str]:
        """Layers that the budget keeps out of INT8."""
        return frozenset() if self.budget is None else self.budget.keep_float


def fp32_graph_of_model(model: LoadedModel) -> onnx.ModelProto:
    """The portable fp32 graph with the card in its metadata, which answers with logits."""
    graph = _exported(model)
    cut_softmax(graph, model.card.preprocessing)
    require_portable(graph)
    return graph


def cut_softmax(graph: onnx.ModelProto, preprocessing: Preprocessing) -> Cut:
    """Strips a softmax at the end of a graph that takes uint8 images, in place."""
    noise = np.random.default_rng(0).integers(0, 256, (8, *preprocessing.shape), dtype=np.uint8)
    smooth = np.linspace(0, 255, 8, dtype=np.uint8).reshape(8, 1, 1, 1) // 2 + noise // 2
    return cut_to_logits(graph, [noise, smooth])


def _exported(model: LoadedModel) -> onnx.ModelProto:
    card = model.card
    metadata = {
        "toolkit.version": __version__,
        "toolkit.model": card.name,
        "toolkit.weights_sha256": card.weights_sha256,
        "toolkit.labels": json.dumps(card.labels),
        "toolkit.preprocessing": json.dumps(card.preprocessing.as_dict()),
    }
    return onnx_from_torch(model.classifier, card.preprocessing, metadata)


def graphs_of_model(model: LoadedModel | OnnxModel, images: ModelImages, options: Options, on_step: Step) -> Graphs:
    """Exports, measures and quantizes.

    Raises:
        ExportError: a graph would not be the same model. CalibrationError: images or a record that do not fit, or a
            budget that INT8 cannot meet.
    """
    if isinstance(model, OnnxModel):
        graph, facts, cut = model.graph, dict(model.checks), model.cut
    else:
        graph = _exported(model)
        facts = {"onnx_against_torch": _same_as_torch(model, graph, images)}
        cut = cut_softmax(graph, model.card.preprocessing)
        require_portable(graph)
    fp32 = fp32_of_graph(graph, model.card.preprocessing, images, _said(model, options, bool(cut.operators)), on_step)
    require_right(fp32, options.force)
    made = Graphs({"fp32": graph}, {**facts, "fp32": fp32.as_dict()}, fp32, cut)
    if options.fp16 or options.int8:
        _measure(made, model, images, options, on_step)
    if options.fp16:
        assert made.record is not None
        require_fits_fp16(graph, made.record.largest)
        made.onnx["fp16"] = fp16_from_onnx(graph)
    if options.int8:
        _quantize(made, images, options, on_step)
    return made


def _said(model: LoadedModel | OnnxModel, options: Options, cut: bool) -> Said:
    """What the model, and whoever exports it, say of its pixels and of its accuracy."""
    expected = [] if options.expect_top1 is None else [("`expect_top1=`", options.expect_top1)]
    if model.card.accuracy is not None:
        expected.append(("its card", float(model.card.accuracy["top1_percent"])))
    others = model.decided.get("other_weights", "")
    if isinstance(model, OnnxModel):
        return Said(ONNX, model.normalized, tuple(expected), others, cut)
    is_user_model = model.card.arch["family"] == "python"
    given = model.decided.get("normalisation") == "given"
    return Said(TORCH if is_user_model else CARD, given, tuple(expected), others, cut)


def _same_as_torch(model: LoadedModel, graph: onnx.ModelProto, images: ModelImages) -> dict[str, Any]:
    with (
        TorchRunner(model.classifier) as torch_runner,
        OrtRunner(graph.SerializeToString(), label=VARIANTS["fp32"].file) as ort,
    ):
        tolerance = HALF_TOLERANCE if computes_in_half(graph) else RELATIVE_TOLERANCE
        return require_same_answers(torch_runner, ort, images.evaluation.images_nhwc[:64], tolerance)


def _measure(
    made: Graphs, model: LoadedModel | OnnxModel, images: ModelImages, options: Options, on_step: Step
) -> None:
    """Sets the record: the one that was handed in if it belongs here, else a new one."""
    graph, pixels, preprocessing = made.onnx["fp32"], images.calibration.images_nhwc, model.card.preprocessing
    if options.record is not None:
        options.record.require_belongs_to(
            {
                "graph_sha256": sha256_of_graph(graph),
                "images_sha256": sha256_of_image_set(pixels),
                "preprocessing_sha256": sha256_of_preprocessing(preprocessing.as_dict()),
                # Learned ranges were measured by no version: nothing could measure them again.
                **({} if options.record.from_qat else {"tool": OBSERVER_VERSION}),
            }
        )
        require_complete(options.record, graph)
        made.record = options.record
    elif options.int8:
        require_layers(graph, "leave `int8=` out")
        doubted = any(doubt.kind == "normalisation" for doubt in made.fp32.doubts)
        notes = require_plausible(pixels, options.force, preprocessing if doubted else None)
        made.choice = ranges_by_parity(
            graph,
            pixels,
            preprocessing,
            method=options.method,
            percentile=options.percentile,
            notes=notes,
            on_step=on_step,
        )
        made.record = made.choice.record
    else:  # FP16 wants the largest values only, and those every method measures
        made.record = ranges_from_images(
            graph, pixels, preprocessing, method="minmax", on_progress=lambda *at: on_step("measure ranges", *at)
        )
    made.facts["largest_activation"] = max(made.record.largest.values())


def require_layers(graph: onnx.ModelProto, fix: str) -> None:
    """Refuses a network of which INT8 would quantize nothing, before anything is measured.

    Raises:
        CalibrationError: it does.
    """
    share = share_in_int8(graph, frozenset(layers_in_graph(graph)))
    if not share:
        raise CalibrationError(
            "there is nothing to quantize in this network",
            found=str(share),
            allowed="a convolution or matrix product with constant weights beside the head",
            fix=fix,
        )


def _quantize(made: Graphs, images: ModelImages, options: Options, on_step: Step) -> None:
    """Every INT8 artifact of the record."""
    graph, record = made.onnx["fp32"], made.record
    assert record is not None
    if options.max_drop is not None:
        pixels = images.calibration.images_nhwc
        held = pixels[held_out(pixels)]
        if len(held) == 0:
            raise CalibrationError("`max_drop=` needs images to hold out", found=len(pixels), allowed="at least 4")
        layers = sensitivities_of_layers(graph, record, held, lambda *at: on_step("quantize each layer", *at))
        made.budget = keep_float_within(graph, record, held, layers, options.max_drop)
    made.share = share_in_int8(graph, frozenset(layers_in_graph(graph)) - made.keep_float)
    made.onnx["int8"] = qdq_from_ranges(graph, record, keep_float=made.keep_float)
    try:
        require_fits_fp16(graph, record.largest)
        small = qdq_from_ranges(graph, record, keep_float=made.keep_float, int8_weights=True)
        made.onnx["int8-fp16"] = fp16_from_onnx(small)
    except ExportError as error:  # nobody asked for FP16: INT8 with float32 layers serves every TensorRT
        made.left_out["int8-fp16"] = f"{error.what}; found {error.found}"
    made.onnx["int8-cpu"] = cpu_from_ranges(graph, record, keep_float=made.keep_float)
    version = options.tensorrt_version if len(options.tensorrt_version) == 3 else JETPACK_6_TENSORRT
    made.calib_cache = cache_from_ranges(graph, record, version)
