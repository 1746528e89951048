"""A guess at what a graph for one batch says of it, written as what holds for any; folding and answers judge it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.graph.edit import Names, arrays_of, attributes, dims_of, drop_attribute, set_nodes
from toolkit.graph.normal.open_batch import STRETCHING

if TYPE_CHECKING:
    import onnx

SIZES = {"Expand": 1, "Reshape": 1, "Resize": 3}  # operators, and which of their inputs says a shape


def guess_open_batch(model: onnx.ModelProto, batch: int) -> None:
    """What a graph says of its one batch is taken from its input: sizes, and constants with one row for each image.

    Whether the first size is the batch or something else of that size is a guess; a wrong one shows when the graph
    is folded for other batches, or run with them.
    """
    graph, nodes, names = model.graph, list[Any](), Names(model.graph)
    constants, moving, dims = arrays_of(graph), {value.name for value in graph.input}, _dims_at(model, batch)
    for node in graph.node:
        if moving.intersection(node.input):
            moving.update(node.output)
            for place, name in enumerate(node.input):
                value = constants.get(name)
                if value is None or not value.ndim or not len(value):
                    continue
                if SIZES.get(node.op_type) == place and value[0] == batch:
                    node.input[place] = _guessed_sizes(names, nodes, node, value)
                elif _has_a_row_each(node, place, value, batch, dims):
                    node.input[place] = _guessed_row(names, nodes, node, place, value)
        nodes.append(node)
    set_nodes(graph, nodes)


def _dims_at(model: onnx.ModelProto, batch: int) -> dict[str, list[Any]]:
    """Sizes of a graph's tensors at one batch, as far as they can be told."""
    copy = type(model).FromString(model.SerializeToString())
    copy.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
    return dims_of(copy)


def _guessed_sizes(names: Names, nodes: list[Any], node: Any, value: Any) -> str:
    """What a node is to read instead of sizes that begin with the batch; the nodes that make it are added."""
    kind, name = node.op_type, node.output[0]
    if kind == "Resize":
        return _counted(names, nodes, f"{name}_sizes", value[1:])
    if kind == "Expand":
        return names.constant(f"{name}_open", np.array([1, *value[1:]]))  # a size of 1 leaves the input's own
    if value.all():
        drop_attribute(node, "allowzero")  # nothing was 0 before
    return names.constant(f"{name}_open", np.array([0 if -1 in value[1:] else -1, *value[1:]]))


def _has_a_row_each(node: Any, place: int, value: Any, batch: int, dims: dict[str, list[Any]]) -> bool:
    """Whether a constant has the same row for each image, and that is seen: another input has an axis of them there."""
    if value.ndim < 2 or len(value) != batch or (value != value[:1]).any():
        return False
    if node.op_type == "Concat":
        return bool(attributes(node)["axis"] % value.ndim)
    others = (dims.get(name, []) for at, name in enumerate(node.input) if at != place)
    stretches = node.op_type in STRETCHING and not (node.op_type == "MatMul" and value.ndim == 2)
    return stretches and any(len(sizes) >= value.ndim and sizes[-value.ndim] == batch for sizes in others)


def _guessed_row(names: Names, nodes: list[Any], node: Any, place: int, value: Any) -> str:
    """One row, and where rows are joined nodes that make as many of it as there are images."""
    from onnx import helper

    row = names.constant(f"{node.output[0]}_row_{place}", value[:1])
    if node.op_type != "Concat":
        return row
    sizes, rows = _counted(names, nodes, f"{row}_sizes", np.ones(value.ndim - 1, np.int64)), names.fresh(f"{row}_each")
    nodes.append(helper.make_node("Expand", [row, sizes], [rows], f"{row}/Expand"))
    return rows


def _counted(names: Names, nodes: list[Any], name: str, rest: Any) -> str:
    """Adds nodes that compute a shape: as many as there are images, and the rest."""
    from onnx import helper

    behind = names.constant(f"{name}_rest", rest)
    count, sizes = names.fresh(f"{name}_count"), names.fresh(name)
    nodes.append(helper.make_node("Shape", [names.graph.input[0].name], [count], f"{name}/Shape", end=1))
    nodes.append(helper.make_node("Concat", [count, behind], [sizes], f"{name}/Concat", axis=0))
    return sizes
