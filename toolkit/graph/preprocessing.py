"""An ONNX classifier with a float input, given the preprocessing that its caller used to do: uint8 NHWC images in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from toolkit.contracts import Preprocessing
from toolkit.graph.edit import add_constants, set_nodes

if TYPE_CHECKING:
    import onnx


def with_preprocessing(model: onnx.ModelProto, preprocessing: Preprocessing, nchw: bool) -> onnx.ModelProto:
    """A copy that takes `images`, uint8 (batch, H, W, C), and does `preprocessing` itself; nodes all have names."""
    import onnx
    from onnx import TensorProto, helper

    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    constants = {tensor.name for tensor in graph.initializer}
    (old,) = (value.name for value in graph.input if value.name not in constants)
    new = "images" if old != "images" else "images_uint8"
    shape = (-1, 1, 1) if nchw else (-1,)
    scale, shift = (np.reshape(value, shape) for value in preprocessing.scale_and_shift())
    add_constants(graph, {"preprocess.scale": scale, "preprocess.shift": shift})
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
    set_nodes(graph, [*steps, *graph.node])
    del graph.input[:]
    height, width, channels = preprocessing.shape
    graph.input.append(helper.make_tensor_value_info(new, TensorProto.UINT8, ["batch", height, width, channels]))
    onnx.checker.check_model(result, full_check=True)
    return result
