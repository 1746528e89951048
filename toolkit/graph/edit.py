"""Small edits of an ONNX graph in place, and its constants as arrays. A repeated protobuf field takes only copies."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def arrays_of(graph: Any) -> dict[str, Any]:
    """The initializers of a GraphProto as numpy arrays, by name."""
    from onnx import numpy_helper

    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def set_nodes(graph: Any, nodes: Iterable[Any]) -> None:
    """Replaces all nodes; they may be the graph's own."""
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
