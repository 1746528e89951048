"""Which layers compute in INT8: convolutions and matrix products with constant weights, and which of them are left out.

Left out are the head, whose rounding goes straight into the logits, and what works on a single pooled pixel of a
gate: it gains nothing, and what is lost in a gate is lost for a whole channel. NVIDIA's ModelOpt leaves products with
a vector out too.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.graph.edit import arrays_of, attributes, dims_of

if TYPE_CHECKING:
    import onnx

PRODUCTS = ("Gemm", "MatMul")
# What stands between a classifier and the logits.
PASSES_ON = frozenset({"Flatten", "Reshape", "Squeeze", "Identity", "GlobalAveragePool", "AveragePool", "ReduceMean"})
POOLS = frozenset({"GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax", "AveragePool"})
SIGMOIDS = ("Sigmoid", "HardSigmoid")


@dataclass(frozen=True)
class Int8Share:
    """How much of a network an INT8 file computes in INT8.

    Attributes:
        convolutions, products: (in INT8, of all).
        multiplications: share of all multiplications of these layers, 0 to 1.
    """

    convolutions: tuple[int, int]
    products: tuple[int, int]
    multiplications: float

    def __bool__(self) -> bool:
        return bool(self.convolutions[0] or self.products[0])

    def __str__(self) -> str:
        parts = [(self.convolutions, "convolution"), (self.products, "matrix product")]
        words = [f"{n} of {of} {name}" + ("s" if of > 1 else "") for (n, of), name in parts if of]
        return "INT8: " + (", ".join(words) or "0 of 0 layers")


def axis_of_outputs(node: Any, ranks: dict[str, int]) -> int | None:
    """The axis of a layer's weights, its second input, that its output channels are on; None for any other node.

    Args:
        ranks: of the graph's constants.
    """
    rank = ranks.get(node.input[1]) if len(node.input) > 1 else None
    if node.op_type == "Conv" and rank is not None:
        return 0
    if node.op_type not in PRODUCTS or rank != 2 or node.input[0] in ranks:
        return None
    facts = attributes(node)
    return None if facts.get("transA") else int(not facts.get("transB"))


def axes_of_layers(model: onnx.ModelProto) -> dict[str, int]:
    """`axis_of_outputs` of every convolution and matrix product with constant weights, by the node's name."""
    ranks = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    found = {node.name: axis_of_outputs(node, ranks) for node in model.graph.node}
    return {name: axis for name, axis in found.items() if axis is not None}


def weights_of_layers(model: onnx.ModelProto) -> dict[str, tuple[str, Any]]:
    """The weights of each layer by its name: what the file calls them, and an array with the output channels first."""
    axes, arrays = axes_of_layers(model), arrays_of(model.graph)
    readers = {node.name: node.input[1] for node in model.graph.node if node.name in axes}
    return {name: (weight, np.moveaxis(arrays[weight], axes[name], 0)) for name, weight in readers.items()}


def layers_left_out(model: onnx.ModelProto) -> set[str]:
    """Names of the layers that stay in floating point for their place in the network."""
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    return _head(graph, makers, constants) | _convolutions_of_one_pixel(model) | _gates(graph, makers, constants)


def share_in_int8(model: onnx.ModelProto, layers: frozenset[str]) -> Int8Share:
    """Counts the `layers` that an INT8 file of `model` quantizes."""
    dims, axes = dims_of(model), axes_of_layers(model)
    sizes = {tensor.name: prod(tensor.dims) for tensor in model.graph.initializer}
    counted = {True: [0, 0], False: [0, 0]}
    done = total = 0
    for node in model.graph.node:
        if node.name not in axes:
            continue
        places = dims.get(node.output[0], [])[2:] if node.op_type == "Conv" else dims.get(node.output[0], [])[1:-1]
        work = sizes[node.input[1]] * prod(size for size in places if isinstance(size, int) and size)
        count = counted[node.op_type == "Conv"]
        count[0], count[1] = count[0] + (node.name in layers), count[1] + 1
        done, total = done + work * (node.name in layers), total + work
    (convolutions, of_all), (products, of_products) = counted[True], counted[False]
    return Int8Share((convolutions, of_all), (products, of_products), done / total if total else 0.0)


def _head(graph: Any, makers: dict[str, Any], constants: set[str]) -> set[str]:
    """The convolution or product that makes the logits."""
    node = makers.get(graph.output[0].name)
    while node is not None and (node.op_type in PASSES_ON or _of_one(node, constants)):
        node = makers.get(next(name for name in node.input if name not in constants))
    return {node.name} if node is not None and node.op_type in ("Conv", *PRODUCTS) else set()


def _of_one(node: Any, constants: set[str]) -> bool:
    """A sum or product with a constant."""
    return node.op_type in ("Add", "Mul", "Sub", "Div") and len(constants.intersection(node.input)) == 1


def _convolutions_of_one_pixel(model: onnx.ModelProto) -> set[str]:
    """Convolutions over 1x1 images: a vector times a matrix, in squeeze-and-excitation and in heads behind a pool."""
    dims = dims_of(model)
    return {
        node.name for node in model.graph.node if node.op_type == "Conv" and dims.get(node.input[0], [])[2:] == [1, 1]
    }


def _gates(graph: Any, makers: dict[str, Any], constants: set[str]) -> set[str]:
    """Products between a pool and a sigmoid that multiplies maps: squeeze-and-excitation written with Linear."""
    found: set[str] = set()
    for node in graph.node:
        if node.op_type in SIGMOIDS:
            found |= _products_up_to_pool(makers.get(node.input[0]), makers, constants)
    return found


def _products_up_to_pool(node: Any, makers: dict[str, Any], constants: set[str]) -> set[str]:
    """Those on the only way from `node` back to a pool; none where no pool is there."""
    found = set()
    while node is not None and node.op_type not in POOLS:
        if node.op_type in PRODUCTS:
            found.add(node.name)
        moving = {name for name in node.input if name and name not in constants}
        if len(moving) != 1:
            return set()
        node = makers.get(moving.pop())
    return set() if node is None else found
