"""Small edits of an ONNX graph in place; its constants, attributes and sizes as Python values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def arrays_of(graph: Any) -> dict[str, Any]:
    """The initializers of a GraphProto as numpy arrays, by name."""
    from onnx import numpy_helper

    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def attributes(node: Any) -> dict[str, Any]:
    """A node's attributes as Python values."""
    from onnx import helper

    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def drop_attribute(node: Any, *names: str) -> None:
    """Removes attributes by name; those that are not there are not missed."""
    kept = [type(a).FromString(a.SerializeToString()) for a in node.attribute if a.name not in names]
    del node.attribute[:]
    node.attribute.extend(kept)


def dims_of(model: Any) -> dict[str, list[Any]]:
    """Sizes of every tensor whose rank is known; an open size by its name."""
    from onnx import shape_inference

    graph = shape_inference.infer_shapes(model).graph
    return {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in [*graph.input, *graph.value_info, *graph.output]
        if value.type.tensor_type.HasField("shape")
    }


def set_nodes(graph: Any, nodes: Iterable[Any]) -> None:
    """Replaces all nodes; they may be the graph's own. A repeated protobuf field takes only copies."""
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def add_constants(graph: Any, constants: dict[str, Any]) -> None:
    """Adds numpy arrays as initializers."""
    from onnx import numpy_helper

    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())


def drop_unread_initializers(graph: Any) -> None:
    """Removes the constants that no node reads and that are no output."""
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    kept = [type(t).FromString(t.SerializeToString()) for t in graph.initializer if t.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
