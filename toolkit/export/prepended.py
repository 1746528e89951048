"""An ONNX classifier with a float input, given the preprocessing that its caller used to do: uint8 NHWC images in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.contracts import Preprocessing
from toolkit.errors import ModelError

if TYPE_CHECKING:
    import onnx


def preprocessing_of_float_input(
    model: onnx.ModelProto, mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> tuple[Preprocessing, bool]:
    """What uint8 images need to become the model's input, and whether that is NCHW (else NHWC).

    Args:
        mean, std: of pixels scaled to 0..1, a channel each or one for all; None for 0 and 1: no normalisation.

    Raises:
        ModelError: not one float32 input of rank 4 with a fixed size, 1 or 3 channels and an open batch.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    kind = inputs[0].type.tensor_type if len(inputs) == 1 else None
    shape = [dim.dim_value for dim in kind.shape.dim] if kind is not None else []
    usable = kind is not None and kind.elem_type == 1 and len(shape) == 4 and shape[0] == 0 and all(shape[1:])
    if not usable or (shape[1] not in (1, 3) and shape[3] not in (1, 3)):
        raise ModelError(
            "this ONNX file takes no images that the toolkit can make",
            found=", ".join(f"{value.name} {_words(value)}" for value in inputs) or "no input",
            allowed="one float32 input (batch, C, H, W) or (batch, H, W, C), batch dynamic, C 1 or 3, H and W fixed",
            fix="export the model again with a dynamic batch",
        )
    nchw = shape[1] in (1, 3)
    channels, height, width = (shape[1], shape[2], shape[3]) if nchw else (shape[3], shape[1], shape[2])
    means, stds = (_for_each(values, channels, default) for values, default in ((mean, 0.0), (std, 1.0)))
    return Preprocessing(height, width, channels, means, stds), nchw


def _words(value: Any) -> str:
    kind = value.type.tensor_type
    return f"type {kind.elem_type} {[dim.dim_value or dim.dim_param or '?' for dim in kind.shape.dim]}"


def _for_each(values: tuple[float, ...] | None, channels: int, default: float) -> tuple[float, ...]:
    if values is None:
        return (default,) * channels
    return values * channels if len(values) == 1 else values


def with_preprocessing(model: onnx.ModelProto, preprocessing: Preprocessing, nchw: bool) -> onnx.ModelProto:
    """A copy that takes `images`, uint8 (batch, H, W, C), and does `preprocessing` itself; nodes all have names."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    constants = {tensor.name for tensor in graph.initializer}
    (old,) = (value.name for value in graph.input if value.name not in constants)
    new = "images" if old != "images" else "images_uint8"
    shape = (-1, 1, 1) if nchw else (-1,)
    for name, value in zip(("scale", "shift"), preprocessing.scale_and_shift(), strict=True):
        graph.initializer.append(numpy_helper.from_array(np.reshape(value, shape), f"preprocess.{name}"))
    steps = [helper.make_node("Cast", [new], ["preprocess/Cast_output"], "preprocess/Cast", to=TensorProto.FLOAT)]
    if nchw:
        made = helper.make_node(
            "Transpose", ["preprocess/Cast_output"], ["preprocess/Transpose_output"], "preprocess/Transpose",
            perm=[0, 3, 1, 2],
        )  # fmt: skip
        steps.append(made)
    scaled = [steps[-1].output[0], "preprocess.scale"]
    steps.append(helper.make_node("Mul", scaled, ["preprocess/Mul_output"], "preprocess/Mul"))
    steps.append(helper.make_node("Add", ["preprocess/Mul_output", "preprocess.shift"], [old], "preprocess/Add"))
    for index, node in enumerate(graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    nodes = [*steps, *graph.node]
    nodes = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:], graph.input[:]
    graph.node.extend(nodes)
    height, width, channels = preprocessing.shape
    graph.input.append(helper.make_tensor_value_info(new, TensorProto.UINT8, ["batch", height, width, channels]))
    onnx.checker.check_model(result, full_check=True)
    return result
