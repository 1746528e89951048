"""Where Q/DQ pairs stand so that TensorRT fuses them.

Source: TensorRT developer guide, "Q/DQ Layer-Placement Recommendations": quantize the inputs of every convolution and
matrix product, not its output; of a residual Add quantize the shortcut input only, because the fused convolution and
Add take the shortcut's precision. An Add that no convolution can be fused with stays in floating point, as do pool and
classifier head: a 64 x 10 product gains nothing and its rounding goes straight into the logits.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.graph.int8_layers import axes_of_layers, layers_left_out

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Placement:
    """Which inputs get a Q/DQ pair.

    Attributes:
        consumers: activation tensor to the (node name, input index) pairs that read its quantized form.
        weights: weight tensors, quantized per output channel.
        axes: the axis of each that the output channels are on.
    """

    consumers: dict[str, tuple[tuple[str, int], ...]]
    weights: tuple[str, ...]
    axes: dict[str, int]


def layers_in_graph(model: onnx.ModelProto) -> tuple[str, ...]:
    """Names of the layers that are quantized where none is kept in floating point, in order."""
    axes = axes_of_layers(model)
    left = layers_left_out(model)
    return tuple(name for name in axes if name not in left)


def placement_in_graph(model: onnx.ModelProto, keep_float: frozenset[str] = frozenset()) -> Placement:
    """Finds the convolutions, matrix products and residual Adds of a graph with constant weights.

    Args:
        keep_float: names of layers that stay in floating point. Their input gets a pair only for the sake of
            another reader, and the Add that one of them is fused with keeps its shortcut in floating point too.
    """
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    depth, fusible = _depths(graph), _fusible(graph, makers)
    layers, left = axes_of_layers(model), layers_left_out(model) | keep_float
    consumers: dict[str, list[tuple[str, int]]] = {}
    axes: dict[str, int] = {}
    for node in graph.node:
        if node.name in layers and node.name not in left:
            if axes.setdefault(node.input[1], layers[node.name]) == layers[node.name]:
                consumers.setdefault(node.input[0], []).append((node.name, 0))
        elif node.op_type == "Add" and not constants.intersection(node.input):
            shortcut = _shortcut(node, fusible, depth)
            if shortcut is None:
                continue
            fused_with = makers.get(node.input[1 - shortcut])
            if fused_with is None or fused_with.name not in keep_float:
                consumers.setdefault(node.input[shortcut], []).append((node.name, shortcut))
    return Placement({name: tuple(places) for name, places in consumers.items()}, tuple(axes), axes)


def _shortcut(add: Any, fusible: set[str], depth: dict[str, int]) -> int | None:
    """The input of an Add that is not the convolution which it is fused with; None where there is none to fuse.

    Without fusion a Q/DQ pair would cost accuracy and win nothing. Of two convolutions the deeper is fused.
    """
    fused = [index for index, name in enumerate(add.input) if name in fusible]
    if len(fused) == 2:
        return min((0, 1), key=lambda index: depth[add.input[index]])
    return 1 - fused[0] if fused else None


def _fusible(graph: Any, makers: dict[str, Any]) -> set[str]:
    """Outputs of convolutions that one node alone reads."""
    read = Counter(name for node in graph.node for name in node.input)
    return {name for name, node in makers.items() if node.op_type == "Conv" and read[name] == 1}


def _depths(graph: Any) -> dict[str, int]:
    """Nodes on the longest way from an input to each tensor; ONNX keeps nodes in topological order."""
    depth: dict[str, int] = {}
    for node in graph.node:
        below = 1 + max((depth.get(name, 0) for name in node.input), default=0)
        depth.update(dict.fromkeys(node.output, below))
    return depth


def float_activations(model: onnx.ModelProto) -> list[str]:
    """Every float32 tensor that a node computes and that matters, in order; what the range of FP16 is checked on.

    What a ReLU alone reads is left out: its largest value is the ReLU's, and negative ones end as zero, even from -inf.
    Not exposing them keeps the engine's fusions and saves a fifth of the pass.
    """
    from onnx import TensorProto, shape_inference

    graph = shape_inference.infer_shapes(model).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in [*graph.value_info, *graph.output]}
    readers: dict[str, list[str]] = {value.name: ["a graph output"] for value in graph.output}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    return [
        name
        for node in graph.node
        for name in node.output
        if kinds.get(name) == TensorProto.FLOAT and readers.get(name) != ["Relu"]
    ]
