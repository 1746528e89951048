"""Two readers of ONNX files that share no code with ONNX Runtime: onnx's reference evaluator, and OpenVINO."""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from onnx import version_converter
from onnx.reference import ReferenceEvaluator

from toolkit.compare.parity import parity_without_labels
from toolkit.contracts import Float32, UInt8

if TYPE_CHECKING:
    import onnx

OPENVINO = importlib.util.find_spec("openvino") is not None
Reader = Callable[["onnx.ModelProto", UInt8], Float32]
BATCH = 50  # images that OpenVINO gets at once of many
READS_INT8 = 19  # the reference evaluator has no QuantizeLinear of an older opset


def reference_answers(model: onnx.ModelProto, images_nhwc: UInt8) -> Float32:
    """Logits by onnx's reference evaluator, in numpy; a file older than opset 19 is raised by onnx's own converter."""
    older = model.opset_import[0].version < READS_INT8
    quantized = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    reader = ReferenceEvaluator(version_converter.convert_version(model, READS_INT8) if older and quantized else model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # exp of a large number in numpy's sigmoid
        answers: Float32 = reader.run(None, {model.graph.input[0].name: images_nhwc})[0]
    return answers


def openvino_answers(model: onnx.ModelProto, images_nhwc: UInt8) -> Float32:
    """Logits by OpenVINO on the CPU, in FP32 as the file says it, for this batch: see docs/int8-lab.md.

    Raises:
        Unreadable: it fails while it rewrites the graph.
    """
    import openvino

    core = openvino.Core()
    network = core.read_model(model.SerializeToString())
    batch = BATCH if len(images_nhwc) % BATCH == 0 else len(images_nhwc)
    network.reshape([batch, *images_nhwc.shape[1:]])
    plainly = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "LP_TRANSFORMS_MODE": False}
    try:
        compiled = core.compile_model(network, "CPU", plainly)
    except RuntimeError as error:
        raise Unreadable(next(line for line in str(error).split("[") if "]" in line).partition("]")[0]) from error
    parts = range(0, len(images_nhwc), batch)
    return np.concatenate([compiled(images_nhwc[start : start + batch])[0] for start in parts])


class Unreadable(Exception):
    """A reader that fails by itself."""


@dataclass(frozen=True)
class Limit:
    """How far a reader may be from ONNX Runtime without optimization, and the least share of same answers."""

    relative_l2: float
    same: float


READERS: dict[str, Reader] = {"reference": reference_answers} | ({"openvino": openvino_answers} if OPENVINO else {})
COUNTS: Mapping[str, int] = {"reference": 4, "openvino": 48}  # images; the first computes in numpy
# FP16 is rounded where a reader likes to, and then a step of int8 is another one; nets here are small and untrained.
READ_ALIKE = {
    "fp32": Limit(1e-4, 1.0),
    "fp16": Limit(0.03, 0.95),
    "int8": Limit(0.02, 1.0),
    "int8-cpu": Limit(0.02, 1.0),
    "int8-fp16": Limit(0.12, 0.85),
}
# OpenVINO 2026.4 subtracts FP16 from FP32 where it moves a Transpose past the rounding of FP16.
UNREADABLE = {("eca", "int8-fp16"), ("multihead", "int8-fp16"), ("mixer", "int8-fp16")}


@dataclass(frozen=True)
class Reading:
    """How a reader's answers to a file compare with ONNX Runtime's; `failed` where it has none."""

    relative_l2: float = float("nan")
    flips: int = 0
    images: int = 0
    failed: str = ""

    def within(self, limit: Limit) -> bool:
        """Whether it read the same file."""
        return self.relative_l2 <= limit.relative_l2 and self.flips <= math.ceil((1 - limit.same) * self.images)


def readings_of(
    model: onnx.ModelProto, images_nhwc: UInt8, expected: Float32, counts: Mapping[str, int] = COUNTS
) -> dict[str, Reading]:
    """Each reader that is installed, on its count of first images; `expected` is ONNX Runtime's, not optimized."""
    return {
        name: _reading(reader, model, images_nhwc[: counts[name]], expected[: counts[name]])
        for name, reader in READERS.items()
        if name in counts
    }


def _reading(reader: Reader, model: onnx.ModelProto, images_nhwc: UInt8, expected: Float32) -> Reading:
    try:
        got = reader(model, images_nhwc)
    except Unreadable as error:
        return Reading(failed=str(error))
    parity = parity_without_labels(expected, got)
    return Reading(parity.relative_l2, parity.flips, parity.images)
