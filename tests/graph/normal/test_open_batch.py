"""Claims about the batch: what depends on it is found by folding a graph for two, and nothing else changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from toolkit.errors import ModelError
from toolkit.graph.edit import Names, arrays_of
from toolkit.graph.normal.folding import folded_at_batch
from toolkit.graph.normal.one_batch import guess_open_batch
from toolkit.graph.normal.open_batch import BATCHES, with_open_batch
from toolkit.runtime.ort.runner import OrtRunner

WEIGHTS = {"w": np.random.default_rng(0).normal(size=(4, 3, 1, 1)).astype(np.float32)}


def graph(*nodes: onnx.NodeProto, **constants: Any) -> onnx.ModelProto:
    """X (n, 3, 2, 2) through a convolution to `c` (n, 4, 2, 2), and on by `nodes` to `y`."""
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in {**WEIGHTS, **constants}.items()]
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 2, 2])]
    out = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    made = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["c"]), *nodes], "g", ends, out, tensors)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def op(kind: str, inputs: str, output: str, **facts: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), [output], **facts)


BATCH_OF = (op("Shape", "c", "shape"), op("Gather", "shape zero", "n"), op("Unsqueeze", "n first", "row"))
INDICES = {"zero": np.array(0), "first": np.array([0])}
FORMS: dict[str, tuple[onnx.ModelProto, set[str]]] = {
    "x.view(n, -1)": (
        graph(
            *BATCH_OF, op("Concat", "row rest", "s", axis=0), op("Reshape", "c s", "y"), rest=np.array([-1]), **INDICES,
        ),
        {"Conv", "Flatten"},
    ),
    "x.view(n * 4, 4)": (
        graph(
            *BATCH_OF, op("Mul", "row four", "m"), op("Concat", "m four", "s", axis=0), op("Reshape", "c s", "y"),
            four=np.array([4]), **INDICES,
        ),
        {"Conv", "Reshape"},
    ),
    "zeros of the batch in a sum": (
        graph(op("Shape", "c", "s"), op("ConstantOfShape", "s", "z"), op("Add", "c z", "y")),
        {"Conv", "Add"},
    ),
    "a token for each image": (
        graph(
            *BATCH_OF, op("Concat", "row one one", "s", axis=0), op("Expand", "token s", "t"),
            op("Reshape", "c flat", "f"), op("Concat", "t f", "y", axis=1),
            one=np.array([1]), flat=np.array([0, 4, 4]), token=np.ones((1, 1, 4), np.float32), **INDICES,
        ),
        {"Conv", "Shape", "Slice", "Mul", "Add", "Expand", "Reshape", "Concat"},
    ),
    "x.squeeze(), which takes the batch of one image": (
        graph(
            op("GlobalAveragePool", "c", "p"), op("Squeeze", "p", "q"), op("Reshape", "q s", "y"), s=np.array([-1, 4]),
        ),
        {"Conv", "GlobalAveragePool", "Squeeze", "Flatten"},
    ),
}  # fmt: skip


def require_same(model: onnx.ModelProto, opened: onnx.ModelProto, batch: int) -> None:
    x = np.random.default_rng(batch).normal(size=(batch, 3, 2, 2)).astype(np.float32)
    answers = []
    for each in (model, opened):
        with OrtRunner(each.SerializeToString()) as runner:
            answers.append(runner.session.run(None, {"x": x})[0])
    assert np.array_equal(*answers)


@pytest.mark.parametrize("form", FORMS)
def test_the_batch_is_open_whatever_was_computed_from_it(form: str) -> None:
    model, operators = FORMS[form]
    opened = with_open_batch([folded_at_batch(model, batch, "it") for batch in BATCHES], "it")
    onnx.checker.check_model(opened, full_check=True)
    assert {node.op_type for node in opened.graph.node} == operators
    assert opened.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    for batch in (1, 2, 7):
        require_same(model, opened, batch)


@pytest.mark.parametrize(
    ("said", "written"),
    [
        (([0, 16], [-1, 16], [0, -1]), None),
        (([0, 4, 4], [-1, 4, 4], [0, -1, 4], [0, 0, -1]), [0, 4, 4]),
        (([-1, 4], [-1, 4]), [-1, 4]),
        (([1, -1, 8], [1, -1, 8]), [1, -1, 8]),
    ],
)
def test_a_reshape_is_the_same_however_its_sizes_are_said(
    said: tuple[list[int], ...], written: list[int] | None
) -> None:
    for sizes in said:
        model = graph(op("Reshape", "c s", "y"), s=np.array(sizes))
        opened = with_open_batch([folded_at_batch(model, batch, "it") for batch in BATCHES], "it")
        _, last = opened.graph.node
        assert last.op_type == ("Reshape" if written else "Flatten")
        assert not written or arrays_of(opened.graph)[last.input[1]].tolist() == written
        require_same(model, opened, 6)


ROW_OF = (op("Shape", "c", "shape"), op("Slice", "shape zeros ones", "row"))
RANGE = {"zeros": np.array([0]), "ones": np.array([1])}


def frozen(batch: int) -> dict[str, tuple[onnx.ModelProto, onnx.ModelProto]]:
    """Graphs for one batch alone, as exporters write them that are told of no other, and what they stand for."""
    many, token = np.zeros((batch, 4, 2, 2), np.float32), np.arange(4, dtype=np.float32)
    view, grid = np.array([batch, 4, 4]), np.array([batch, 4, 3, 3])
    joined = (op("Reshape", "c s", "f"), op("Concat", "t f", "y", axis=1))
    resized = op("Resize", "c nothing nothing s", "y", mode="nearest")
    resized.input[1:3] = ["", ""]
    return {
        "x.view(2, -1, 2, 2)": (
            graph(op("Reshape", "c s", "y", allowzero=1), s=np.array([batch, -1, 2, 2])),
            graph(op("Identity", "c", "y")),
        ),
        "x.view(2, 16)": (
            graph(op("Reshape", "c s", "y", allowzero=1), s=np.array([batch, 16])), graph(op("Flatten", "c", "y")),
        ),
        "where(x > 0, x, zeros(2, 4, 2, 2))": (
            graph(op("Greater", "c none", "g"), op("Where", "g c many", "y"), none=np.array(0, np.float32), many=many),
            graph(op("Relu", "c", "y")),
        ),
        "a token for each image": (
            graph(*joined, s=view, t=np.broadcast_to(token, (batch, 1, 4)).copy()),
            graph(*ROW_OF, op("Concat", "row ones ones", "e", axis=0), op("Expand", "token e", "t"), *joined,
                  s=np.array([0, 4, 4]), token=token, **RANGE),
        ),
        "a size to resize to": (
            graph(resized, s=grid),
            graph(*ROW_OF, op("Concat", "row rest", "s", axis=0), resized, rest=grid[1:], **RANGE),
        ),
    }  # fmt: skip


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("form", frozen(1))
def test_a_graph_for_one_batch_is_opened(form: str, batch: int) -> None:
    model, meant = frozen(batch)[form]
    guess_open_batch(model, batch)
    opened = with_open_batch([folded_at_batch(model, each, "it") for each in BATCHES], "it")
    onnx.checker.check_model(opened, full_check=True)
    for each in (1, 2, 7):
        require_same(meant, opened, each)


def coincident(batch: int) -> dict[str, onnx.ModelProto]:
    """Graphs for any batch, with constants that begin like a batch of 4 or are given a shape with it."""
    equal, first = np.full((4, 1, 1), 0.5, np.float32), np.array([batch, 2, 3, 4], np.float32)
    return {
        "a number a channel, all equal": graph(
            op("ReduceMean", "c", "m", axes=[1]), op("Sub", "m k", "s"), op("Conv", "s f", "y"),
            k=equal, f=np.ones((2, 4, 1, 1), np.float32),
        ),
        "a matrix of equal rows": graph(
            op("GlobalAveragePool", "c", "p"), op("Flatten", "p", "f"), op("MatMul", "f k", "y"),
            k=np.ones((4, 5), np.float32),
        ),
        "a matrix expanded to the batch": graph(
            *ROW_OF, op("Concat", "row ones ones ones", "e", axis=0), op("Expand", "k e", "t"), op("Mul", "t c", "y"),
            k=first[:2].reshape(1, 1, 2, 1), **RANGE,
        ),
        "a row expanded to a tensor's shape": graph(
            op("Shape", "c", "e"), op("Expand", "k e", "t"), op("Mul", "t c", "y"), k=first[:2],
        ),
        "a row in another shape": graph(
            *ROW_OF, op("Div", "row row", "one"), op("Concat", "one any one ones", "e", axis=0),
            op("Reshape", "k e", "t"), op("Mul", "t c", "y"), k=first, any=np.array([-1]), **RANGE,
        ),
    }  # fmt: skip


@pytest.mark.parametrize("batch", [1, 2, 4])
@pytest.mark.parametrize("form", coincident(1))
def test_a_constant_that_is_nothing_of_the_batch_stays(form: str, batch: int) -> None:
    model = coincident(batch)[form]
    guessed = onnx.ModelProto.FromString(model.SerializeToString())
    guess_open_batch(guessed, batch)
    opened = with_open_batch([folded_at_batch(guessed, each, "it") for each in BATCHES], "it")
    for each in (1, 2, 7):
        require_same(model, opened, each)


def test_what_is_added_takes_no_name_of_the_files_own() -> None:
    model = graph(op("Relu", "c", "y_open"), op("Reshape", "y_open s", "y"), s=np.array([2, 16]))
    guess_open_batch(model, 2)
    opened = with_open_batch([folded_at_batch(model, batch, "it") for batch in BATCHES], "it")
    onnx.checker.check_model(opened, full_check=True)
    again = with_open_batch([folded_at_batch(opened, batch, "it") for batch in BATCHES], "it")
    onnx.checker.check_model(again, full_check=True)
    require_same(opened, again, 7)


def opened_from_two(model: onnx.ModelProto) -> onnx.ModelProto:
    guessed = onnx.ModelProto.FromString(model.SerializeToString())
    guess_open_batch(guessed, 2)
    return with_open_batch([folded_at_batch(guessed, batch, "it") for batch in BATCHES], "it")


@pytest.mark.parametrize("form", ["a token for each image", "a size to resize to"])
def test_what_is_added_gets_another_name_where_the_file_has_it(form: str) -> None:
    model, _ = frozen(2)[form]
    for name in Names(opened_from_two(model).graph).taken - Names(model.graph).taken:
        renamed = onnx.ModelProto.FromString(model.SerializeToString())
        for node in renamed.graph.node:
            node.input[:], node.output[:] = ([name if n == "c" else n for n in ns] for ns in (node.input, node.output))
        onnx.checker.check_model(opened_from_two(renamed), full_check=True)


def test_a_network_that_counts_its_images_is_refused_with_the_reason() -> None:
    one, other = (graph(op("Mul", "c m", "y"), m=np.array(value, np.float32)) for value in (1 / 3, 1 / 5))
    with pytest.raises(ModelError, match="another batch") as found:
        with_open_batch([one, other], "it")
    assert "x.shape[0]" in str(found.value.fix)
