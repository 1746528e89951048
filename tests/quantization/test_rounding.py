"""Claims about rounding: errors cancel in kernels and channels, no weight moves by a step, real logits come nearer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from onnx import numpy_helper

from toolkit.calibration.methods import QAT
from toolkit.calibration.ranges import ranges_from_images
from toolkit.compare.parity import parity_without_labels
from toolkit.contracts import Float32, LabeledImages, Preprocessing
from toolkit.data.model_images import images_from_folder
from toolkit.exporting.artifacts import fp32_graph_of_model
from toolkit.graph.edit import arrays_of
from toolkit.graph.qdq_placement import placement_in_graph
from toolkit.models.checkpoint import folder_of_model, load_model
from toolkit.quantization.ort_cpu import cpu_from_ranges
from toolkit.quantization.rounding import rounded_weights
from toolkit.quantization.scales import quantized_weights, weight_scales
from toolkit.runtime.ort.runner import OrtRunner

SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 8), st.integers(1, 3), st.integers(1, 3))
WEIGHTS = npst.arrays(np.float32, SHAPES, elements=st.floats(-1, 1, width=32, allow_subnormal=False))


def _errors(weights: Float32, scales: Float32) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """In steps, (C_out, C_in, places)."""
    exact = weights.astype(np.float64) / scales.astype(np.float64).reshape(-1, 1, 1, 1)
    return (rounded_weights(weights, scales) - exact).reshape(*weights.shape[:2], -1)


@given(WEIGHTS)
def test_errors_cancel_and_none_is_a_whole_step(weights: Float32) -> None:
    scales = np.maximum(np.abs(weights).max(axis=(1, 2, 3)) / np.float32(127), 1e-30).astype(np.float32)
    errors = _errors(weights, scales)
    assert (np.abs(errors) < 1).all()
    assert (np.abs(errors.sum(axis=2)) <= 1 + 1e-9).all()  # half a step, and one turn for the channel's sake
    assert (np.abs(errors.sum(axis=(1, 2))) <= 0.5 + 1e-9).all()


def _turned_by_the_book(errors: list[float], levels: list[float], total: float) -> list[int]:
    """Of the places that make a sum smaller and stay within int8, those that weigh most, the first of equals first."""
    sign = float(np.sign(total))
    may = [n for n, error in enumerate(errors) if error * sign > 0 and -128 <= levels[n] - sign <= 127]
    return sorted(may, key=lambda n: -errors[n] * sign)[: round(abs(total))]


def _rounded_by_the_book(kernels: list[list[float]]) -> list[list[float]]:
    """An output channel's kernels, weight by weight, as the docstring describes it."""
    levels = [[float(min(max(round(w), -128), 127)) for w in kernel] for kernel in kernels]
    errors = [[n - w for n, w in zip(*rows, strict=True)] for rows in zip(levels, kernels, strict=True)]
    for kernel, row in zip(errors, levels, strict=True):
        total = sum(kernel)
        for n in _turned_by_the_book(kernel, row, total):
            row[n], kernel[n] = row[n] - np.sign(total), kernel[n] - np.sign(total)
    sums = [sum(kernel) for kernel in errors]
    sign = np.sign(sum(sums))
    first = [max(range(len(kernel)), key=lambda n, kernel=kernel: kernel[n] * sign) for kernel in errors]  # type: ignore[misc]
    for n in _turned_by_the_book(sums, [row[at] for row, at in zip(levels, first, strict=True)], sum(sums)):
        levels[n][first[n]] -= sign
    return levels


EIGHTHS = npst.arrays(np.int64, (2, 5, 4), elements=st.one_of(st.integers(-24, 24), st.integers(-1032, 1032)))


@given(EIGHTHS, st.sampled_from([0.5, 1.0]))
def test_rounding_is_that_of_the_paper_weight_by_weight(eighths: Any, scale: float) -> None:
    steps = eighths / 8
    steps[0, 0] = (126.625, 127.25, 300, -300)  # what a scale clips
    steps[0, 1] = (126.375, 126.375, 126.375, 0)  # and what may still become the largest
    steps[1, 0] = (-127.625, -127.5, -126.5, 0.5)
    found = rounded_weights((steps * scale).reshape(2, 5, 2, 2).astype(np.float32), np.full(2, scale, np.float32))
    assert found.reshape(2, 5, 4).tolist() == [_rounded_by_the_book(rows) for rows in steps.tolist()]


@given(WEIGHTS)
def test_where_the_nearest_numbers_cancel_already_they_are_taken(weights: Float32) -> None:
    levels = np.rint(weights * 100).astype(np.float32)
    assert np.array_equal(rounded_weights(levels, np.ones(len(levels), np.float32)), levels.astype(np.int8))


def test_a_weight_that_a_scale_clips_stays_at_the_clip() -> None:
    weights = np.array([[[[200.0, 0.4, 0.4, -300.0]]]], np.float32)
    assert rounded_weights(weights, np.ones(1, np.float32)).reshape(-1).tolist()[::3] == [127, -128]


def test_the_weights_nearest_to_the_middle_are_turned_first() -> None:
    weights = np.array([[[[0.45, 0.4, 0.3, 3.0]]]], np.float32)  # nearest: -1.15 in all
    assert rounded_weights(weights, np.ones(1, np.float32)).reshape(-1).tolist() == [1, 0, 0, 3]


@pytest.mark.slow
def test_logits_of_the_embedded_default_come_nearer() -> None:
    model = load_model(folder_of_model("resnet32x32-fashion"))
    graph = fp32_graph_of_model(model)
    images = images_from_folder(Path("calibration", "resnet32x32-fashion")).evaluation.images_nhwc[:80]
    weights = placement_in_graph(graph).weights
    found = []
    with OrtRunner(graph.SerializeToString()) as runner:
        expected = runner.logits(images)
    for rounded in (quantized_weights, rounded_weights):
        changed = onnx.ModelProto.FromString(graph.SerializeToString())
        for tensor in changed.graph.initializer:
            if tensor.name in weights:
                values = numpy_helper.to_array(tensor)
                scales = weight_scales(values)
                values = (rounded(values, scales) * scales.reshape(-1, 1, 1, 1)).astype(np.float32)
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        with OrtRunner(changed.SerializeToString()) as runner:
            found.append(parity_without_labels(expected, runner.logits(images)).relative_l2)
    assert found[1] < 0.7 * found[0]


@pytest.mark.parametrize("learned", [False, True])
def test_weights_that_were_trained_with_their_rounding_keep_it(
    learned: bool, tiny_graph: onnx.ModelProto, structured_images: LabeledImages, tiny_preprocessing: Preprocessing
) -> None:
    record = ranges_from_images(tiny_graph, structured_images.images_nhwc[:40], tiny_preprocessing)
    if learned:
        record = replace(record, belongs_to=record.belongs_to | {"method": QAT})
    weights = arrays_of(tiny_graph.graph)["stages.0.0.conv1.weight"]
    made = arrays_of(cpu_from_ranges(tiny_graph, record).graph)
    levels, scales = (made[f"stages.0.0.conv1/Conv/weight_{what}"] for what in ("quantized", "scale"))
    assert np.array_equal(levels, (quantized_weights if learned else rounded_weights)(weights, scales))
    assert not np.array_equal(quantized_weights(weights, scales), rounded_weights(weights, scales))
