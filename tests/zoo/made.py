"""Every file of a graph, as export makes them, and a graph's form: what is left of it without names and weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnx import numpy_helper

from tests.zoo.ways import PREPROCESSING, images
from toolkit.calibration.ranges import ranges_from_images
from toolkit.calibration.record import Record
from toolkit.contracts import Float32, Preprocessing, UInt8
from toolkit.graph.fp16 import fp16_from_onnx, require_fits_fp16
from toolkit.quantization.ort_cpu import cpu_from_ranges
from toolkit.quantization.qdq import qdq_from_ranges
from toolkit.runtime.ort.runner import OrtRunner

if TYPE_CHECKING:
    import onnx

Form = tuple[object, ...]


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
    with OrtRunner(model.SerializeToString(), optimize=optimize, threads=1) as runner:
        logits: Float32 = runner.logits(images() if images_nhwc is None else images_nhwc)
    return logits


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
        attributes = sorted(attribute.SerializeToString() for attribute in node.attribute)
        form.append((node.op_type, tuple(known[name] for name in node.input), tuple(attributes)))
        known.update({name: f"{index}.{place}" for place, name in enumerate(node.output)})
    return tuple(form)
