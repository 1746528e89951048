"""The form of a quantized graph that ONNX Runtime's CPU kernels fuse: uint8 activations, int8 weights, int32 biases.

TensorRT refuses such a file, and ONNX Runtime's CPU provider runs TensorRT's at the speed of fp32 or below. Here
every convolution stands between a DequantizeLinear and a QuantizeLinear, as does every Add with both its inputs;
matrix products read a DequantizeLinear. What is never negative uses all of 0..255; everything else is symmetric about
128. Ranges are the record's, by its method for these levels, of the tensors that TensorRT's form leaves alone too
(convolution outputs before an Add, the last ReLU).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.calibration.methods import UNSIGNED_LEVELS
from toolkit.calibration.record import Record, sha256_of_graph
from toolkit.contracts import Float32
from toolkit.graph.cpu_placement import cpu_placement
from toolkit.graph.edit import add_constants, arrays_of, drop_unread_initializers, set_nodes
from toolkit.graph.int8_layers import axes_of_layers
from toolkit.graph.qdq_placement import layers_in_graph
from toolkit.quantization.qdq import graph_and_ranges, insert_behind_makers, pair_of_nodes
from toolkit.quantization.rounding import rounded_weights
from toolkit.quantization.scales import (
    LEVELS,
    SMALLEST_SCALE,
    dequantized,
    quantized_weights,
    weight_scales_in_16_bits,
)
from toolkit.quantization.whole_pixels import MIDDLE, read_bytes

if TYPE_CHECKING:
    import onnx

LARGEST_BIAS = float(1 << 30)  # half of what int32 holds: sums of products are added to it


def cpu_from_ranges(
    model: onnx.ModelProto, record: Record, *, keep_float: frozenset[str] = frozenset()
) -> onnx.ModelProto:
    """A copy of `model` that computes in uint8 and int8 on ONNX Runtime's CPU provider.

    Raises:
        CalibrationError: the record was measured on another graph.
    """
    import onnx

    record.require_belongs_to({"graph_sha256": sha256_of_graph(model)})
    result, amax, pixels = graph_and_ranges(model, record, keep_float, weights_on_cpu)
    graph = result.graph
    layers = frozenset(layers_in_graph(model)) - keep_float
    placement, axes = cpu_placement(result, layers), axes_of_layers(result)
    ranges = {**record.largest, **amax, **record.cpu}
    rounded = quantized_weights if record.from_qat else rounded_weights
    values = arrays_of(graph)
    scales, pairs = {}, {}
    for tensor, unsigned in placement.unsigned.items():
        scales[tensor] = _scale(ranges[placement.shares.get(tensor, tensor)], unsigned)
        pairs[tensor] = pair_of_nodes(graph, tensor, scales[tensor], np.uint8(0 if unsigned else MIDDLE))
    for node in graph.node:
        if node.name not in keep_float:
            inputs = [f"{name}_dequantized" if name in scales else name for name in node.input]
            if node.name in layers:
                places = Places(graph, pairs, values, rounded, axes[node.name])
                inputs[1:] = _constants(places, node, scales[node.input[0]])
            node.input[:] = inputs
    _drop_clips(graph, placement.clips)
    insert_behind_makers(graph, pairs)
    if pixels is not None:
        read_bytes(graph, pixels)
    drop_unread_initializers(graph)
    onnx.checker.check_model(result, full_check=True)
    return result


def weights_on_cpu(weights: Float32) -> Float32:
    """What this form makes of weights (C_out, C_in, ...), in floating point."""
    scales = weight_scales_in_16_bits(weights)
    return dequantized(rounded_weights(weights, scales), scales)


def _scale(amax: float, unsigned: bool) -> np.float32:
    scale: np.float32 = np.maximum(
        np.float32(amax) / np.float32(UNSIGNED_LEVELS if unsigned else LEVELS), SMALLEST_SCALE
    )
    return np.float32(scale)


def _drop_clips(graph: Any, clips: frozenset[str]) -> None:
    """Convolutions write what a Clip made of it: rounding to 0..255 clips too, and ONNX Runtime fuses no Clip.

    A Clip that somebody reads before the rounding stays.
    """
    read = {name for node in graph.node for name in node.input}
    makers = {name: node for node in graph.node for name in node.output}
    dropped = [node for node in graph.node if node.name in clips and node.output[0] not in read]
    for node in dropped:
        makers[node.input[0]].output[0] = node.output[0]
    gone = {node.name for node in dropped}
    set_nodes(graph, (node for node in graph.node if node.name not in gone))


@dataclass(frozen=True)
class Places:
    """Where a layer's constants go, and how they are rounded.

    Attributes:
        values: the constants of the graph as it came.
        rounded: (weights, scales) to int8.
        axis: of the output channels.
    """

    graph: Any
    pairs: dict[str, list[Any]]
    values: dict[str, Any]
    rounded: Any
    axis: int


def _constants(places: Places, layer: Any, input_scale: np.float32) -> list[str]:
    """Adds int8 weights and an int32 bias with their DequantizeLinear; names what the layer reads instead."""
    values = places.values
    weights = np.moveaxis(values[layer.input[1]], places.axis, 0)
    bias = values.get(layer.input[2]) if len(layer.input) > 2 else None
    scales = weight_scales_in_16_bits(weights)
    if bias is not None and bias.shape != scales.shape:
        return [_weights(places, layer, weights, scales), *layer.input[2:]]
    if bias is not None:  # a channel of nearly no weights and some bias would overflow int32
        scales = np.maximum(scales, np.abs(bias) / (input_scale * np.float32(LARGEST_BIAS))).astype(np.float32)
    names = [_weights(places, layer, weights, scales)]
    if bias is not None:
        product: Float32 = (scales * input_scale).astype(np.float32)
        steps = np.rint(bias.astype(np.float64) / product).astype(np.int32)
        names.append(_constant(places, f"{layer.name}/bias", steps, product, 0))
    return names


def _weights(places: Places, layer: Any, weights: Float32, scales: Float32) -> str:
    levels = np.ascontiguousarray(np.moveaxis(places.rounded(weights, scales), 0, places.axis))
    return _constant(places, f"{layer.name}/weight", levels, scales, places.axis)


def _constant(places: Places, name: str, levels: Any, scales: Float32, axis: int) -> str:
    from onnx import helper

    parts = {"quantized": levels, "scale": scales, "zero_point": np.zeros(len(scales), levels.dtype)}
    inputs, output = [f"{name}_{role}" for role in parts], f"{name}_dequantized"
    add_constants(places.graph, dict(zip(inputs, parts.values(), strict=True)))
    places.pairs[name] = [helper.make_node("DequantizeLinear", inputs, [output], f"{name}/Dequantize", axis=axis)]
    return output
