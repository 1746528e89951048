"""Every file of a graph, as export makes them, engines of them, and a graph's form: without names and weights."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx import defs, numpy_helper

from tests.zoo.ways import PREPROCESSING, images
from toolkit.calibration.ranges import ranges_from_images
from toolkit.calibration.record import Record
from toolkit.contracts import Float32, Preprocessing, UInt8
from toolkit.engine.engine_from_onnx import Engine, engine_from_onnx
from toolkit.graph.fp16 import fp16_from_onnx, require_fits_fp16
from toolkit.quantization.ort_cpu import cpu_from_ranges
from toolkit.quantization.qdq import qdq_from_ranges
from toolkit.runtime.ort.runner import OrtRunner

if TYPE_CHECKING:
    import onnx

Form = tuple[object, ...]
RTX = importlib.util.find_spec("tensorrt_rtx_bindings") is not None


@dataclass(frozen=True)
class Made:
    """Every file of a network, and the record that its INT8 ones were made of."""

    files: dict[str, onnx.ModelProto]
    record: Record


def made_of(
    graph: onnx.ModelProto, images_nhwc: UInt8 | None = None, preprocessing: Preprocessing = PREPROCESSING
) -> Made:
    """Measured, on the zoo's images by default, and quantized as `toolkit export --int8 --fp16` does."""
    calibrating = images() if images_nhwc is None else images_nhwc
    record = ranges_from_images(graph, calibrating, preprocessing, method="minmax")
    require_fits_fp16(graph, record.largest)
    int8, small = (qdq_from_ranges(graph, record, int8_weights=stored) for stored in (False, True))
    halves = {"fp16": fp16_from_onnx(graph), "int8-fp16": fp16_from_onnx(small)}
    return Made({"fp32": graph, "int8": int8, "int8-cpu": cpu_from_ranges(graph, record), **halves}, record)


def answers_of(model: onnx.ModelProto, optimize: bool = True, images_nhwc: UInt8 | None = None) -> Float32:
    """ONNX Runtime's logits, for the zoo's images by default."""
    with OrtRunner(model.SerializeToString(), optimize=optimize, threads=1, largest_batch=50) as runner:
        logits: Float32 = runner.logits(images() if images_nhwc is None else images_nhwc)
    return logits


def engine_of(model: onnx.ModelProto, folder: Path, **how: Any) -> Engine:
    """TensorRT-RTX's, of a file that is written into the folder; `how` is what `engine_from_onnx` may be told."""
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return engine_from_onnx(folder / "model.onnx", folder / "model.plan", **how)


def form_of(graph: onnx.ModelProto) -> Form:
    """Operators, attributes, wiring, the shapes of weights, every other constant.

    Equal for graphs that differ in names, in weights, and in ones before a weight's shape, which broadcasting ignores.
    """
    known = {"": "nothing", graph.graph.input[0].name: "images"}
    for tensor in graph.graph.initializer:
        array = numpy_helper.to_array(tensor)
        weight = array.dtype.kind == "f" and array.size > 1
        shape = str(array.shape).replace("(1, ", "(").replace("(1, ", "(") if weight else str(array.tolist())
        known[tensor.name] = f"{array.dtype} {shape}"
    form = []
    for index, node in enumerate(graph.graph.node):
        form.append((node.op_type, tuple(known[name] for name in node.input), _said(node, graph)))
        known.update({name: f"{index}.{place}" for place, name in enumerate(node.output)})
    return tuple(form)


def _said(node: onnx.NodeProto, graph: onnx.ModelProto) -> tuple[bytes, ...]:
    """The attributes that are not at their operator's default, which one exporter writes and another leaves out."""
    schema = defs.get_schema(node.op_type, graph.opset_import[0].version, node.domain)
    defaults = {name: known.default_value.SerializeToString() for name, known in schema.attributes.items()}
    said = ((attribute.name, attribute.SerializeToString()) for attribute in node.attribute)
    return tuple(sorted(value for name, value in said if value != defaults.get(name)))
