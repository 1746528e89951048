"""Claims about where Q/DQ pairs stand in nets that we did not write."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from toolkit.calibration.record import Record, sha256_of_graph
from toolkit.graph.qdq_placement import placement_in_graph
from toolkit.quantization.qdq import qdq_from_ranges


def conv(name: str, reads: str, weight: str = "w", **attributes: Any) -> Any:
    """A 3x3 convolution that keeps size and channels; its output has its name."""
    return helper.make_node("Conv", [reads, weight], [name], name, pads=[1, 1, 1, 1], **attributes)


def op(kind: str, name: str, *reads: str, **attributes: Any) -> Any:
    return helper.make_node(kind, list(reads), [name], name, **attributes)


def net(*nodes: Any, logits: str) -> onnx.ModelProto:
    """Images (batch, 4, 6, 6) through some nodes."""
    nodes[-1].output[0] = logits
    weights = [("w", (4, 4, 3, 3)), ("v", (4, 4, 3, 3)), ("d", (4, 1, 3, 3)), ("one", (4, 4, 1, 1)), ("fc", (4, 3))]
    draws = np.random.default_rng(0)
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4, 6, 6])],
        [helper.make_tensor_value_info(logits, TensorProto.FLOAT, ["batch", "classes"])],
        [numpy_helper.from_array(draws.normal(size=shape).astype(np.float32), name) for name, shape in weights],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


HEAD = (op("GlobalAveragePool", "p", "last"), op("Flatten", "f", "p"), op("MatMul", "m", "f", "fc"))


def consumers(*nodes: Any) -> dict[str, tuple[tuple[str, int], ...]]:
    """Which inputs of a net with a pool and a head are quantized."""
    copies = [type(node).FromString(node.SerializeToString()) for node in (*nodes, *HEAD)]
    return placement_in_graph(net(*copies, logits="logits")).consumers


def test_convolutions_that_share_an_input_share_its_pair() -> None:
    found = consumers(conv("a", "x"), conv("b", "x", "v"), op("Concat", "last", "a", "b", axis=1))
    assert found == {"x": (("a", 0), ("b", 0))}


@pytest.mark.parametrize("order", [("b", "x"), ("x", "b")])
def test_the_shortcut_is_what_does_not_come_from_the_convolution(order: tuple[str, str]) -> None:
    found = consumers(conv("a", "x"), conv("b", "a"), op("Add", "last", *order))
    assert found["x"] == (("a", 0), ("last", order.index("x")))
    assert "b" not in found


def test_a_shortcut_that_is_deeper_than_the_convolution_is_still_the_shortcut() -> None:
    nodes = [conv("a", "x"), op("Relu", "r", "a"), op("Sigmoid", "s", "r"), conv("b", "x", "v")]
    assert consumers(*nodes, op("Add", "last", "b", "s")) == {"x": (("a", 0), ("b", 0)), "s": (("last", 1),)}


def test_of_two_convolutions_the_deeper_is_fused_and_of_equals_one() -> None:
    projection = [conv("a", "x"), conv("b", "a"), conv("short", "x", "v")]
    assert consumers(*projection, op("Add", "last", "b", "short"))["short"] == (("last", 1),)
    assert consumers(*projection, op("Add", "last", "short", "b"))["short"] == (("last", 0),)
    equal = consumers(conv("a", "x"), conv("b", "x", "v"), op("Add", "last", "a", "b"))
    assert [name for name in equal if name != "x"] == ["a"]


def test_an_add_that_nothing_can_be_fused_with_stays_in_floating_point() -> None:
    gates = [conv("a", "x"), op("Relu", "r", "a"), op("Sigmoid", "s", "r"), op("Tanh", "t", "r")]
    assert consumers(*gates, op("Add", "last", "s", "t")) == {"x": (("a", 0),)}


def test_a_convolution_that_others_read_too_cannot_be_fused() -> None:
    """As in pre-activation nets: the first block's shortcut is the stem itself."""
    nodes = [conv("stem", "x"), op("Relu", "r", "stem"), conv("body", "r", "v"), op("Add", "last", "body", "stem")]
    assert consumers(*nodes) == {"x": (("stem", 0),), "r": (("body", 0),), "stem": (("last", 1),)}


def test_a_squeeze_and_excitation_stays_in_floating_point() -> None:
    squeeze = [
        conv("a", "x"),
        op("GlobalAveragePool", "g", "a"),
        helper.make_node("Conv", ["g", "one"], ["e"], "e"),
        op("Sigmoid", "s", "e"),
        op("Mul", "last", "a", "s"),
    ]
    assert consumers(*squeeze) == {"x": (("a", 0),)}


def test_a_classifier_that_is_a_convolution_is_a_head_like_any_other() -> None:
    nodes = [conv("a", "x"), op("Relu", "r", "a"), conv("c", "r", "v"), op("GlobalAveragePool", "p", "c")]
    found = placement_in_graph(net(*nodes, op("Flatten", "f", "p"), logits="logits"))
    assert found.consumers == {"x": (("a", 0),)}
    assert found.weights == ("w",)


def test_depthwise_and_shared_weights_are_quantized_once_and_by_channel() -> None:
    nodes = [conv("a", "x"), conv("b", "a"), conv("c", "b", "d", group=4), op("GlobalAveragePool", "p", "c")]
    model = net(*nodes, op("Flatten", "f", "p"), op("MatMul", "m", "f", "fc"), logits="logits")
    placement = placement_in_graph(model)
    assert placement.weights == ("w", "d")
    record = Record(dict.fromkeys(placement.consumers, 1.0), {}, {"graph_sha256": sha256_of_graph(model)}, ())
    quantized = qdq_from_ranges(model, record).graph
    scales = {t.name: numpy_helper.to_array(t).shape for t in quantized.initializer if t.name.endswith("_scale")}
    assert (scales["w_scale"], scales["d_scale"]) == ((4,), (4,))
    reads = {node.name: list(node.input) for node in quantized.node if node.op_type == "Conv"}
    assert [reads[name][1] for name in "abc"] == ["w_dequantized", "w_dequantized", "d_dequantized"]
