"""Single nodes of other exporters said plainly: a batch that is written down, padding that is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.graph.simplify import attributes

if TYPE_CHECKING:
    import onnx

PADDED = ("Conv", "MaxPool", "AveragePool", "LpPool")


def tensors_behind(node: Any) -> list[str]:
    """Names that the branches of an If or Loop read; they may be the graph's own."""
    from onnx import AttributeProto

    bodies = [a.g for a in node.attribute if a.type == AttributeProto.GRAPH]
    names = [name for body in bodies for inner in body.node for name in [*inner.input, *tensors_behind(inner)]]
    return names + [value.name for body in bodies for value in body.output]


def open_batch(model: onnx.ModelProto, batch: int) -> None:
    """Reshapes and Expands to constant sizes that begin with the batch take it from their input instead.

    Whether the first size is the batch or something else of that size is a guess; a wrong one shows when the graph
    is run with other batches.
    """
    from onnx import numpy_helper

    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    moving = {value.name for value in graph.input}
    for node in graph.node:
        if not moving.intersection(node.input):
            continue
        moving.update(node.output)
        if node.op_type not in ("Reshape", "Expand") or node.input[1] not in constants:
            continue
        sizes = numpy_helper.to_array(constants[node.input[1]]).copy()
        if sizes.ndim != 1 or not sizes.size or sizes[0] != batch:
            continue
        if node.op_type == "Expand":
            sizes[0] = 1  # a size of 1 leaves the input's own
        else:
            sizes[0] = 0 if -1 in sizes[1:] else -1
        name = f"{node.output[0]}_open"
        graph.initializer.append(numpy_helper.from_array(sizes, name))
        node.input[1] = name


def explicit_pads(model: onnx.ModelProto) -> int:
    """Writes SAME_UPPER, SAME_LOWER and VALID as numbers where the size of the input is known.

    Returns:
        How many nodes had to be written.
    """
    from onnx import helper, shape_inference

    inferred = shape_inference.infer_shapes(model).graph
    sizes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim][2:]
        for value in [*inferred.input, *inferred.value_info]
    }
    weights = {tensor.name: list(tensor.dims)[2:] for tensor in model.graph.initializer}
    written = 0
    for node in model.graph.node:
        facts = attributes(node)
        mode = facts.get("auto_pad", b"NOTSET").decode()
        if node.op_type not in PADDED or mode == "NOTSET":
            continue
        kernel = facts.get("kernel_shape") or weights.get(node.input[1] if len(node.input) > 1 else "")
        size = sizes.get(node.input[0])
        if not kernel or not size or not all(size):
            continue
        axes = range(len(kernel))
        strides, dilations = (facts.get(key, [1] * len(kernel)) for key in ("strides", "dilations"))
        pads = [_padding(mode, size[i], kernel[i], strides[i], dilations[i]) for i in axes]
        kept = [a for a in node.attribute if a.name not in ("auto_pad", "pads")]
        kept = [type(a).FromString(a.SerializeToString()) for a in kept]
        del node.attribute[:]
        node.attribute.extend(kept)
        node.attribute.append(helper.make_attribute("pads", [p[0] for p in pads] + [p[1] for p in pads]))
        written += 1
    return written


def _padding(mode: str, size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Before and behind, along one axis. Source: ONNX, operator Conv, auto_pad: ceil(size / stride) outputs."""
    if mode == "VALID":
        return 0, 0
    total = max((int(np.ceil(size / stride)) - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
    less, more = total // 2, total - total // 2
    return (less, more) if mode == "SAME_UPPER" else (more, less)
