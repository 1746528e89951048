"""Where Q/DQ pairs stand so that TensorRT fuses them.

Source: TensorRT developer guide, "Q/DQ Layer-Placement Recommendations": quantise the inputs of every convolution,
not its output; of a residual Add quantise the shortcut input only, because the fused convolution and Add take the
shortcut's precision. Pool and classifier head stay in floating point: a 64 x 10 product gains nothing and its
rounding goes straight into the logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Placement:
    """Which inputs get a Q/DQ pair.

    Attributes:
        consumers: activation tensor to the (node name, input index) pairs that read its quantised form.
        weights: convolution weight tensors, quantised per output channel (axis 0).
    """

    consumers: dict[str, tuple[tuple[str, int], ...]]
    weights: tuple[str, ...]


def convolutions_in_graph(model: onnx.ModelProto) -> tuple[str, ...]:
    """Names of the convolutions that can be quantised, in order."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return tuple(node.name for node in model.graph.node if node.op_type == "Conv" and node.input[1] in constants)


def placement_in_graph(model: onnx.ModelProto, keep_float: frozenset[str] = frozenset()) -> Placement:
    """Finds the convolutions and residual Adds of a graph with constant weights.

    Args:
        keep_float: names of convolutions that stay in floating point. Their input gets a pair only for the sake of
            another reader, and the Add that one of them is fused with keeps its shortcut in floating point too.
    """
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    depth = _depths(graph)
    makers = {name: node for node in graph.node for name in node.output}
    consumers: dict[str, list[tuple[str, int]]] = {}
    weights = []
    for node in graph.node:
        if node.op_type == "Conv" and node.input[1] in constants and node.name not in keep_float:
            consumers.setdefault(node.input[0], []).append((node.name, 0))
            weights.append(node.input[1])
        elif node.op_type == "Add" and not constants.intersection(node.input):
            shortcut = min((0, 1), key=lambda index, node=node: depth[node.input[index]])  # type: ignore[misc]
            fused_with = makers.get(node.input[1 - shortcut])
            if fused_with is None or fused_with.name not in keep_float:
                consumers.setdefault(node.input[shortcut], []).append((node.name, shortcut))
    return Placement({name: tuple(places) for name, places in consumers.items()}, tuple(dict.fromkeys(weights)))


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
