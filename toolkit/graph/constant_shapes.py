"""Shapes that a traced net computes as it runs, worked out beforehand: only the batch is open."""

from __future__ import annotations

from typing import Any

import numpy as np

from toolkit.graph.edit import arrays_of

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
