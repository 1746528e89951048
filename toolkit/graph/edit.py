"""Small edits of an ONNX graph in place, its names, its constants as arrays. A protobuf field takes only copies."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

INPUT, OUTPUT = "input", "logits"
# What INT8 and FP16 files call what they add to a tensor.
RESERVED = ("_scale", "_zero_point", "_quantized", "_dequantized", "_fp16")
# Blanks, quotes and colons: a calib.cache ends a name at a colon.
ODD = re.compile(r"[^\w./-]", re.ASCII)


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


def sanitize_names(model: Any) -> None:
    """Gives nodes and tensors names that every file of a bundle can hold: unique, and none that our additions take.

    Names that are plain and unique stay as they are.
    """
    graph = model.graph
    taken = {INPUT, OUTPUT, "images"}
    new = {"": "", graph.input[0].name: INPUT, graph.output[0].name: OUTPUT}
    names = [tensor.name for tensor in graph.initializer] + [name for node in graph.node for name in node.output]
    for name in names:
        if name not in new:
            new[name] = _fresh(name, "tensor", taken)
    nodes: set[str] = set()
    for index, node in enumerate(graph.node):
        node.name = _fresh(node.name or f"{node.op_type}_{index}", node.op_type, nodes)
        node.input[:] = [new[name] for name in node.input]
        node.output[:] = [new[name] for name in node.output]
    for tensor in graph.initializer:
        tensor.name = new[tensor.name]
    graph.input[0].name, graph.output[0].name = INPUT, OUTPUT
    del graph.value_info[:]
    model.producer_name, model.producer_version, model.doc_string = "toolkit", "", ""


def _fresh(name: str, default: str, taken: set[str]) -> str:
    plain = ODD.sub("_", name) or default
    if plain.startswith(("preprocess/", "preprocess.")):
        plain = f"net.{plain}"
    if plain.endswith(RESERVED):
        plain += "_of_net"
    fresh, number = plain, 0
    while fresh in taken:
        number += 1
        fresh = f"{plain}_{number}"
    taken.add(fresh)
    return fresh
