"""What PyTorch's exporter writes in a roundabout way, said plainly: constants, shapes, pools, shared parameters."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from toolkit.graph.edit import add_constants, arrays_of, drop_unread_initializers, set_nodes

BATCH = "batch"
Sizes = list[Any]  # an int a size; BATCH where it is the open one
_ARITHMETIC = {"Add": int.__add__, "Sub": int.__sub__, "Mul": int.__mul__, "Div": int.__floordiv__}
_PASS_ON = ("Unsqueeze", "Squeeze", "Cast", "Floor", "Identity")


class Shapes:
    """What is known of the whole numbers in a graph.

    Args:
        graph: with its constants as initializers.
        dims: sizes of every tensor whose rank is known; an open size by its name.
    """

    def __init__(self, graph: Any, dims: dict[str, Sizes]) -> None:
        self.dims = dims
        self.makers = {name: node for node in graph.node for name in node.output}
        self.constants = arrays_of(graph)

    def target(self, reshape: Any) -> Sizes | None:
        """The constant shape of a Reshape, 0 for the batch; None where it is constant already or stays unknown."""
        if reshape.input[1] in self.constants:
            return None
        sizes = self.values(reshape.input[1])
        if sizes is None or BATCH in sizes[1:] or (0 in sizes[1:]):
            return None
        if sizes[0] == BATCH and self.dims.get(reshape.input[0], [None])[0] == BATCH:
            return [0, *sizes[1:]]  # ONNX: 0 takes the size from the input
        return None if sizes[0] == BATCH else sizes

    def values(self, name: str) -> Sizes | None:
        """The elements of a small tensor of whole numbers, flat; None where one is unknown."""
        if name in self.constants:
            flat = np.ravel(self.constants[name])
            return [int(value) for value in flat] if (flat == flat.astype(np.int64)).all() else None
        node = self.makers.get(name)
        if node is None:
            return None
        if node.op_type == "Shape" and not node.attribute:
            sizes = self.dims.get(node.input[0])
            known = sizes is not None and all(size == BATCH or (isinstance(size, int) and size > 0) for size in sizes)
            return sizes if known else None
        if node.op_type in _PASS_ON:
            return self.values(node.input[0])
        parts = [self.values(part) for part in node.input]
        return None if None in parts else _combined(node, parts)


def _combined(node: Any, parts: list[Any]) -> Sizes | None:
    if node.op_type == "Concat":
        return [value for part in parts for value in part]
    if node.op_type == "Gather" and all(isinstance(index, int) for index in parts[1]):
        return [parts[0][index] for index in parts[1]]
    compute = _ARITHMETIC.get(node.op_type)
    if compute is None or any(len(part) != 1 or not isinstance(part[0], int) for part in parts):
        return None
    return [compute(parts[0][0], parts[1][0])]


def tidied(model: Any) -> None:
    """Rewrites a freshly exported graph in place; the function it computes stays the same.

    Constant nodes become initializers and equal parameters get a copy each, so that whoever looks for a weight looks
    in one place. A mean over height and width becomes GlobalAveragePool, which every TensorRT reads alike and fuses.
    `x.view(x.size(0), -1)` becomes Flatten, and other shapes become constants: none is computed on the device.
    HardSwish becomes x * HardSigmoid(x), because it is not among TensorRT 8's operators (onnx-tensorrt,
    docs/operators.md).
    """
    graph = model.graph
    _inline_constants(graph)
    _inline_shared_initializers(graph)
    _pools_for_means(graph, _dims(model))
    while _constants_for_shapes(graph, _dims(model)):  # one shape that is known makes the next ones known
        pass
    _sigmoids_for_swishes(graph)
    _drop_unread(graph)


def attributes(node: Any) -> dict[str, Any]:
    """A node's attributes as Python values."""
    from onnx import helper

    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _inline_constants(graph: Any) -> None:
    kept = []
    for node in graph.node:
        value = attributes(node).get("value") if node.op_type == "Constant" else None
        if value is None:
            kept.append(node)
            continue
        tensor = graph.initializer.add()
        tensor.CopyFrom(value)
        tensor.name = node.output[0]
    set_nodes(graph, kept)


def _inline_shared_initializers(graph: Any) -> None:
    """Equal initializers come out as Identity nodes on one of them; a copy each keeps every parameter a constant."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    kept = []
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in constants:
            copy = graph.initializer.add()
            copy.CopyFrom(constants[node.input[0]])
            copy.name = node.output[0]
            constants[copy.name] = copy
        else:
            kept.append(node)
    set_nodes(graph, kept)


def _dims(model: Any) -> dict[str, list[Any]]:
    """Sizes of every tensor whose rank is known; an open size by its name."""
    from onnx import shape_inference

    graph = shape_inference.infer_shapes(model).graph
    return {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in [*graph.input, *graph.value_info, *graph.output]
        if value.type.tensor_type.HasField("shape")
    }


def _pools_for_means(graph: Any, dims: dict[str, list[Any]]) -> None:
    from onnx import helper

    nodes = []
    for node in graph.node:
        facts = attributes(node)
        axes = {axis % 4 for axis in facts.get("axes", ())}
        if node.op_type != "ReduceMean" or len(dims.get(node.input[0], ())) != 4 or axes != {2, 3}:
            nodes.append(node)
            continue
        kept, scope = facts.get("keepdims", 1), node.name.rpartition("/")[0]
        pooled = node.output[0] if kept else f"{node.output[0]}_pooled"
        name = f"{scope}/GlobalAveragePool"
        nodes.append(helper.make_node("GlobalAveragePool", [node.input[0]], [pooled], name))
        if not kept:
            nodes.append(helper.make_node("Flatten", [pooled], list(node.output), f"{scope}/Flatten", axis=1))
    set_nodes(graph, nodes)


def _sigmoids_for_swishes(graph: Any) -> None:
    from onnx import helper

    nodes = []
    for node in graph.node:
        if node.op_type != "HardSwish":
            nodes.append(node)
            continue
        scope, gate = node.name.rpartition("/")[0], f"{node.output[0]}_gate"
        name = f"{scope}/HardSigmoid"
        nodes.append(helper.make_node("HardSigmoid", [node.input[0]], [gate], name, alpha=1 / 6, beta=0.5))
        nodes.append(helper.make_node("Mul", [node.input[0], gate], list(node.output), f"{scope}/Mul"))
    set_nodes(graph, nodes)


def _constants_for_shapes(graph: Any, dims: dict[str, list[Any]]) -> bool:
    """Reshape to computed sizes of which only the batch is open; Flatten where all the rest becomes one axis.

    Returns:
        Whether there was one.
    """
    from onnx import helper

    shapes, nodes, found = Shapes(graph, dims), [], False
    for node in graph.node:
        target = shapes.target(node) if node.op_type == "Reshape" else None
        found = found or target is not None
        if target == [0, -1]:
            name = f"{node.name.rpartition('/')[0]}/Flatten"
            node = helper.make_node("Flatten", [node.input[0]], list(node.output), name, axis=1)
        elif target is not None:
            constant = f"{node.output[0]}_shape"
            add_constants(graph, {constant: np.array(target, np.int64)})
            node.input[1] = constant
        nodes.append(node)
    set_nodes(graph, nodes)
    return found


def _drop_unread(graph: Any) -> None:
    """Removes nodes and initializers that nothing reads, from the back to the front."""
    nodes = list(graph.node)
    readers = Counter(name for node in nodes for name in node.input)
    readers.update(value.name for value in graph.output)
    for node in reversed(list(nodes)):
        if not any(readers[name] for name in node.output):
            readers.subtract(node.input)
            nodes.remove(node)
    set_nodes(graph, nodes)
    drop_unread_initializers(graph)
