"""Claims about words: what exporters say in several ways becomes one file, and that answers as theirs does."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from toolkit.graph.edit import arrays_of
from toolkit.graph.normal.rewrites import inline_parameters, tidy
from toolkit.runtime.ort.runner import OrtRunner

SHAPE = (3, 4, 7, 6)
FARTHEST = 2**63 - 1
NUMBERS = st.one_of(st.integers(-9, 9), st.sampled_from([FARTHEST, -FARTHEST, -FARTHEST - 1]))
CUT = st.tuples(NUMBERS, NUMBERS, st.integers(-3, 3).filter(bool))


def model_of(kind: str, before: list[Any], after: list[Any], **facts: Any) -> onnx.ModelProto:
    """Relu of X (n, 4, 7, 6) through one operator between constants, in their place, and a Relu; None is not given."""
    names = ["" if v is None else f"c{at}" for at, v in enumerate([*before, *after])]
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node(kind, [*names[: len(before)], "r", *names[len(before) :]], ["s"], "it", **facts),
        helper.make_node("Relu", ["s"], ["y"]),
    ]
    tensors = [numpy_helper.from_array(v, n) for v, n in zip([*before, *after], names, strict=True) if v is not None]
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *SHAPE[1:]])]
    out = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    made = helper.make_graph(nodes, "g", ends, out, tensors)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def said(model: onnx.ModelProto) -> list[Any]:
    """The operators of the tidied model and their constants, after its answer was compared with the model's."""
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    inline_parameters(plain)
    tidy(plain)
    onnx.shape_inference.infer_shapes(plain, check_type=True, strict_mode=True)
    x = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    answers = []
    for each in (model, plain):
        with OrtRunner(each.SerializeToString(), optimize=False) as runner:
            answers.append(runner.session.run(None, {"x": x})[0])
    assert answers[0].shape == answers[1].shape
    assert np.array_equal(*answers)
    constants = arrays_of(plain.graph)
    return [(n.op_type, *(constants[i].tolist() if i in constants else i for i in n.input)) for n in plain.graph.node]


def sliced(cuts: dict[int, tuple[int, int, int]]) -> onnx.ModelProto:
    starts, ends, steps = (np.array(row) for row in zip(*cuts.values(), strict=True))
    return model_of("Slice", [], [starts, ends, np.array(list(cuts)), steps])


@given(st.dictionaries(st.integers(1, 3), CUT, min_size=1, max_size=3))
def test_a_slice_is_the_same_however_its_ends_and_axes_are_said(cuts: dict[int, tuple[int, int, int]]) -> None:
    taken = {axis: range(SHAPE[axis])[slice(*cut)] for axis, cut in cuts.items()}
    found = said(sliced(cuts))
    if not all(taken.values()):
        starts, ends, steps = zip(*cuts.values(), strict=True)
        assert found[1][1:] == ("r", [*starts], [*ends], [*cuts], [*steps])
        return
    whole = all(part == range(SHAPE[axis]) for axis, part in taken.items())
    assert [kind for kind, *_ in found] == (["Relu", "Relu"] if whole else ["Relu", "Slice", "Relu"])
    from_behind = {
        axis - 4: (
            part.start - SHAPE[axis],
            part.stop - SHAPE[axis] if part.stop < SHAPE[axis] else FARTHEST,
            part.step,
        )
        for axis, part in taken.items()
    }
    if all(part.step > 0 for part in taken.values()):
        assert said(sliced(from_behind)) == found


def test_a_slice_of_images_or_without_axes_and_steps_keeps_its_meaning() -> None:
    images = model_of("Slice", [], [np.array([0]), np.array([FARTHEST]), np.array([0])])
    assert [kind for kind, *_ in said(images)] == ["Relu", "Slice", "Relu"]
    bare = model_of("Slice", [], [np.array([0, 1]), np.array([2, 3])])
    assert said(bare)[1][1:] == ("r", [0, 1], [2, 3])
    odd = model_of("Slice", [], [np.array([1]), np.array([9]), None, np.array([1])])
    assert said(odd)[1][0] == "Slice"


@pytest.mark.parametrize("kind", ["Add", "Mul"])
def test_a_constant_is_the_second_of_a_sum_or_product(kind: str) -> None:
    bias = np.linspace(1, 2, 6, dtype=np.float32)
    assert said(model_of(kind, [bias], [])) == said(model_of(kind, [], [bias]))
    assert said(model_of("Sub", [bias], []))[1][1] == bias.tolist()


@pytest.mark.parametrize(("kind", "axes"), [("Unsqueeze", (-1, 4)), ("Unsqueeze", (-4, 1)), ("Squeeze", None)])
def test_axes_that_come_or_go_count_from_the_front(kind: str, axes: tuple[int, int] | None) -> None:
    behind, front = axes or (-2, 2)
    models = [model_of(kind, [], [np.array([axis])]) for axis in (behind, front)]
    if kind == "Squeeze":
        pool = helper.make_node("ReduceMax", ["x"], ["r"], axes=[2], keepdims=1)
        for model in models:
            model.graph.node[0].CopyFrom(pool)
    assert said(models[0]) == said(models[1])
    assert said(models[0])[1][2] == [front]


def test_an_input_that_is_not_given_is_left_out_at_the_end_and_kept_in_between() -> None:
    low, high = np.array(0.5, np.float32), np.array(0.7, np.float32)
    assert said(model_of("Clip", [], [low, None]))[1] == ("Clip", "r", low.item())
    assert said(model_of("Clip", [], [None, high]))[1] == ("Clip", "r", "", high.item())
