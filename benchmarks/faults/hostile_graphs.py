"""ONNX graphs and pickles that are well formed and mean harm, or nothing."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

IMAGES, LOGITS = ("x", TensorProto.FLOAT, ["n", 1, 16, 16]), ("y", TensorProto.FLOAT, ["n", 4])


def _model(nodes: list[Any], weights: dict[str, Any] | None = None, **other: Any) -> bytes:
    import numpy as np

    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()]
    shape = other.pop("shape", IMAGES)
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info(*shape)], [helper.make_tensor_value_info(*LOGITS)], tensors
    )
    opsets = [helper.make_opsetid("", 17), *other.pop("opsets", [])]
    data: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=8, **other).SerializeToString()
    return data


def graphs() -> Iterator[tuple[str, bytes]]:
    """A name and the bytes of a file."""
    import numpy as np

    node = helper.make_node
    end = [node("GlobalAveragePool", ["c"], ["p"]), node("Flatten", ["p"], ["f"]), node("Gemm", ["f", "w"], ["y"])]
    weights = {"k": np.zeros((8, 1, 3, 3), np.float32), "w": np.zeros((8, 4), np.float32)}
    conv = node("Conv", ["x", "k"], ["c"])
    yield "weights of zero", _model([conv, *end], weights)
    yield "weights of NaN", _model([conv, *end], weights | {"w": np.full((8, 4), np.nan, np.float32)})
    chain = [node("Relu", ["c" if i == 0 else f"c{i}"], [f"c{i + 1}"]) for i in range(20_000)]
    yield "20,000 nodes", _model([conv, *chain, node("GlobalAveragePool", ["c20000"], ["p"]), *end[1:]], weights)
    yield "a cycle", _model([node("Add", ["x", "c"], ["c"]), *end], weights)
    yield "a size of 2^31", _model([conv, *end], weights, shape=("x", TensorProto.FLOAT, ["n", 1, 2**31, 2**31]))
    yield "a negative size", _model([conv, *end], weights, shape=("x", TensorProto.FLOAT, [-7, 1, -16, 16]))
    yield "no such operator", _model([node("Nosuch", ["x"], ["c"]), *end], weights)
    yield "names of nothing", _model([node("Conv", ["", ""], ["c"]), *end], weights)
    filled = node("ConstantOfShape", ["s"], ["z"])
    more = [filled, node("ReduceSum", ["z"], ["r"], keepdims=0), conv, node("Add", ["c", "r"], ["c2"])]
    tail = [node("GlobalAveragePool", ["c2"], ["p"]), *end[1:]]
    yield "ConstantOfShape of 8 GiB", _model([*more, *tail], weights | {"s": np.array([1 << 31], np.int64)})
    yield "a Loop of 2^62", _model([_loop(), conv, node("Add", ["c", "r"], ["c2"]), *tail], weights | {
        "trips": np.array(1 << 62, np.int64), "true": np.array(True), "zero": np.zeros(1, np.float32)})  # fmt: skip
    yield "functions of 2^30 nodes", _nested(30, [conv, *end], weights)
    yield "a function that calls itself", _nested(0, [conv, *end], weights)
    model = onnx.load_from_string(_model([conv, *end], weights))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "../../../etc/passwd"), ("offset", "0"), ("length", "288")):
        tensor.external_data.add(key=key, value=value)
    yield "weights from /etc/passwd", model.SerializeToString()


def _loop() -> Any:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["v"], ["w2"])], "body",
        [helper.make_tensor_value_info(*e) for e in (("i", TensorProto.INT64, []), ("go", TensorProto.BOOL, []),
                                                     ("v", TensorProto.FLOAT, [1]))],
        [helper.make_tensor_value_info(*e) for e in (("on", TensorProto.BOOL, []), ("w2", TensorProto.FLOAT, [1]))],
    )  # fmt: skip
    return helper.make_node("Loop", ["trips", "true", "zero"], ["r"], body=body)


def _nested(depth: int, nodes: list[Any], weights: dict[str, Any]) -> bytes:
    """Functions that call the next one twice; with a depth of 0 one that calls itself."""
    opset = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    functions = []
    for level in range(max(depth, 1)):
        inner = "f0" if depth == 0 else f"f{level + 1}"
        last = depth and level == depth - 1
        calls = [helper.make_node("Relu" if last else inner, [a], [b], domain="" if last else "f")
                 for a, b in (("a", "m"), ("m", "b"))]  # fmt: skip
        functions.append(helper.make_function("f", f"f{level}", ["a"], ["b"], calls, opset))
    start = helper.make_node("f0", ["c"], ["c9"], domain="f")
    renamed = [helper.make_node("GlobalAveragePool", ["c9"], ["p"]), *nodes[2:]]
    return _model([nodes[0], start, *renamed], weights, functions=functions, opsets=[helper.make_opsetid("f", 1)])


def pickles() -> Iterator[tuple[str, bytes]]:
    """A name and the bytes of a checkpoint."""
    net = {
        "0.weight": torch.zeros(8, 1, 3, 3),
        "0.bias": torch.zeros(8),
        "4.weight": torch.zeros(4, 8),
        "4.bias": torch.zeros(4),
    }
    cyclic: dict[str, Any] = {"state_dict": net}
    cyclic["again"] = cyclic
    deep: Any = net
    for _ in range(100):
        deep = {"state_dict": deep}
    for name, value in (
        ("of another net", {name: tensor[..., None] for name, tensor in net.items()}),
        ("NaN", {name: tensor * float("nan") for name, tensor in net.items()}),
        ("cyclic", cyclic), ("deep", deep),
        ("meta", {name: tensor.to("meta") for name, tensor in net.items()}),
        ("sparse", {name: tensor.to_sparse() for name, tensor in net.items()}),
        ("quantized", {n: torch.quantize_per_tensor(t, 1.0, 0, torch.qint8) for n, t in net.items()}),
        ("expanded to 4 TiB", {n: torch.zeros(1).expand(1 << 20, 1 << 20) for n in net}),
        ("keys that are no names", {1: torch.zeros(1), None: 3}), ("a list", [net]), ("a number", 3),
        ("a name with half a surrogate", {"0.weight\ud800": torch.zeros(1)}),
    ):  # fmt: skip
        stream = io.BytesIO()
        try:
            torch.save(value, stream)
        except UnicodeEncodeError:  # Python's own pickle writes no such name
            continue
        yield name, stream.getvalue()
    yield "code", b"cos\nsystem\n(S'touch escaped'\ntR."
