"""Claims about the checks before a file is written: each thing that some TensorRT misreads is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from toolkit.contracts import Float32, LabeledImages, UInt8
from toolkit.errors import ExportError
from toolkit.graph.checks import (
    BATCHES,
    HALF_TOLERANCE,
    RELATIVE_TOLERANCE,
    relative_difference,
    require_portable,
    require_same_answers,
)
from toolkit.runtime.runner import ClosesItself


class _Answers(ClosesItself):
    """A runner that answers what a function says of the pixels."""

    name = "stand-in"

    def __init__(self, answer: Callable[[Float32], Float32], description: str = "the candidate") -> None:
        self.answer, self.description = answer, description
        self.batches: list[int] = []

    def logits(self, images_nhwc: UInt8) -> Float32:
        self.batches.append(len(images_nhwc))
        means: Float32 = images_nhwc.reshape(len(images_nhwc), -1, 3).mean(axis=1, dtype=np.float32)
        return self.answer(means)


def _reference() -> _Answers:
    return _Answers(lambda means: means, "the reference")


def _noisy(by: float) -> Callable[[Float32], Float32]:
    """Moves one logit of the last image by a part of the largest."""

    def answer(means: Float32) -> Float32:
        moved = means.copy()
        moved[-1, 0] += by * np.abs(means).max()
        return moved

    return answer


def _spoiled(value: float) -> Callable[[Float32], Float32]:
    def answer(means: Float32) -> Float32:
        means[-1, 1] = value
        return means

    return answer


def test_equal_runners_pass_and_are_asked_at_every_batch(structured_images: LabeledImages) -> None:
    reference, candidate = _reference(), _reference()
    facts = require_same_answers(reference, candidate, structured_images.images_nhwc)
    assert facts == {"relative_difference_by_batch": {"1": 0, "7": 0, "64": 0}, "tolerance": RELATIVE_TOLERANCE}
    assert reference.batches == candidate.batches == list(BATCHES) == [1, 7, 64]


def test_a_difference_below_the_tolerance_is_reported_and_above_refused(structured_images: LabeledImages) -> None:
    images = structured_images.images_nhwc
    small = require_same_answers(_reference(), _Answers(_noisy(RELATIVE_TOLERANCE / 2)), images)
    assert small["relative_difference_by_batch"]["7"] == pytest.approx(RELATIVE_TOLERANCE / 2, rel=0.01)
    with pytest.raises(ExportError, match="the candidate does not compute what the reference does") as caught:
        require_same_answers(_reference(), _Answers(_noisy(2 * RELATIVE_TOLERANCE)), images)
    assert "at batch 1 logits differ by 0.0002" in str(caught.value.found)
    rounded = _Answers(lambda means: means.astype(np.float16).astype(np.float32), "half a reference")
    assert require_same_answers(rounded, _reference(), images)["tolerance"] == HALF_TOLERANCE


def test_a_fault_at_one_batch_size_only_is_found(structured_images: LabeledImages) -> None:
    shifted = _Answers(lambda means: np.roll(means, 1, axis=1) if len(means) == 64 else means)
    with pytest.raises(ExportError) as caught:
        require_same_answers(_reference(), shifted, structured_images.images_nhwc)
    assert "at batch 64" in str(caught.value.found)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_answers_that_are_not_numbers_are_refused_on_either_side(
    structured_images: LabeledImages, value: float
) -> None:
    images = structured_images.images_nhwc
    with pytest.raises(ExportError, match="does not compute"):
        require_same_answers(_reference(), _Answers(_spoiled(value)), images)
    with pytest.raises(ExportError, match="answers with NaN or infinity"):
        require_same_answers(_Answers(_spoiled(value)), _reference(), images)
    with pytest.raises(ExportError, match="answers with NaN or infinity"):
        require_same_answers(_Answers(_spoiled(value)), _Answers(_spoiled(value)), images)


def test_another_number_of_classes_is_a_difference() -> None:
    assert relative_difference(np.ones((2, 3), np.float32), np.ones((2, 4), np.float32)) == float("inf")
    assert relative_difference(np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float32)) == 0


def _net(*nodes: Any, opset: int = 17, weights: Any = None) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["batch", 3, 4, 4])],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, None)],
        [] if weights is None else [numpy_helper.from_array(np.asarray(weights), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def _node(kind: str, **attributes: Any) -> Any:
    return helper.make_node(kind, ["images"], ["logits"], "the node", **attributes)


def _reduction(kind: str, axes: str) -> Any:
    return helper.make_node(kind, ["images", axes], ["logits"], "the node")


def _normed(reads: str, *more: Any) -> onnx.ModelProto:
    """A convolution and a norm that reads it or something else."""
    convolution = helper.make_node("Conv", ["images", "w"], ["c"], "the convolution")
    norm = helper.make_node("BatchNormalization", [reads, "s", "b", "m", "v"], ["logits"], "the norm")
    return _net(convolution, norm, *more, weights=np.ones((3, 3, 1, 1), np.float32))


@pytest.mark.parametrize(
    "model",
    [
        _net(_node("ReduceMean", axes=[1])),
        _net(_node("ReduceMax", axes=[2, 3])),
        _net(_reduction("ReduceSum", "w"), weights=np.array([2, 3])),
        _normed("images"),
        _normed("c", helper.make_node("Relu", ["c"], ["r"])),
    ],
    ids=["mean of channels", "max", "sum", "a norm before its convolution", "a convolution that two nodes read"],
)
def test_what_every_tensorrt_reads_alike_is_allowed(model: onnx.ModelProto) -> None:
    require_portable(model)


@pytest.mark.slow
def test_an_exported_net_is_portable(tiny_graph: onnx.ModelProto) -> None:
    require_portable(tiny_graph)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (_net(_node("Relu"), opset=18), "must be read by TensorRT 8"),
        (_net(_reduction("ReduceMean", "w"), weights=np.array([2, 3])), "'the node' is a ReduceMean that has its axes"),
        (_net(_reduction("ReduceMax", "w"), weights=np.array([2, 3])), "'the node' is a ReduceMax that has its axes"),
        (_net(_reduction("ReduceSum", "elsewhere")), "'the node' is a ReduceSum that has its axes"),
        (_normed("c"), "'the norm' was not folded"),
        (_net(helper.make_node("BatchNormalization", list("xsbmv"), ["y", "mean", "var"], "the norm")), "not folded"),
        (_net(_node("Transpose", perm=[0, 3, 1, 2])), "'the node' transposes uint8"),
        (_net(_node("Relu"), weights=np.array([1, np.nan], np.float32)), "weight 'w' holds NaN"),
        (_net(_node("Relu"), weights=np.array([-np.inf], np.float16)), "weight 'w' holds NaN"),
    ],
)
def test_what_some_tensorrt_misreads_is_refused(model: onnx.ModelProto, words: str) -> None:
    with pytest.raises(ExportError, match=words):
        require_portable(model)


def test_whole_numbers_among_the_weights_are_fine() -> None:
    require_portable(_net(_node("Relu"), weights=np.array([1, 2], np.int64)))
