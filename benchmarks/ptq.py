"""What the usual improvements on plain post-training quantization bring, on real nets and a whole test set.

    python -m benchmarks.ptq [--models resnet20-cifar10,resnet32x32-cifar10,resnet32x32-fashion] [--draws 3]

Every row starts from the same calibration (512 images, `--method auto`) and changes one thing:

- plain: the scale of each output channel of the weights is its largest |w| / 127.
- weight mse: what `toolkit export --int8` writes: the scale that minimizes the squared error of a channel's weights.
- bias correction: each convolution's mean error on the calibration images is subtracted from its bias, in order
  (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section 4.2,
  with measured means).
- equalization: channels between convolutions are rescaled so that ranges of activations and weights share the burden
  (the same paper, section 4.1, with the square root of Xiao et al., "SmoothQuant", ICML 2023, equation 4), residual
  streams included: ReLU and Add let a positive factor through.
- cancelling: weights are rounded as in the CPU file (`toolkit/quantization/rounding.py`), on the scales of weight mse.
- float weights: weights are not quantized at all. No rounding of weights (AdaRound, GPTQ) can do better than this.
- float input: the first convolution is left in floating point.

All files run on ONNX Runtime's CPU provider. Distance is the relative L2 of the logits from fp32's; retention is INT8's
right answers in percent of fp32's. Prints a table on stderr, JSON on stdout.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from toolkit.compare.parity import logits_in_batches, parity_from_logits
from toolkit.contracts import Float32, UInt8
from toolkit.data import dataset_from_spec, sample
from toolkit.exporting.artifacts import fp32_graph_of_model
from toolkit.graph.edit import arrays_of, set_nodes
from toolkit.graph.qdq_placement import layers_in_graph, placement_in_graph
from toolkit.models.checkpoint import folder_of_model, load_model
from toolkit.quantization import qdq
from toolkit.quantization.choose_method import ranges_by_parity
from toolkit.quantization.qdq import qdq_from_ranges
from toolkit.quantization.rounding import rounded_weights
from toolkit.quantization.scales import LEVELS, SMALLEST_NORMAL_HALF, dequantized, rounded_up_to_half, weight_scales
from toolkit.quantization.whole_pixels import with_whole_pixels
from toolkit.runtime.ort.runner import OrtRunner

if TYPE_CHECKING:
    import onnx

BATCH = 32
SCALING = {"Relu", "Add", "MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean", "Flatten"}
WIDEST = 16.0  # no channel is rescaled by more: FP16 files hold the same tensors
QUANTILE = 0.999


@dataclass(frozen=True)
class Row:
    """One file judged on the test set."""

    model: str
    draw: int
    change: str
    retention_percent: float
    flips_percent: float
    relative_l2: float


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph that may be changed."""
    return type(model).FromString(model.SerializeToString())


# --- weight scales ------------------------------------------------------------------------------------------------


def largest_scales(weights: Float32) -> Float32:
    """The scale of each channel from its largest weight alone."""
    largest = np.abs(weights).reshape(len(weights), -1).max(axis=1) / np.float32(LEVELS)
    return rounded_up_to_half(np.maximum(largest, np.float32(SMALLEST_NORMAL_HALF)).astype(np.float32))


def plainly(model: onnx.ModelProto, record: Any, keep_float: frozenset[str] = frozenset()) -> onnx.ModelProto:
    """The Q/DQ graph with `largest_scales`."""
    with mock.patch.object(qdq, "weight_scales", largest_scales):
        return qdq_from_ranges(model, record, keep_float=keep_float)


def without_weight_pairs(model: onnx.ModelProto, record: Any) -> onnx.ModelProto:
    """The Q/DQ graph with its weights left in float32."""
    result = qdq_from_ranges(model, record)
    weights = set(placement_in_graph(with_whole_pixels(model)[0]).weights)
    plain = {f"{name}_dequantized": name for name in weights}
    kept = [n for n in result.graph.node if not set(n.output) & {w + e for w in weights for e in ENDS}]
    for node in kept:
        node.input[:] = [plain.get(name, name) for name in node.input]
    set_nodes(result.graph, kept)
    return result


ENDS = ("_quantized", "_dequantized")


def cancelling(model: onnx.ModelProto, record: Any) -> onnx.ModelProto:
    """The Q/DQ graph whose weights are rounded so that their errors cancel."""

    def as_int8(weights: Float32) -> Float32:
        scales = weight_scales(weights)
        return dequantized(rounded_weights(weights, scales), scales)

    result, whole = qdq_from_ranges(model, record), with_whole_pixels(model, as_int8=as_int8)[0]
    values, weights = arrays_of(whole.graph), set(placement_in_graph(whole).weights)
    for tensor in result.graph.initializer:
        if tensor.name in values:  # QuantizeLinear finds the rounded numbers again
            value = values[tensor.name]
            value = as_int8(value) if tensor.name in weights else value
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    return result


# --- bias correction ----------------------------------------------------------------------------------------------


def channel_means(model: onnx.ModelProto, names: list[str], images: UInt8) -> dict[str, Any]:
    """float64 (C,) for each tensor (N, C, H, W): its mean over images and places."""
    exposed = copied(model)
    exposed.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    total: dict[str, Any] = dict.fromkeys(names, 0.0)
    with OrtRunner(exposed.SerializeToString(), label="exposed") as runner:
        for start in range(0, len(images), BATCH):
            tensors = runner.tensors(images[start : start + BATCH])
            for name in names:
                total[name] = total[name] + tensors[name].mean(axis=(2, 3)).sum(axis=0, dtype=np.float64)
    return {name: value / len(images) for name, value in total.items()}


def bias_corrected(model: onnx.ModelProto, quantized: onnx.ModelProto, images: UInt8) -> onnx.ModelProto:
    """`quantized` with biases such that each convolution's mean output is that of `model`; first to last."""
    result = copied(quantized)
    outputs = [node.output[0] for node in model.graph.node if node.op_type == "Conv"]
    wanted = channel_means(model, outputs, images)
    for name in outputs:
        found = channel_means(result, [name], images)[name]
        (bias,) = (node.input[2] for node in result.graph.node if name in node.output)
        (tensor,) = (tensor for tensor in result.graph.initializer if tensor.name == bias)
        corrected = numpy_helper.to_array(tensor) + (wanted[name] - found)
        tensor.CopyFrom(numpy_helper.from_array(corrected.astype(np.float32), bias))
    return result


# --- equalization -------------------------------------------------------------------------------------------------


@dataclass
class Stream:
    """Tensors whose channels can only be rescaled together, what makes them and what reads them."""

    tensors: list[str] = field(default_factory=list)
    makers: list[Any] = field(default_factory=list)
    readers: list[Any] = field(default_factory=list)
    fixed: bool = False


def streams_in_graph(model: onnx.ModelProto) -> list[Stream]:
    """Every stream that a positive factor a channel passes through: convolution to convolution or Gemm."""
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            name = parent[name]
        return name

    fixed = {value.name for value in (*graph.input, *graph.output)}
    for node in graph.node:
        activations = [name for name in node.input if name and name not in constants]
        if node.op_type == "Gemm":
            fixed.add(node.output[0])
        elif node.op_type in SCALING and (node.op_type != "Add" or len(activations) == 2):
            for name in activations:
                parent[root(name)] = root(node.output[0])
        elif node.op_type != "Conv":
            fixed.update((*activations, *node.output))
    streams: dict[str, Stream] = defaultdict(Stream)
    for node in graph.node:
        for name in (node.input[0], *node.output):
            stream = streams[root(name)]
            stream.fixed |= name in fixed
            stream.tensors.append(name)
        if node.op_type in ("Conv", "Gemm"):
            streams[root(node.input[0])].readers.append(node)
        if node.op_type == "Conv":
            streams[root(node.output[0])].makers.append(node)
    return [stream for stream in streams.values() if stream.makers and stream.readers and not stream.fixed]


def channel_ranges(model: onnx.ModelProto, names: set[str], images: UInt8) -> dict[str, Any]:
    """float64 (C,) for each tensor: the `QUANTILE` of |x| of each channel."""
    exposed = copied(model)
    exposed.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    parts: dict[str, list[Any]] = {name: [] for name in names}
    with OrtRunner(exposed.SerializeToString(), label="exposed") as runner:
        for start in range(0, len(images), BATCH):
            tensors = runner.tensors(images[start : start + BATCH])
            for name in names:
                values = np.abs(tensors[name])
                parts[name].append(values.transpose(1, 0, 2, 3).reshape(values.shape[1], -1))
    return {name: np.quantile(np.concatenate(values, axis=1), QUANTILE, axis=1) for name, values in parts.items()}


def equalized(model: onnx.ModelProto, images: UInt8) -> onnx.ModelProto:
    """The same function with rescaled channels."""
    result = copied(model)
    values = {tensor.name: numpy_helper.to_array(tensor).copy() for tensor in result.graph.initializer}
    streams = streams_in_graph(model)
    read = set(placement_in_graph(model).consumers)
    ranges = channel_ranges(model, {name for s in streams for name in s.tensors} & read, images)
    for stream in streams:
        activations = [ranges[name] / ranges[name].max() for name in stream.tensors if name in ranges]
        weights = [np.abs(values[n.input[1]]).max(axis=(0, 2, 3)) for n in stream.readers if n.op_type == "Conv"]
        if not activations or not weights:
            continue
        burden = np.maximum(np.max(activations, axis=0), 1e-3)
        slack = np.maximum(np.max([w / w.max() for w in weights], axis=0), 1e-3)
        factor = np.sqrt(burden / slack)
        factor = np.clip(factor / np.exp(np.log(factor).mean()), 1 / WIDEST, WIDEST).astype(np.float32)
        for node in stream.makers:
            values[node.input[1]] = values[node.input[1]] / factor.reshape(-1, 1, 1, 1)
            values[node.input[2]] = values[node.input[2]] / factor
        for node in stream.readers:
            weight = values[node.input[1]]
            values[node.input[1]] = weight * factor.reshape(1, -1, *(1,) * (weight.ndim - 2))
    for tensor in result.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(values[tensor.name], tensor.name))
    return result


# --- the table ----------------------------------------------------------------------------------------------------


def files_of_draw(model: onnx.ModelProto, preprocessing: Any, images: UInt8) -> dict[str, Callable[[], Any]]:
    """{change: makes the graph}."""
    record = ranges_by_parity(model, images, preprocessing).record
    even = equalized(model, images)
    even_record = ranges_by_parity(even, images, preprocessing).record
    first = frozenset(layers_in_graph(model)[:1])
    return {
        "plain": lambda: plainly(model, record),
        "weight mse": lambda: qdq_from_ranges(model, record),
        "cancelling": lambda: cancelling(model, record),
        "bias correction": lambda: bias_corrected(model, plainly(model, record), images),
        "equalization": lambda: plainly(even, even_record),
        "equalization, weight mse": lambda: qdq_from_ranges(even, even_record),
        "float weights": lambda: without_weight_pairs(model, record),
        "float input": lambda: plainly(model, record, first),
    }


def rows_of_model(name: str, draws: int, count: int, tests: int | None) -> Iterator[Row]:
    """Every change of every draw."""
    dataset = dataset_from_spec("fashion-mnist" if "fashion" in name else "cifar10")
    test = dataset.test if tests is None else sample(dataset.test, tests, 0)
    loaded = load_model(folder_of_model(name))
    model = fp32_graph_of_model(loaded)
    with OrtRunner(model.SerializeToString(), label=name) as runner:
        expected = logits_in_batches(runner, test.images_nhwc)
    for draw in range(draws):
        images = sample(dataset.train, count, draw).images_nhwc
        for change, make in files_of_draw(model, loaded.card.preprocessing, images).items():
            with OrtRunner(make().SerializeToString(), label=change) as runner:
                got = logits_in_batches(runner, test.images_nhwc)
            p = parity_from_logits("fp32", change, expected, got, test.labels)
            yield Row(name, draw, change, p.retention_percent, 100 - p.agreement_percent, p.relative_l2)


def summary(rows: list[Row]) -> list[dict[str, Any]]:
    """A line a model and change: means over the draws, and the distance as a ratio to plain's of the same draw."""
    plain = {(row.model, row.draw): row for row in rows if row.change == "plain"}
    lines = []
    for model, change in dict.fromkeys((row.model, row.change) for row in rows):
        of = [row for row in rows if (row.model, row.change) == (model, change)]
        ratios = [row.relative_l2 / plain[row.model, row.draw].relative_l2 for row in of]
        retention = [row.retention_percent for row in of]
        lines.append(
            {
                "model": model,
                "change": change,
                "draws": len(of),
                "retention_percent": [round(float(f(retention)), 3) for f in (np.mean, np.min, np.max)],
                "flips_percent": round(float(np.mean([row.flips_percent for row in of])), 3),
                "relative_l2": round(float(np.mean([row.relative_l2 for row in of])), 4),
                "of_plain": [round(float(f(ratios)), 3) for f in (np.mean, np.min, np.max)],
            }
        )
    return lines


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="What improvements on plain PTQ bring.")
    parser.add_argument("--models", default="resnet20-cifar10,resnet32x32-cifar10,resnet32x32-fashion")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--test", type=int, help="fewer test images, for a quick look")
    options = parser.parse_args()
    rows = []
    for name in options.models.split(","):
        for row in rows_of_model(name, options.draws, options.images, options.test):
            rows.append(row)
            print("  ".join(f"{value!s:>24}" for value in asdict(row).values()), file=sys.stderr, flush=True)
    lines = summary(rows)
    for line in lines:
        print("  ".join(f"{value!s:>24}" for value in line.values()), file=sys.stderr)
    print(json.dumps({"summary": lines, "rows": [asdict(row) for row in rows]}))


if __name__ == "__main__":
    main()
