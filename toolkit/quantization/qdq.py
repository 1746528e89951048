"""An fp32 graph and a record to a Q/DQ graph: symmetric int8, per-channel weights, rank-0 activation scales.

One file for ONNX Runtime and TensorRT 8 to 10: float32 scales, int8 zero points, opset unchanged (17). What TensorRT
refuses or reads wrongly never appears: uint8 or asymmetric activations, quantized biases, zero points of another
count than scales, scales of shape (1,) (they parse and then run in float), a per-channel axis left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.calibration.record import Record, sha256_of_graph
from toolkit.contracts import WeightsAsInt8
from toolkit.graph.edit import add_constants, arrays_of, set_nodes
from toolkit.graph.qdq_placement import layers_in_graph, placement_in_graph
from toolkit.quantization.scales import (
    LEVELS,
    activation_scale,
    nearest_weights,
    quantized_weights,
    weight_scales,
    weight_scales_in_16_bits,
)
from toolkit.quantization.whole_pixels import PIXELS, FirstConvolution, with_whole_pixels

if TYPE_CHECKING:
    import onnx


def qdq_from_ranges(
    model: onnx.ModelProto, record: Record, *, keep_float: frozenset[str] = frozenset(), int8_weights: bool = False
) -> onnx.ModelProto:
    """A copy of `model` with a Q/DQ pair on every tensor of its placement.

    Args:
        keep_float: names of layers that stay in floating point, see `placement_in_graph`.
        int8_weights: store weights as int8 behind a DequantizeLinear alone: a smaller file with the same numbers, for
            TensorRT 10 and later.

    Raises:
        CalibrationError: the record was measured on another graph.
    """
    import onnx

    record.require_belongs_to({"graph_sha256": sha256_of_graph(model)})
    result, amax, _ = graph_and_ranges(model, record, keep_float)
    placement = placement_in_graph(result, keep_float)
    graph = result.graph
    pairs: dict[str, list[Any]] = {}
    for tensor, consumers in placement.consumers.items():
        pairs[tensor] = pair_of_nodes(graph, tensor, activation_scale(amax[tensor]), np.int8(0))
        _redirect(graph, consumers, f"{tensor}_dequantized")
    values, layers = arrays_of(graph), layers_in_graph(result)
    for weight, axis in placement.axes.items():
        rows = np.moveaxis(values[weight], axis, 0)
        scales = weight_scales_in_16_bits(rows, in_half=True) if rows.ndim == 2 else weight_scales(rows)
        pairs[weight] = pair_of_nodes(graph, weight, scales, np.zeros(len(scales), np.int8), axis)
        places = tuple(
            (n.name, 1) for n in graph.node if n.name in layers and n.input[1] == weight and n.name not in keep_float
        )
        _redirect(graph, places, f"{weight}_dequantized")
        if int8_weights and not any(weight in node.input for node in graph.node):
            del pairs[weight][0]
            levels = np.ascontiguousarray(np.moveaxis(quantized_weights(rows, scales), 0, axis))
            _replace_initializer(graph, weight, f"{weight}_quantized", levels)
    insert_behind_makers(graph, pairs)
    onnx.checker.check_model(result, full_check=True)
    return result


def graph_and_ranges(
    model: onnx.ModelProto, record: Record, keep_float: frozenset[str], as_int8: WeightsAsInt8 = nearest_weights
) -> tuple[onnx.ModelProto, dict[str, float], FirstConvolution | None]:
    """A copy to quantize, the |x| that int8 127 stands for of its tensors, and how it reads whole pixels, if it does.

    It does not where ranges were learned: those weights are used to the rounding that they were trained with.
    """
    every = frozenset(node.name for node in model.graph.node)
    result, found = with_whole_pixels(model, every if record.from_qat else keep_float, as_int8)
    return result, record.amax if found is None else {**record.amax, PIXELS: LEVELS * found.step}, found


def _replace_initializer(graph: Any, name: str, new_name: str, values: Any) -> None:
    from onnx import numpy_helper

    (tensor,) = (tensor for tensor in graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(values, new_name))


def pair_of_nodes(graph: Any, tensor: str, scale: Any, zero_point: Any, channels: int = 0) -> list[Any]:
    """Quantize and Dequantize nodes of a tensor; their scale and zero point become initializers.

    Args:
        scale: float32, of rank 0, or (C,) for channels.
        zero_point: int8 or uint8 of the same shape.
        channels: the axis that they are on.
    """
    from onnx import helper

    parameters = [f"{tensor}_scale", f"{tensor}_zero_point"]
    add_constants(graph, dict(zip(parameters, (np.asarray(scale), np.asarray(zero_point)), strict=True)))
    axis = {"axis": channels} if np.ndim(scale) else {}
    quantized, dequantized = f"{tensor}_quantized", f"{tensor}_dequantized"
    return [
        helper.make_node("QuantizeLinear", [tensor, *parameters], [quantized], f"{tensor}/Quantize", **axis),
        helper.make_node("DequantizeLinear", [quantized, *parameters], [dequantized], f"{tensor}/Dequantize", **axis),
    ]


def _redirect(graph: Any, places: tuple[tuple[str, int], ...], name: str) -> None:
    nodes = {node.name: node for node in graph.node}
    for node, index in places:
        nodes[node].input[index] = name


def insert_behind_makers(graph: Any, pairs: dict[str, list[Any]]) -> None:
    """Puts each pair right behind what makes its tensor; weights come first."""
    made = {name for node in graph.node for name in node.output}
    ordered = [node for tensor, pair in pairs.items() if tensor not in made for node in pair]
    for node in graph.node:
        ordered.append(node)
        for name in node.output:
            ordered += pairs.get(name, [])
    del graph.value_info[:]  # tensors got other readers and makers
    set_nodes(graph, ordered)
