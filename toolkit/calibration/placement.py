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


def placement_in_graph(model: onnx.ModelProto) -> Placement:
    """Finds the convolutions and residual Adds of a graph with constant weights."""
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    depth = _depths(graph)
    consumers: dict[str, list[tuple[str, int]]] = {}
    weights = []
    for node in graph.node:
        if node.op_type == "Conv" and node.input[1] in constants:
            consumers.setdefault(node.input[0], []).append((node.name, 0))
            weights.append(node.input[1])
        elif node.op_type == "Add" and not constants.intersection(node.input):
            shortcut = min((0, 1), key=lambda index, node=node: depth[node.input[index]])  # type: ignore[misc]
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
    """Every float32 tensor that a node computes, in order; what the range of FP16 is checked on."""
    from onnx import TensorProto, shape_inference

    graph = shape_inference.infer_shapes(model).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in [*graph.value_info, *graph.output]}
    return [name for node in graph.node for name in node.output if kinds.get(name) == TensorProto.FLOAT]
