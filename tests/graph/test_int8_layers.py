"""Claims about what INT8 computes: products like convolutions, neither heads nor gates, counted by multiplications."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from toolkit.graph.cpu_placement import cpu_placement, never_negative
from toolkit.graph.int8_layers import axes_of_layers, layers_left_out, share_in_int8

ZERO, SIX = np.array(0, np.float32), np.array(6, np.float32)


def net(*nodes: onnx.NodeProto, **shapes: Any) -> onnx.ModelProto:
    """X (n, 4, 8, 8) to `logits`; constants by shape, with normal values, or as they are given."""
    draws = np.random.default_rng(0)
    arrays = {k: v if isinstance(v, np.ndarray) else draws.normal(size=v).astype(np.float32) for k, v in shapes.items()}
    tensors = [numpy_helper.from_array(value, name) for name, value in arrays.items()]
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4, 8, 8])]
    out = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 5])]
    made = helper.make_graph(list(nodes), "g", ends, out, tensors)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def op(kind: str, inputs: str, output: str, **facts: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), [output], output, **facts)


HEAD = (op("GlobalAveragePool", "last", "p"), op("Flatten", "p", "f"), op("Gemm", "f w b", "logits", transB=1))
HEADS: dict[str, Any] = {"w": (5, 6), "b": (5,)}


def test_hidden_products_are_layers_and_the_one_that_makes_the_logits_is_not() -> None:
    model = net(
        op("Flatten", "x", "row"), op("Gemm", "row w1", "h", transB=1), op("Relu", "h", "r"), op("MatMul", "r w2", "m"),
        op("Add", "m b2", "a"), op("MatMul", "a w3", "z"), op("Add", "z b3", "logits"),
        w1=(16, 256), w2=(16, 8), b2=(8,), w3=(8, 5), b3=(5,),
    )  # fmt: skip
    assert axes_of_layers(model) == {"h": 0, "m": 1, "z": 1}
    assert layers_left_out(model) == {"z"}
    share = share_in_int8(model, frozenset({"h", "m"}))
    assert str(share) == "INT8: 2 of 3 matrix products"
    assert share.multiplications == pytest.approx((16 * 256 + 16 * 8) / (16 * 256 + 16 * 8 + 8 * 5))
    assert not share_in_int8(model, frozenset())


def test_a_gate_behind_a_pool_is_left_out_and_silu_is_no_gate() -> None:
    model = net(
        op("Conv", "x k", "c"), op("ReduceMean", "c", "pooled", axes=[2, 3], keepdims=0),
        op("MatMul", "pooled g1", "down"), op("Relu", "down", "r"), op("MatMul", "r g2", "up"),
        op("Sigmoid", "up", "gate"), op("Unsqueeze", "gate two", "wide"),
        op("Mul", "c wide", "last"), op("Flatten", "last", "row"), op("MatMul", "row s", "hidden"),
        op("Sigmoid", "hidden", "sigmoid"), op("Mul", "hidden sigmoid", "silu"), op("MatMul", "silu w", "logits"),
        k=(6, 4, 3, 3), g1=(6, 2), g2=(2, 6), two=np.array([2, 3]), s=(216, 8), w=(8, 5),
    )  # fmt: skip
    assert layers_left_out(model) == {"down", "up", "logits"}


def test_products_of_two_activations_and_transposed_inputs_are_no_layers() -> None:
    model = net(
        op("Flatten", "x", "row"), op("MatMul", "row s", "a"), op("Gemm", "a a", "square", transA=1),
        op("MatMul", "a square", "b"), op("MatMul", "b w", "logits"), s=(256, 8), w=(8, 5),
    )  # fmt: skip
    assert set(axes_of_layers(model)) == {"a", "logits"}


PASSES = {
    "MaxPool": (op("MaxPool", "r", "between", kernel_shape=[2, 2]),),
    "zeros around": (op("Pad", "r pads", "between"),),
    "itself twice": (op("Concat", "r r", "between", axis=1),),
    "turned about": (op("Transpose", "r", "between", perm=[0, 1, 3, 2]),),
}


@pytest.mark.parametrize("what", PASSES)
def test_what_passes_values_on_shares_their_range_and_stays_unsigned(what: str) -> None:
    channels = 12 if what == "itself twice" else 6
    model = net(
        op("Conv", "x k", "c"), op("Clip", "c zero six", "r"), *PASSES[what], op("Conv", "between k2", "last"), *HEAD,
        k=(6, 4, 3, 3), k2=(6, channels, 1, 1), zero=ZERO, six=SIX, pads=np.array([0, 0, 1, 1, 0, 0, 1, 1]), **HEADS,
    )  # fmt: skip
    found = cpu_placement(model, frozenset({"c", "last"}))
    assert found.unsigned == {"x": False, "r": True, "between": True, "last": False}
    assert found.clips == {"r"}
    one_way = what != "itself twice"  # r is read twice: each reader would have it in its own range
    assert found.shares == ({"r": "between"} if one_way else {})


def test_only_what_cannot_be_negative_counts_as_such() -> None:
    model = net(
        op("Sigmoid", "x", "s"), op("Mul", "s s", "squared"), op("Sub", "squared s", "less"),
        op("Pad", "s pads below", "padded"),
        op("AveragePool", "s", "mean", kernel_shape=[2, 2]), op("Max", "x squared", "larger"),
        op("Conv", "x k", "last"), *HEAD, pads=np.array([0, 0, 1, 1, 0, 0, 1, 1]), below=np.array(-1, np.float32),
        k=(6, 4, 3, 3), **HEADS,
    )  # fmt: skip
    assert {"s", "squared", "mean", "larger"} <= never_negative(model.graph)
    assert not {"less", "padded", "x", "last"} & never_negative(model.graph)
