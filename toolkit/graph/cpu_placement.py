"""Where the form for ONNX Runtime's CPU kernels quantizes: which tensors, never negative or not, of one range or not.

Its convolutions and Adds are fused where both their inputs and their output are quantized; its matrix products where
their input is. A tensor that another only passes on has the same range as that one: it is rounded once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.graph.edit import arrays_of, attributes
from toolkit.graph.int8_layers import PRODUCTS

if TYPE_CHECKING:
    import onnx

POSITIVE = frozenset({"Relu", "Sigmoid", "HardSigmoid", "Softmax", "Exp", "Abs", "Sqrt", "ReduceL1", "ReduceL2"})
# Their first input's values, some of them.
SELECTS = frozenset(
    {"MaxPool", "Identity", "Dropout", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split"}
    | {"Gather", "Expand", "Tile", "DepthToSpace", "SpaceToDepth", "GlobalMaxPool"}
)
# Means of their first input's values.
AVERAGES = frozenset({"AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum"})
JOINS = frozenset({"Add", "Mul", "Div", "Concat", "Min"})


@dataclass(frozen=True)
class CpuPlacement:
    """What that form quantizes.

    Attributes:
        unsigned: every tensor that it quantizes; True for those that are never negative.
        shares: a tensor to the one further on whose range it takes, because that one holds nothing but its values.
        clips: nodes that do nothing which the rounding to 0..255 does not do.
    """

    unsigned: dict[str, bool]
    shares: dict[str, str] = field(default_factory=dict)
    clips: frozenset[str] = frozenset()


def cpu_placement(model: onnx.ModelProto, layers: frozenset[str]) -> CpuPlacement:
    """Finds them.

    Args:
        layers: names of the convolutions and matrix products to quantize.
    """
    graph = model.graph
    constants = arrays_of(graph)
    makers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    positive, clips = never_negative(graph), set()
    found: dict[str, bool] = {}
    for node in graph.node:
        if node.name in layers:
            touched = [node.input[0]]
        elif node.op_type == "Add" and not any(name in constants for name in node.input):
            if not any(makers[name].op_type == "Conv" and makers[name].name in layers
                       for name in node.input if name in makers):  # fmt: skip
                continue
            touched = list(node.input)
        else:
            continue
        if node.op_type not in PRODUCTS:
            fused = _fused(node, readers, constants)
            clips |= {fused.name} if fused.op_type == "Clip" else set()
            touched.append(fused.output[0])
        found |= {name: name in positive for name in touched if name != graph.output[0].name}
    return CpuPlacement(found, _shares(found, makers, readers, constants), frozenset(clips))


def _fused(node: Any, readers: dict[str, list[Any]], constants: dict[str, Any]) -> Any:
    """The node, or the ReLU or Clip from 0 up that alone reads it: a zero point of 0 does what that does."""
    behind = readers.get(node.output[0], [])
    if len(behind) != 1:
        return node
    starts_at_zero = behind[0].op_type == "Clip" and _lowest(behind[0], constants) == 0
    return behind[0] if behind[0].op_type == "Relu" or starts_at_zero else node


def _lowest(clip: Any, constants: dict[str, Any]) -> float | None:
    bound = constants.get(clip.input[1]) if len(clip.input) > 1 else None
    return None if bound is None else float(bound)


def never_negative(graph: Any) -> set[str]:
    """Tensors and constants none of whose values can be below zero."""
    constants = arrays_of(graph)
    found = {name for name, array in constants.items() if array.dtype.kind == "f" and (array >= 0).all()}
    for node in graph.node:
        if _positive(node, found, constants):
            found.update(node.output)
    return found


def _positive(node: Any, positive: set[str], constants: dict[str, Any]) -> bool:
    kind, given = node.op_type, [name in positive for name in node.input if name]
    if kind in POSITIVE:
        return True
    if kind in SELECTS or kind in AVERAGES:
        return given[0]
    if kind == "Clip":
        lowest = _lowest(node, constants)
        return given[0] or (lowest is not None and lowest >= 0)
    if kind in JOINS:
        return all(given) or (kind == "Mul" and node.input[0] == node.input[1])
    if kind == "Max":
        return any(given)
    if kind == "Pad":
        return given[0] and _padding(node, constants) is not None
    if kind == "Where":
        return all(given[1:])
    return kind == "Resize" and given[0] and attributes(node).get("mode", b"nearest") != b"cubic"


def _padding(node: Any, constants: dict[str, Any]) -> float | None:
    """What a Pad pads with, where that is not below zero: one of its own values counts as 0."""
    if attributes(node).get("mode", b"constant") != b"constant" or len(node.input) < 3 or not node.input[2]:
        return 0.0
    value = constants.get(node.input[2])
    return float(value) if value is not None and np.all(value >= 0) else None


def _shares(
    found: dict[str, bool], makers: dict[str, Any], readers: dict[str, list[Any]], constants: dict[str, Any]
) -> dict[str, str]:
    """Of each tensor the last one behind it that holds its values as they are, alone or joined with others."""
    shares = {}
    for tensor, unsigned in found.items():
        last, here = tensor, tensor
        while len(behind := readers.get(here, [])) == 1 and _passes(behind[0], here, constants):
            here = behind[0].output[0]
            if found.get(here) is unsigned:
                last = here
        if last != tensor:
            shares[tensor] = last
    return shares


def _passes(node: Any, tensor: str, constants: dict[str, Any]) -> bool:
    if node.op_type == "Pad":
        return _padding(node, constants) == 0.0
    return node.op_type == "Concat" or (node.op_type in SELECTS and node.input[0] == tensor and len(node.output) == 1)
