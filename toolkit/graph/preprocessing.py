"""An ONNX classifier with a float input, given the preprocessing that its caller used to do: uint8 NHWC images in."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.contracts import Preprocessing
from toolkit.graph.edit import add_constants, drop_unread_initializers, set_nodes

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
    last = "preprocess/Add_output" if preprocessing.bgr else old
    steps.append(helper.make_node("Add", ["preprocess/Mul_output", "preprocess.shift"], [last], "preprocess/Add"))
    if preprocessing.bgr:
        add_constants(graph, {"preprocess.order": np.array([2, 1, 0], np.int64)})
        axis = 1 if nchw else 3
        steps.append(helper.make_node("Gather", [last, "preprocess.order"], [old], "preprocess/Gather", axis=axis))
    for index, node in enumerate(graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    set_nodes(graph, [*steps, *graph.node])
    del graph.input[:]
    height, width, channels = preprocessing.shape
    graph.input.append(helper.make_tensor_value_info(new, TensorProto.UINT8, ["batch", height, width, channels]))
    turn_weights_in_place(graph)
    onnx.checker.check_model(result, full_check=True)
    return result


def turn_weights_in_place(graph: Any) -> bool:
    """Turns the input channels of the first convolutions about instead of the pixels', where nothing else reads those.

    A Gather costs a kernel on the device, and stands between the pixels and the convolution that takes them whole.

    Returns:
        Whether the Gather of the preprocessing is gone.
    """
    from onnx import numpy_helper

    gather = next((node for node in graph.node if node.op_type == "Gather" and node.name == "preprocess/Gather"), None)
    if gather is None:
        return False
    readers = [node for node in graph.node if gather.output[0] in node.input]
    weights = {tensor.name: tensor for tensor in graph.initializer}
    shared = Counter(name for node in graph.node for name in node.input)
    if not readers or not all(_is_turnable(node, weights, shared) for node in readers):
        return False
    for node in readers:
        turned = numpy_helper.to_array(weights[node.input[1]])[:, ::-1]
        weights[node.input[1]].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(turned), node.input[1]))
        node.input[0] = gather.input[0]
    set_nodes(graph, [node for node in graph.node if node.name != gather.name])
    drop_unread_initializers(graph)
    return True


def _is_turnable(node: Any, weights: dict[str, Any], shared: Counter[str]) -> bool:
    grouped = any(attribute.name == "group" and attribute.i != 1 for attribute in node.attribute)
    return node.op_type == "Conv" and not grouped and node.input[1] in weights and shared[node.input[1]] == 1


def renormalized(model: onnx.ModelProto, preprocessing: Preprocessing) -> onnx.ModelProto | None:
    """A copy with another mean and std, the order of channels as it was; None for a graph that has them elsewhere."""
    import onnx
    from onnx import numpy_helper

    result = onnx.ModelProto()
    result.CopyFrom(model)
    scale, shift = preprocessing.scale_and_shift()
    new = {"preprocess.scale": scale, "preprocess.shift": shift}
    tensors = [tensor for tensor in result.graph.initializer if tensor.name in new]
    if len(tensors) != len(new):
        return None
    for tensor in tensors:
        shape = numpy_helper.to_array(tensor).shape
        tensor.CopyFrom(numpy_helper.from_array(new[tensor.name].reshape(shape), tensor.name))
    return result
