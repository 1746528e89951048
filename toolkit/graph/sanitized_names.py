"""Names that every file of a bundle can hold: one a node, one a tensor, none that our own additions would take."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

INPUT, OUTPUT = "input", "logits"
# What INT8 and FP16 files call what they add to a tensor.
RESERVED = ("_scale", "_zero_point", "_quantized", "_dequantized", "_fp16")
# Blanks, quotes and colons: a calib.cache ends a name at a colon.
ODD = re.compile(r"[^\w./-]", re.ASCII)


def sanitize_names(model: onnx.ModelProto) -> None:
    """Renames in place; names that are plain and unique stay as they are."""
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
