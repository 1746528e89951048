"""Where Q/DQ pairs stand so that TensorRT fuses them.

Source: TensorRT developer guide, "Q/DQ Layer-Placement Recommendations": quantize the inputs of every convolution,
not its output; of a residual Add quantize the shortcut input only, because the fused convolution and Add take the
shortcut's precision. An Add that no convolution can be fused with stays in floating point, as do pool and classifier
head: a 64 x 10 product gains nothing and its rounding goes straight into the logits.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx


# What stands between a classifier written as a convolution and the logits.
PASSES_ON = frozenset({"Flatten", "Reshape", "Squeeze", "Identity", "GlobalAveragePool", "AveragePool", "ReduceMean"})


@dataclass(frozen=True)
class Placement:
    """Which inputs get a Q/DQ pair.

    Attributes:
        consumers: activation tensor to the (node name, input index) pairs that read its quantized form.
        weights: convolution weight tensors, quantized per output channel (axis 0).
    """

    consumers: dict[str, tuple[tuple[str, int], ...]]
    weights: tuple[str, ...]


def convolutions_in_graph(model: onnx.ModelProto) -> tuple[str, ...]:
    """Names of the convolutions that are quantized where none is kept in floating point, in order."""
    readers = {node for places in placement_in_graph(model).consumers.values() for node, _ in places}
    return tuple(node.name for node in model.graph.node if node.op_type == "Conv" and node.name in readers)


def placement_in_graph(model: onnx.ModelProto, keep_float: frozenset[str] = frozenset()) -> Placement:
    """Finds the convolutions and residual Adds of a graph with constant weights.

    Args:
        keep_float: names of convolutions that stay in floating point. Their input gets a pair only for the sake of
            another reader, and the Add that one of them is fused with keeps its shortcut in floating point too.
    """
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    depth, fusible = _depths(graph), _fusible(graph, makers)
    left = {_convolution_of_head(graph, makers)} | _convolutions_of_one_pixel(model) | keep_float
    consumers: dict[str, list[tuple[str, int]]] = {}
    weights = []
    for node in graph.node:
        if node.op_type == "Conv" and node.input[1] in constants and node.name not in left:
            consumers.setdefault(node.input[0], []).append((node.name, 0))
            weights.append(node.input[1])
        elif node.op_type == "Add" and not constants.intersection(node.input):
            shortcut = _shortcut(node, fusible, depth)
            if shortcut is None:
                continue
            fused_with = makers.get(node.input[1 - shortcut])
            if fused_with is None or fused_with.name not in keep_float:
                consumers.setdefault(node.input[shortcut], []).append((node.name, shortcut))
    return Placement({name: tuple(places) for name, places in consumers.items()}, tuple(dict.fromkeys(weights)))


def tensors_on_cpu(graph: Any, convolutions: frozenset[str]) -> dict[str, bool]:
    """The activations that the form for ONNX Runtime's CPU kernels quantizes; True for those that a ReLU makes.

    Its convolutions and Adds are fused where both their inputs and their output are quantized.

    Args:
        convolutions: names of those to quantize.
    """
    constants = {tensor.name for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    found: dict[str, bool] = {}
    for node in graph.node:
        if node.name in convolutions:
            touched = [node.input[0], _fused_output(graph, node)]
        elif node.op_type == "Add" and not constants.intersection(node.input):
            if not any(makers[name].name in convolutions for name in node.input if name in makers):
                continue
            touched = [*node.input, _fused_output(graph, node)]
        else:
            continue
        for name in touched:
            if name != graph.output[0].name:
                found[name] = name in makers and makers[name].op_type == "Relu"
    return found


def _fused_output(graph: Any, node: Any) -> str:
    """The output of a node, or of the ReLU that is its only reader: a zero point of 0 does what the ReLU does."""
    readers = [other for other in graph.node if node.output[0] in other.input]
    name: str = readers[0].output[0] if len(readers) == 1 and readers[0].op_type == "Relu" else node.output[0]
    return name


def _shortcut(add: Any, fusible: set[str], depth: dict[str, int]) -> int | None:
    """The input of an Add that is not the convolution which it is fused with; None where there is none to fuse.

    Without fusion a Q/DQ pair would cost accuracy and win nothing. Of two convolutions the deeper is fused.
    """
    fused = [index for index, name in enumerate(add.input) if name in fusible]
    if len(fused) == 2:
        return min((0, 1), key=lambda index: depth[add.input[index]])
    return 1 - fused[0] if fused else None


def _fusible(graph: Any, makers: dict[str, Any]) -> set[str]:
    """Outputs of convolutions that one node alone reads."""
    read = Counter(name for node in graph.node for name in node.input)
    return {name for name, node in makers.items() if node.op_type == "Conv" and read[name] == 1}


def _convolution_of_head(graph: Any, makers: dict[str, Any]) -> str | None:
    """The convolution that makes the logits, in nets whose classifier is one; it is a head like any Gemm."""
    node = makers.get(graph.output[0].name)
    while node is not None and node.op_type in PASSES_ON:
        node = makers.get(node.input[0])
    return node.name if node is not None and node.op_type == "Conv" else None


def _convolutions_of_one_pixel(model: onnx.ModelProto) -> set[str | None]:
    """Convolutions over 1x1 images: a vector times a matrix, in squeeze-and-excitation and in heads behind a pool.

    Like the head they gain nothing, and what is lost in a gate is lost for a whole channel. NVIDIA's ModelOpt leaves
    products with a vector out too.
    """
    from onnx import shape_inference

    sizes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in shape_inference.infer_shapes(model).graph.value_info
    }
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    return {node.name for node in convolutions if sizes.get(node.input[0], [])[2:] == [1, 1]}


def _depths(graph: Any) -> dict[str, int]:
    """Nodes on the longest way from an input to each tensor; ONNX keeps nodes in topological order."""
    depth: dict[str, int] = {}
    for node in graph.node:
        below = 1 + max((depth.get(name, 0) for name in node.input), default=0)
        depth.update(dict.fromkeys(node.output, below))
    return depth


def float_activations(model: onnx.ModelProto) -> list[str]:
    """Every float32 tensor that a node computes and that matters, in order; what the range of FP16 is checked on.

    What a ReLU alone reads is left out: its largest value is the ReLU's, and negative ones end as zero, even from -inf.
    Not exposing them keeps the engine's fusions and saves a fifth of the pass.
    """
    from onnx import TensorProto, shape_inference

    graph = shape_inference.infer_shapes(model).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in [*graph.value_info, *graph.output]}
    readers: dict[str, list[str]] = {value.name: ["a graph output"] for value in graph.output}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    return [
        name
        for node in graph.node
        for name in node.output
        if kinds.get(name) == TensorProto.FLOAT and readers.get(name) != ["Relu"]
    ]
