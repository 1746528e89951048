"""Claims about a softmax at a graph's end: in whatever form it is written, it is told from logits and cut off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from toolkit.compare.answers import LOGARITHMS, LOGITS, PROBABILITIES, SIGMOIDS, kind_of_answers, softmax
from toolkit.contracts import Float32
from toolkit.graph.answer_end import cut_to_logits, ends_in_sigmoids
from toolkit.runtime.ort.runner import OrtRunner

CLASSES = 5
CONSTANTS: dict[str, Any] = {
    "w": np.random.default_rng(0).normal(size=(6, CLASSES)).astype(np.float32),
    "one": np.array([1], np.int64), "axes": np.array([1, 2], np.int64), "row": np.array([0, -1], np.int64),
    "low": np.array(1e-7, np.float32), "high": np.array(1 - 1e-7, np.float32), "three": np.array(3, np.float32),
    "half": np.array(0.5, np.float32), "small": np.array(1e-9, np.float32), "percent": np.array(100, np.float32),
    "unit": np.array(1, np.float32), "tiny": np.array(0.01, np.float32),
    "prior": np.linspace(-1, 1, CLASSES).astype(np.float32),
}  # fmt: skip
Node = tuple[str, list[str], str, dict[str, object]]
MAX: Node = ("ReduceMax", ["z"], "top", {"axes": [1], "keepdims": 1})
MINUS: Node = ("Sub", ["z", "top"], "d", {})
SUM: Node = ("ReduceSum", ["e", "one"], "sum", {"keepdims": 1})
ENDS: dict[str, list[Node]] = {
    "Softmax": [("Softmax", ["z"], "y", {})],
    "Softmax, Flatten": [
        ("Unsqueeze", ["z", "axes"], "u", {}), ("Softmax", ["u"], "s", {"axis": 3}), ("Flatten", ["s"], "y", {}),
    ],
    "Softmax, Squeeze": [
        ("Unsqueeze", ["z", "one"], "u", {}), ("Softmax", ["u"], "s", {}), ("Squeeze", ["s", "one"], "y", {}),
    ],
    "Softmax, Reshape, Identity": [
        ("Softmax", ["z"], "s", {}), ("Reshape", ["s", "row"], "r", {}), ("Identity", ["r"], "y", {}),
    ],
    "Softmax, Mul": [("Softmax", ["z"], "s", {}), ("Mul", ["s", "percent"], "y", {})],
    "Softmax, Clip": [("Softmax", ["z"], "s", {}), ("Clip", ["s", "low", "high"], "y", {})],
    "ReduceMax, Sub, Exp, ReduceSum, Div": [
        MAX, MINUS, ("Exp", ["d"], "e", {}), SUM, ("Div", ["e", "sum"], "y", {}),
    ],
    "Exp, ReduceSum, Reciprocal, Mul": [
        ("Exp", ["z"], "e", {}), SUM, ("Reciprocal", ["sum"], "part", {}), ("Mul", ["e", "part"], "y", {}),
    ],
    "Exp, ReduceL1, Div": [
        ("Exp", ["z"], "e", {}), ("ReduceL1", ["e"], "sum", {"axes": [1]}), ("Div", ["e", "sum"], "y", {}),
    ],
    "LogSoftmax, Exp": [("LogSoftmax", ["z"], "l", {}), ("Exp", ["l"], "y", {})],
    "LogSoftmax": [("LogSoftmax", ["z"], "y", {})],
    "Softmax, Log": [("Softmax", ["z"], "s", {}), ("Log", ["s"], "y", {})],
    "Softmax, Add, Log": [("Softmax", ["z"], "s", {}), ("Add", ["s", "small"], "a", {}), ("Log", ["a"], "y", {})],
    "ReduceLogSumExp, Sub": [("ReduceLogSumExp", ["z"], "sum", {"axes": [1]}), ("Sub", ["z", "sum"], "y", {})],
    "ReduceMax, Sub, Exp, ReduceSum, Log, Sub": [
        MAX, MINUS, ("Exp", ["d"], "e", {}), SUM, ("Log", ["sum"], "l", {}), ("Sub", ["d", "l"], "y", {}),
    ],
}  # fmt: skip
OTHERS: dict[str, tuple[str, list[Node]]] = {
    "logits": (LOGITS, [("Identity", ["z"], "y", {})]),
    "ReLU": (LOGITS, [("Relu", ["z"], "y", {})]),
    "tanh": (LOGITS, [("Tanh", ["z"], "y", {})]),
    "sigmoids": (SIGMOIDS, [("Sigmoid", ["z"], "y", {})]),
    "a mean of two softmaxes": (
        PROBABILITIES,
        [
            ("Softmax", ["z"], "s", {}), ("Neg", ["z"], "n", {}), ("Softmax", ["n"], "t", {}),
            ("Add", ["s", "t"], "a", {}), ("Mul", ["a", "half"], "y", {}),
        ],
    ),
}  # fmt: skip


def graph(nodes: list[Node], scale: float = 1.0) -> onnx.ModelProto:
    """`x` (batch, 6) through a matrix to `z` (batch, classes), and on to `y`."""
    made = [helper.make_node("MatMul", ["x", "w"], ["z"], "head")]
    made += [helper.make_node(kind, names, [out], f"end_{out}", **facts) for kind, names, out, facts in nodes]
    ends = [
        helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 6]),
        helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", CLASSES]),
    ]
    read = {name for node in made for name in node.input}
    values = {name: value * np.float32(scale) if name == "w" else value for name, value in CONSTANTS.items()}
    tensors = [numpy_helper.from_array(value, name) for name, value in values.items() if name in read]
    body = helper.make_graph(made, "g", ends[:1], ends[1:], tensors)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def answers(model: onnx.ModelProto, x: Float32) -> Float32:
    with OrtRunner(model.SerializeToString(), label="end") as runner:
        found: Float32 = runner.session.run(None, {"x": x})[0]
    return found


@pytest.fixture
def x() -> Float32:
    return np.random.default_rng(1).normal(size=(40, 6)).astype(np.float32)


@pytest.mark.parametrize("scale", [0.05, 1.0, 12.0])
@pytest.mark.parametrize("name", ENDS)
def test_a_softmax_in_any_written_form_is_cut_off_to_the_very_logits(name: str, scale: float, x: Float32) -> None:
    model = graph(ENDS[name], scale)
    assert set(cut_to_logits(model, [x[:7], x[7:]]).operators.split(", ")) >= set(name.split(", ")) - {"Squeeze"}
    assert np.allclose(answers(model, x), x @ (CONSTANTS["w"] * np.float32(scale)), rtol=1e-5, atol=1e-5)
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_softmax_of_one_tensor_stays_and_is_named_by_its_numbers(name: str, x: Float32) -> None:
    kind, nodes = OTHERS[name]
    model = graph(nodes)
    before = model.SerializeToString()
    assert not cut_to_logits(model, [x]).operators
    assert model.SerializeToString() == before
    assert kind_of_answers(answers(model, x)) == kind


@pytest.mark.parametrize("scale", [1.0, 12.0])
def test_what_stands_between_the_logits_and_the_softmax_stays(scale: float, x: Float32) -> None:
    times: Node = ("Mul", ["z", "three"], "m", {})
    prior: Node = ("Sub", ["m", "prior"], "p", {})
    model = graph([times, prior, ("Softmax", ["p"], "y", {})], scale)
    cut_to_logits(model, [x])
    wanted = 3 * x @ (CONSTANTS["w"] * np.float32(scale)) - CONSTANTS["prior"]
    assert np.allclose(answers(model, x), wanted, rtol=1e-5, atol=1e-4)


def test_a_softmax_of_a_softmax_keeps_the_first(x: Float32) -> None:
    model = graph([("Softmax", ["z"], "s", {}), ("Softmax", ["s"], "y", {})])
    whole = answers(model, x)
    cut_to_logits(model, [x])
    assert np.allclose(softmax(answers(model, x)), whole, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        (LOGITS, lambda z: z),
        (LOGITS, lambda z: z * np.nan),
        (LOGITS, lambda z: np.zeros_like(z)),
        (PROBABILITIES, softmax),
        (PROBABILITIES, lambda z: softmax(z).round(4)),
        (LOGARITHMS, lambda z: np.log(softmax(z))),
        (LOGARITHMS, lambda z: np.where(softmax(z) < 0.05, -np.inf, np.log(softmax(z)))),
        (SIGMOIDS, lambda z: 1 / (1 + np.exp(-z))),
    ],
)
def test_answers_are_told_by_their_numbers(kind: str, make: Callable[[Float32], Float32], x: Float32) -> None:
    logits = 2 * x @ CONSTANTS["w"]
    found = make(logits).astype(np.float32)
    if np.isneginf(found).any():  # what is left of a row must still sum to 1
        found -= np.log(np.exp(found).sum(axis=1, keepdims=True))
    assert kind_of_answers(found) == kind


@pytest.mark.parametrize(
    ("nodes", "is_sigmoid"),
    [
        ([("Sigmoid", ["z"], "y", {})], True),
        ([("HardSigmoid", ["z"], "y", {})], True),
        ([("Sigmoid", ["z"], "s", {}), ("Reshape", ["s", "row"], "y", {})], True),
        (
            [("Neg", ["z"], "n", {}), ("Exp", ["n"], "e", {}), ("Add", ["e", "unit"], "a", {}),
             ("Reciprocal", ["a"], "y", {})],
            True,
        ),
        ([("Abs", ["z"], "a", {}), ("Mul", ["a", "tiny"], "y", {})], False),
        ([("Softmax", ["z"], "y", {})], False),
    ],
)  # fmt: skip
def test_sigmoids_are_told_from_logits_that_are_all_between_0_and_1(
    nodes: list[Node], is_sigmoid: bool, x: Float32
) -> None:
    assert ends_in_sigmoids(graph(nodes), [x]) is is_sigmoid
