"""What an ONNX file would become when it is taken apart: counted on the file as it is, refused where it is too much."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.errors import ModelError
from toolkit.storage.limits import MADE_BYTES, ONNX_BRANCHES, ONNX_DEPTH, ONNX_NODES, ONNX_WIRES

REPEATS = frozenset({"Loop", "Scan"})
STANDARD = ("", "ai.onnx")


def require_bounded(path: Path, model: Any) -> None:
    """Refuses a graph that grows beyond every network, calls itself, repeats a part, or makes giant constants.

    Args:
        model: an onnx.ModelProto, as it was read.

    Raises:
        ModelError: says which and how much.
    """
    functions = {(function.domain, function.name): function for function in model.functions}
    nodes = _Count(path, functions).of(model.graph.node, 0)
    if nodes > ONNX_NODES:
        raise ModelError(
            f"{path} has more nodes than any classifier",
            found=f"{nodes:,}" if nodes < 10**9 else "more than a billion, with its functions taken apart",
            allowed=f"{ONNX_NODES:,}, with functions taken apart",
        )
    constants = _shapes(model.graph)
    inner = _all_nodes(model.graph.node)
    borrowed = next((node for node in inner if any(one.ref_attr_name for one in node.attribute)), None)
    if borrowed is not None:
        raise ModelError(f"{path} is not a whole ONNX file", found=f"'{borrowed.name}' takes from a function around it")
    everywhere = [node for graph in (model.graph, *model.functions) for node in _all_nodes(graph.node)]
    _require_few(path, "nodes in branches", len(everywhere) - _outer(model), ONNX_BRANCHES)
    wires = sum(len(node.input) + len(node.output) + len(node.attribute) for node in everywhere)
    _require_few(path, "inputs, outputs and attributes of nodes", wires, ONNX_WIRES)
    _require_no_text(path, model, everywhere)
    for node in everywhere:
        if node.domain in STANDARD and node.op_type in REPEATS:
            raise ModelError(
                f"{path} runs a part of itself again and again",
                found=f"{node.op_type} '{node.name}'",
                allowed="a network whose layers run once",
                fix="export again, with a fixed number of steps written out",
            )
        if node.op_type == "ConstantOfShape" and node.input and node.input[0] in constants:
            _require_small(path, node, constants[node.input[0]])


def _outer(model: Any) -> int:
    return sum(len(graph.node) for graph in (model.graph, *model.functions))


def _require_few(path: Path, what: str, found: int, most: int) -> None:
    if found > most:
        raise ModelError(f"{path} has more {what} than any classifier", found=f"{found:,}", allowed=f"{most:,}")


def _require_no_text(path: Path, model: Any, nodes: list[Any]) -> None:
    """Refuses tensors of strings: each of their elements may be megabytes, which no shape says."""
    from onnx import TensorProto

    text = TensorProto.STRING
    found = [f"'{tensor.name}'" for tensor in model.graph.initializer if tensor.data_type == text]
    for node in nodes:
        for one in node.attribute:
            constant = node.op_type == "Constant" and (one.name.startswith("value_string") or one.t.data_type == text)
            if constant or (node.op_type == "Cast" and one.name == "to" and one.i == text):
                found.append(f"{node.op_type} '{node.name}'")
    if found:
        raise ModelError(f"{path} holds text", found=", ".join(found[:8]), allowed="numbers: a network of images")


@dataclass
class _Count:
    """Nodes with functions taken apart, each function counted once."""

    path: Path
    functions: dict[tuple[str, str], Any]
    known: dict[tuple[str, str], int] = field(default_factory=dict)
    open: set[tuple[str, str]] = field(default_factory=set)

    def of(self, nodes: Any, depth: int) -> int:
        """Of some nodes and all that is in them."""
        if depth > ONNX_DEPTH:
            raise ModelError(
                f"{self.path} nests graphs or functions too deeply", allowed=f"{ONNX_DEPTH} inside one another"
            )
        return sum(self.of_node(node, depth) for node in nodes)

    def of_node(self, node: Any, depth: int) -> int:
        """A function's body in the place of its call."""
        inside = sum(self.of(graph.node, depth + 1) for graph in _graphs(node))
        name = (node.domain, node.op_type)
        return inside + (self.of_function(name, depth) if name in self.functions else 1)

    def of_function(self, name: tuple[str, str], depth: int) -> int:
        """Once for all of its calls."""
        if name in self.open:
            raise ModelError(f"{self.path} has a function that calls itself", found="::".join(name))
        if name not in self.known:
            self.open.add(name)
            self.known[name] = self.of(self.functions[name].node, depth + 1)
            self.open.remove(name)
        return self.known[name]


def _graphs(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _all_nodes(nodes: Any) -> Iterator[Any]:
    for node in nodes:
        yield node
        for graph in _graphs(node):
            yield from _all_nodes(graph.node)


def _shapes(graph: Any) -> dict[str, Any]:
    """Constants that can be a shape, by name."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.output:
            tensors |= {node.output[0]: attribute.t} if (attribute := _value(node)) is not None else {}
    return {name: tensor for name, tensor in tensors.items() if len(tensor.dims) == 1 and tensor.dims[0] <= 16}


def _value(constant: Any) -> Any:
    return next((attribute for attribute in constant.attribute if attribute.name == "value"), None)


def _require_small(path: Path, node: Any, shape: Any) -> None:
    from onnx import numpy_helper

    try:
        sizes = [int(size) for size in numpy_helper.to_array(shape)]
    except (ValueError, TypeError):  # damaged, which the checker says
        return
    needed = 4 * math.prod(max(size, 0) for size in sizes)
    if needed > MADE_BYTES:
        raise ModelError(
            f"{path} makes a constant that is too large",
            found=f"'{node.name or node.op_type}' of {sizes}, {needed:,} bytes or so",
            allowed=f"{MADE_BYTES:,} bytes",
        )
