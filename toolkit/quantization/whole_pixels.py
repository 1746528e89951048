"""Pixels are whole numbers: an INT8 file hands them to its first convolution as they are, without any rounding.

A normalized pixel, (pixel / 255 - mean) / std, falls between the steps of int8, and that rounding is the largest single
error of a quantized ResNet. `pixel - 128` is an int8 number already. So the factor of each color goes into the weights
of the first convolution, and what is left is that zero, with which a convolution pads, stands for 128 instead of the
mean. The difference is a constant a color; a further input channel, constant inside the image and zero where the
convolution pads, carries it: the sum of w (x + c) is the sum of w x, plus the sum of w c times one. TensorRT's int8
formats hold four channels or 32 whether an image has three or not.

The constant channel is a whole pixel too, and joins the colors before Mul and Add: a Pad right before QuantizeLinear
with another value than zero is misread by an engine that quantizes first and pads with the float (OpenVINO 2026.4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from toolkit.contracts import Float32, WeightsAsInt8
from toolkit.graph.edit import add_constants, arrays_of, drop_unread_initializers, set_nodes
from toolkit.quantization.scales import LEVELS, nearest_weights

if TYPE_CHECKING:
    import onnx

MIDDLE = 128  # uint8 less this is int8
MOST_CONSTANTS = 3  # channels; that many hold the mean of any RGB image, wherever it lies between black and white
PIXELS = "preprocess/pixels"
BYTE_PADS = "preprocess.byte_pads"  # a graph that reads the images' bytes has it
TO_NCHW = [0, 3, 1, 2]


@dataclass(frozen=True)
class FirstConvolution:
    """How the first convolution of a graph can read whole pixels.

    Attributes:
        way: names of the nodes from the images to it: Cast, Mul and Add, and a Transpose among them.
        name: of the convolution.
        step: what one step of a pixel becomes: a power of two, so that nothing is rounded, near the old factors.
        constants: how many constant channels follow the colors.
        constant: what they hold, in steps of a pixel about 128; 1 to 127.
        weights: float32 (C_out, colors + constants, kH, kW).
        bias: float32 (C_out,), with what rounding the weights of the constant channels to int8 takes away: except where
            the convolution pads that is a constant too.
    """

    way: tuple[str, ...]
    name: str
    step: float
    constants: int
    constant: int
    weights: Float32
    bias: Float32

    @property
    def pixel(self) -> int:
        """What the constant channels hold, as a pixel: 129 to 255."""
        return MIDDLE + self.constant

    def pads(self, axis: int) -> NDArray[np.int64]:
        """The input `pads` of ONNX Pad: nothing before, `constants` behind on `axis`."""
        pads = np.zeros(8, np.int64)
        pads[4 + axis] = self.constants
        return pads


def with_whole_pixels(
    model: onnx.ModelProto, keep_float: frozenset[str] = frozenset(), as_int8: WeightsAsInt8 = nearest_weights
) -> tuple[onnx.ModelProto, FirstConvolution | None]:
    """A copy to quantize whose first convolution reads `PIXELS`: float32 steps of a pixel about 128.

    With the weights of its constant channels rounded by `as_int8` it is the same function, except where the convolution
    pads. Where a graph does anything else with its images than normalize them for one convolution, or that convolution
    is one of `keep_float`, the copy is unchanged, and None stands beside it.
    """
    import onnx

    result = onnx.ModelProto()
    result.CopyFrom(model)
    found = first_convolution(model, as_int8)
    if found is None or found.name in keep_float:
        return result, None
    graph = result.graph
    (convolution,) = (node for node in graph.node if node.name == found.name)
    weights, bias = (f"{convolution.input[1]}.{what}" for what in ("pixels", "pixels_bias"))
    convolution.input[:] = [PIXELS, weights, bias]
    rest = [node for node in graph.node if node.name not in found.way]
    del graph.value_info[:]
    set_nodes(graph, [*_centring(graph.input[0].name), *rest])
    drop_unread_initializers(graph)
    add_constants(
        graph,
        {
            "preprocess.step": np.asarray(found.step, np.float32),
            "preprocess.middle": np.asarray(-MIDDLE * found.step, np.float32),
            "preprocess.pads": found.pads(1),
            "preprocess.constant": np.asarray(found.pixel, np.float32),
            weights: found.weights,
            bias: found.bias,
        },
    )
    return result, found


def _centring(images: str) -> list[Any]:
    """Nodes from images to `PIXELS`. TensorRT takes no Transpose of uint8, so the Cast comes first.

    Whole numbers up to 255 times a power of two: float32 rounds nothing, wherever the Pad stands.
    """
    from onnx import TensorProto, helper

    steps: tuple[tuple[str, list[str], dict[str, Any]], ...] = (
        ("Cast", [], {"to": TensorProto.FLOAT}),
        ("Transpose", [], {"perm": TO_NCHW}),
        ("Pad", ["preprocess.pads", "preprocess.constant"], {}),
        ("Mul", ["preprocess.step"], {}),
        ("Add", ["preprocess.middle"], {}),
    )
    nodes, last = [], images
    for kind, constants, attributes in steps:
        # Names of their own, because files of a bundle are compared tensor by tensor.
        output = PIXELS if kind == "Add" else f"{PIXELS}/{kind}_output"
        nodes.append(helper.make_node(kind, [last, *constants], [output], f"preprocess/{kind}", **attributes))
        last = output
    return nodes


def read_bytes(graph: Any, found: FirstConvolution) -> None:
    """Makes the quantized pixels of a graph with zero point 128 of the images' own bytes; old constants stay behind.

    Two copies of bytes instead of five passes over floats: of the 200 us that a ResNet-20 takes on one thread of ONNX
    Runtime, 8 go.
    """
    from onnx import helper

    images, quantized = graph.input[0].name, f"{PIXELS}_quantized"
    pad = [images, BYTE_PADS, "preprocess.byte"]
    first = [
        helper.make_node("Pad", pad, ["preprocess/bytes"], "preprocess/Pad"),
        helper.make_node("Transpose", ["preprocess/bytes"], [quantized], "preprocess/Transpose", perm=TO_NCHW),
    ]
    floats = {PIXELS, quantized, *(f"{PIXELS}/{kind}_output" for kind in ("Cast", "Transpose", "Pad", "Mul"))}
    set_nodes(graph, [*first, *(node for node in graph.node if node.output[0] not in floats)])
    add_constants(graph, {BYTE_PADS: found.pads(3), "preprocess.byte": np.asarray(found.pixel, np.uint8)})


def first_convolution(model: onnx.ModelProto, as_int8: WeightsAsInt8 = nearest_weights) -> FirstConvolution | None:
    """The convolution that alone reads the normalized images of a graph, if it can read whole pixels."""
    values = arrays_of(model.graph)
    nodes = _chain(model.graph, values)
    if not nodes:
        return None
    way, convolution = nodes[:-1], nodes[-1]
    weights = values[convolution.input[1]].astype(np.float64)
    colors = weights.shape[1]
    normalized = [node for node in way if node.op_type in ("Mul", "Add")]
    turned = [any(node.op_type == "Transpose" for node in way[: way.index(node)]) for node in normalized]
    constants = [values[node.input[1]] for node in normalized]
    factors, offsets = (_of_each_color(c, colors, 1 if t else 3) for c, t in zip(constants, turned, strict=True))
    if factors is None or offsets is None or not (factors > 0).all():
        return None
    scaled = weights * factors
    # What is normalized is (pixel - 128) * factor + (128 * factor + offset); constant channels carry the second part.
    carried = (weights * (MIDDLE * factors + offsets)).sum(axis=1, keepdims=True)
    widest = np.maximum(np.abs(scaled).max(axis=(1, 2, 3)), np.finfo(np.float64).tiny)
    # So many steps of a pixel that no output channel needs a wider int8 scale than its colors do.
    needed = float((np.abs(carried).max(axis=(1, 2, 3)) / widest).max())
    count = max(1, math.ceil(needed / LEVELS))
    if count > MOST_CONSTANTS:
        return None
    constant = max(1, math.ceil(needed / count))
    step = 2.0 ** round(float(np.log2(factors).mean()))
    ones = np.repeat(carried / (count * constant), count, axis=1)
    whole = (np.concatenate([scaled, ones], axis=1) / step).astype(np.float32)
    left = whole - as_int8(whole)
    bias = left[:, colors:].sum(axis=(1, 2, 3), dtype=np.float64) * (constant * step)
    if len(convolution.input) > 2:
        bias = bias + values[convolution.input[2]]
    names = tuple(node.name for node in way)
    return FirstConvolution(names, convolution.name, step, count, constant, whole, bias.astype(np.float32))


def _chain(graph: Any, values: dict[str, Any]) -> list[Any]:
    """The nodes from uint8 images to the convolution that alone reads them; none where there is anything else."""
    from onnx import TensorProto

    images = graph.input[0]
    if len(graph.input) != 1 or images.type.tensor_type.elem_type != TensorProto.UINT8:
        return []
    name, steps, nodes = images.name, ["Cast", "Mul", "Add", "Conv"], []
    while steps:
        readers = [node for node in graph.node if name in node.input]
        if len(readers) != 1 or readers[0].input[0] != name:
            return []
        (node,) = readers
        if node.op_type == steps[0] and all(other in values for other in node.input[1:]):
            steps.pop(0)
        elif node.op_type != "Transpose" or list(node.attribute[0].ints) != TO_NCHW:
            return []
        nodes.append(node)
        name = node.output[0]
    groups = [attribute.i for attribute in node.attribute if attribute.name == "group"]
    return [] if groups and groups[0] != 1 else nodes


def _of_each_color(values: Any, colors: int, axis: int) -> NDArray[np.float64] | None:
    """Constants of the normalization as float64 (1, C, 1, 1); None where they differ from place to place."""
    shape = (1,) * (4 - values.ndim) + values.shape
    if values.ndim > 4 or any(size != 1 for index, size in enumerate(shape) if index != axis):
        return None
    return np.broadcast_to(values.astype(np.float64).reshape(-1), (colors,)).reshape(1, -1, 1, 1)
