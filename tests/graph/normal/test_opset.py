"""Claims about opsets: whatever was said in 18 to 25 is said in 17 with the same answer, or refused by its operator."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from toolkit.errors import ModelError
from toolkit.graph.edit import attributes
from toolkit.graph.normal.folding import folded_at_batch
from toolkit.graph.normal.open_batch import BATCHES, with_open_batch
from toolkit.graph.normal.opset import OPSET, lower, opset_of, raised
from toolkit.runtime.ort.runner import OrtRunner

CASES: dict[str, tuple[int, str, dict[str, Any], dict[str, Any], int]] = {
    # opset, operator, its constants in order, attributes, outputs
    "mean over channels": (18, "ReduceMean", {"axes": np.array([1])}, {"keepdims": 1}, 1),
    "largest of a row": (20, "ReduceMax", {"axes": np.array([-1])}, {"keepdims": 0}, 1),
    "no axes, so a copy": (18, "ReduceL2", {}, {"noop_with_empty_axes": 1}, 1),
    "pad of two axes": (
        19, "Pad", {"pads": np.array([1, 0, 2, 1]), "value": np.array(0.5, np.float32), "axes": np.array([-1, 1])},
        {}, 1,
    ),
    "three parts, the last smaller": (18, "Split", {}, {"axis": 2, "num_outputs": 3}, 3),
    "groups, a scale a channel": (
        21, "GroupNormalization", {"g": np.linspace(1, 2, 4, dtype=np.float32), "b": np.ones(4, np.float32)},
        {"num_groups": 2}, 1,
    ),
    "groups, a scale a group": (
        18, "GroupNormalization", {"g": np.array([1, 2], np.float32), "b": np.zeros(2, np.float32)},
        {"num_groups": 2}, 1,
    ),
    "gelu": (20, "Gelu", {}, {}, 1),
    "gelu by tanh": (20, "Gelu", {}, {"approximate": "tanh"}, 1),
    "mish": (22, "Mish", {}, {}, 1),
    "scales of two axes": (
        19, "Resize", {"": None, "scales": np.array([2.0, 2.0], np.float32)}, {"axes": [2, 3]}, 1,
    ),
    "an average pool": (22, "AveragePool", {}, {"kernel_shape": [2, 2], "dilations": [1, 1]}, 1),
    "hardswish": (14, "HardSwish", {}, {}, 1),
    "old padding": (10, "Pad", {}, {"pads": [0, 0, 1, 1, 0, 0, 0, 0], "value": 0.25}, 1),
    "old squeeze": (9, "ReduceSum", {}, {"axes": [2], "keepdims": 0}, 1),
    "old clip": (6, "Clip", {}, {"min": 0.0}, 1),
}  # fmt: skip


def model_of(opset: int, kind: str, constants: dict[str, Any], facts: dict[str, Any], outputs: int) -> onnx.ModelProto:
    """X (n, 4, 7, 6) through one operator, the last of whose outputs is the answer."""
    names = [f"y{at}" for at in range(outputs)]
    nodes = [helper.make_node(kind, ["x", *constants], names, "it", **facts)]
    last = names[-1]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items() if value is not None]
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4, 7, 6])]
    out = [helper.make_tensor_value_info(last, TensorProto.FLOAT, None)]
    made = helper.make_graph(nodes, "g", ends, out, tensors)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def require_same_in_17(model: onnx.ModelProto) -> None:
    written = with_open_batch([folded_at_batch(raised(model, "it"), batch, "it") for batch in BATCHES], "it")
    lower(written, "it")
    assert opset_of(written) == OPSET
    onnx.checker.check_model(written, full_check=True)
    x = np.random.default_rng(0).normal(size=(3, 4, 7, 6)).astype(np.float32)
    answers = []
    for each in (model, written):
        with OrtRunner(each.SerializeToString()) as runner:
            answers.append(runner.session.run(None, {"x": x})[0])
    assert answers[0].shape == answers[1].shape
    assert np.abs(answers[0] - answers[1]).max() < 1e-5


@pytest.mark.parametrize("case", CASES)
def test_an_operator_says_the_same_in_17(case: str) -> None:
    require_same_in_17(model_of(*CASES[case]))


def test_a_scale_of_groups_may_be_computed() -> None:
    model = model_of(21, "GroupNormalization", {"g": None, "b": np.ones(4, np.float32)}, {"num_groups": 2}, 1)
    model.graph.node.insert(0, helper.make_node("Constant", [], ["g"], value_floats=[1.0, 2.0, 3.0, 4.0]))
    require_same_in_17(model)


def test_samples_of_a_grid_have_their_names_of_17() -> None:
    grid = {"grid": np.zeros((1, 2, 2, 2), np.float32)}
    model = model_of(20, "GridSample", grid, {"mode": "cubic"}, 1)
    lower(model, "it")
    assert attributes(model.graph.node[0])["mode"] == b"bicubic"


def test_what_17_cannot_say_is_refused_by_its_name() -> None:
    dilated = model_of(19, "AveragePool", {}, {"kernel_shape": [2, 2], "dilations": [2, 2]}, 1)
    with pytest.raises(ModelError, match="AveragePool that opset 17"):
        lower(folded_at_batch(raised(dilated, "it"), 3, "it"), "it")
