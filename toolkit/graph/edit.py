"""Small edits of an ONNX graph in place; its names, constants, attributes and sizes as Python values."""

from __future__ import annotations

import itertools
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


def attributes(node: Any) -> dict[str, Any]:
    """A node's attributes as Python values."""
    from onnx import helper

    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def drop_attribute(node: Any, *names: str) -> None:
    """Removes attributes by name; those that are not there are not missed."""
    kept = [type(a).FromString(a.SerializeToString()) for a in node.attribute if a.name not in names]
    del node.attribute[:]
    node.attribute.extend(kept)


def tensors_behind(node: Any) -> list[str]:
    """Names that the branches of an If or Loop read; they may be the graph's own."""
    from onnx import AttributeProto

    bodies = [a.g for a in node.attribute if a.type == AttributeProto.GRAPH]
    names = [name for body in bodies for inner in body.node for name in [*inner.input, *tensors_behind(inner)]]
    return names + [value.name for body in bodies for value in body.output]


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


def free_name(name: str, taken: set[str]) -> str:
    """The name, or one with a number behind it; from now on it is taken."""
    numbered = (f"{name}_{number}" for number in itertools.count(1))
    found = next(each for each in itertools.chain([name], numbered) if each not in taken)
    taken.add(found)
    return found


class Names:
    """Those that tensors of a GraphProto have: whatever a pass adds gets another one."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.taken = {tensor.name for tensor in (*graph.initializer, *graph.input)}
        self.taken |= {name for node in graph.node for name in node.output}

    def fresh(self, name: str) -> str:
        """The name, or one like it that no tensor has."""
        return free_name(name, self.taken)

    def constant(self, name: str, value: Any) -> str:
        """Adds a numpy array as an initializer of this name or one like it; returns which."""
        found = self.fresh(name)
        add_constants(self.graph, {found: value})
        return found


def add_constants(graph: Any, constants: dict[str, Any]) -> None:
    """Adds numpy arrays as initializers, under names that nothing in the graph has."""
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
    return free_name(plain, taken)
