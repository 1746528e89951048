"""Claims about the weights of the CPU form: no processor's 16-bit sums saturate, and little is given up for it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from onnx import TensorProto, helper, numpy_helper

from toolkit.calibration.ranges import ranges_from_images
from toolkit.contracts import Float32, LabeledImages, Preprocessing
from toolkit.quantization.ort_cpu import cpu_from_ranges
from toolkit.quantization.rounding import rounded_weights
from toolkit.quantization.scales import weight_scales, weight_scales_in_16_bits
from toolkit.runtime.ort.runner import OrtRunner

SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3))
WEIGHTS = npst.arrays(np.float32, SHAPES, elements=st.floats(-4, 4, width=32, allow_subnormal=False))
INT16 = np.iinfo(np.int16)


def _largest_sums(levels: np.ndarray[tuple[int, ...], np.dtype[np.int8]]) -> tuple[int, int]:
    """The lowest and the highest that two neighboring products reach with activations of 0 to 255."""
    rows = levels.astype(int).transpose(0, 2, 3, 1).reshape(len(levels), -1)
    lowest = highest = 0
    for row in rows:
        for first in range(0, len(row), 2):
            pair = row[first : first + 2]
            lowest = min(lowest, 255 * int(pair[pair < 0].sum()))
            highest = max(highest, 255 * int(pair[pair > 0].sum()))
    return lowest, highest


@pytest.mark.slow
@given(WEIGHTS)
def test_two_neighboring_products_fit_in_16_bits(weights: Float32) -> None:
    scales = weight_scales_in_16_bits(weights)
    lowest, highest = _largest_sums(rounded_weights(weights, scales))
    assert INT16.min <= lowest <= highest <= INT16.max
    usual = weight_scales(weights)
    assert (scales >= usual).all()
    assert (scales <= usual * np.float32(2 / 0.69)).all()


def test_only_a_channel_whose_neighbors_overflow_gets_a_wider_scale() -> None:
    weights = np.zeros((4, 4, 1, 1), np.float32)
    weights[0, :2] = 1  # both of one sign: 2 * 127 * 255
    weights[1, 0], weights[1, 1] = 1, -1  # they take from each other
    weights[2, 1], weights[2, 2] = 1, 1  # no neighbors: the pairs are 0, 1 and 2, 3
    weights[3, 2:] = -1
    wider = weight_scales_in_16_bits(weights) / weight_scales(weights)
    assert wider[[1, 2]].tolist() == [1, 1]
    assert wider[[0, 3]] == pytest.approx([2, 2], rel=1e-3)


def test_with_an_odd_number_of_input_channels_pairs_go_on_at_the_next_place() -> None:
    weights = np.zeros((1, 3, 1, 2), np.float32)
    weights[0, 2, 0, 0] = weights[0, 0, 0, 1] = 1
    assert weight_scales_in_16_bits(weights)[0] > 1.9 * weight_scales(weights)[0]


def test_the_weights_of_every_convolution_of_the_file_fit(
    tiny_graph: onnx.ModelProto, structured_images: LabeledImages, tiny_preprocessing: Preprocessing
) -> None:
    record = ranges_from_images(tiny_graph, structured_images.images_nhwc[:40], tiny_preprocessing)
    constants = {t.name: numpy_helper.to_array(t) for t in cpu_from_ranges(tiny_graph, record).graph.initializer}
    found = [levels for name, levels in constants.items() if name.endswith("/weight_quantized")]
    assert len(found) >= 6
    for levels in found:
        lowest, highest = _largest_sums(levels)
        assert INT16.min <= lowest <= highest <= INT16.max
        assert np.abs(levels.astype(int)).max() >= 60


@pytest.mark.parametrize("sign", [1, -1])
def test_large_weights_side_by_side_are_computed_right_on_this_processor(
    sign: int, tiny_preprocessing: Preprocessing
) -> None:
    """Without the wider scales this fails on x86 processors that have no VNNI instructions."""
    rng = np.random.default_rng(3)
    images = rng.integers(180, 256, (40, 16, 16, 3), np.uint8)
    weights = sign * rng.uniform(0.9, 1, (16, 16, 3, 3)).astype(np.float32)
    model = _two_convolutions(weights)
    record = ranges_from_images(model, images, tiny_preprocessing)
    with (
        OrtRunner(model.SerializeToString()) as fp32,
        OrtRunner(cpu_from_ranges(model, record).SerializeToString()) as cpu,
    ):
        expected, found = fp32.logits(images), cpu.logits(images)
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


def test_what_a_second_relu_alone_reads_is_quantized_with_its_own_range() -> None:
    rng = np.random.default_rng(5)
    model = _two_convolutions(rng.normal(size=(16, 16, 3, 3)).astype(np.float32))
    pool = next(node for node in model.graph.node if node.op_type == "GlobalAveragePool")
    pool.input[0] = "twice"
    for node in (helper.make_node("Relu", ["c"], ["once"], "r1"), helper.make_node("Relu", ["once"], ["twice"], "r2")):
        model.graph.node.insert(list(model.graph.node).index(pool), node)
    images = rng.integers(0, 256, (16, 16, 16, 3), dtype=np.uint8)
    record = ranges_from_images(model, images, Preprocessing(16, 16, 3, (0,), (1,)), method="minmax")
    assert record.cpu["once"] == record.largest["once"] > 0
    with (
        OrtRunner(model.SerializeToString()) as fp32,
        OrtRunner(cpu_from_ranges(model, record).SerializeToString()) as cpu,
    ):
        expected, found = fp32.logits(images), cpu.logits(images)
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


def _two_convolutions(weights: Float32) -> onnx.ModelProto:
    """Images to 16 channels, a ReLU, the convolution in question, the mean of every channel as logits."""
    rng = np.random.default_rng(4)
    constants = {
        "std": np.asarray(1 / 255, np.float32),
        "mean": np.asarray(0, np.float32),
        "first": rng.uniform(0.1, 1, (16, 3, 3, 3)).astype(np.float32),
        "second": weights,
        "fc": np.eye(16, dtype=np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["cast"], "preprocess/Cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["cast"], ["nchw"], "preprocess/Transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["nchw", "std"], ["scaled"], "preprocess/Mul"),
        helper.make_node("Add", ["scaled", "mean"], ["normalized"], "preprocess/Add"),
        helper.make_node("Conv", ["normalized", "first"], ["a"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("Conv", ["b", "second"], ["c"], "second", pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["c"], ["d"], "pool"),
        helper.make_node("Flatten", ["d"], ["e"], "flatten"),
        helper.make_node("Gemm", ["e", "fc"], ["logits"], "fc"),
    ]
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 16, 16, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 16])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
