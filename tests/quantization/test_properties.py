"""Claims about the arithmetic of quantization, of any numbers: by ONNX Runtime, with the scales of our files."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from onnx import TensorProto, helper

from toolkit.contracts import Float32
from toolkit.quantization.rounding import rounded_weights
from toolkit.quantization.scales import LEVELS, activation_scale, dequantized, quantized_weights, weight_scales

# Up to what float32 divides without overflow; 1e-30 and less are among its denormal numbers once they are a scale.
AMAX = st.one_of(st.floats(1e-3, 1e4), st.floats(1e-44, 1e34))
PARTS = npst.arrays(np.float64, st.integers(1, 40), elements=st.floats(-1, 1))  # of the range
WEIGHTS = npst.arrays(
    np.float32,
    npst.array_shapes(min_dims=4, max_dims=4, min_side=1, max_side=4),
    elements=st.one_of(st.just(0.0), st.floats(-1e4, 1e4, width=32)),
)


@cache
def _pair() -> Any:
    """QuantizeLinear and DequantizeLinear as ONNX Runtime computes them, without rewriting the graph."""
    import onnxruntime

    values, scale = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", ["n"]), ("s", [])))
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "zero"], ["y"]),
    ]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])
    zero = helper.make_tensor("zero", TensorProto.INT8, [], [0])
    graph = helper.make_graph(nodes, "pair", [values, scale], [out], [zero])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def through_int8(values: Float32, scale: np.float32) -> Float32:
    """The numbers as int8 and back."""
    found: Float32 = _pair().run(None, {"x": values, "s": np.asarray(scale, np.float32)})[0]
    return found


@given(AMAX, PARTS)
def test_what_lies_in_the_range_comes_back_within_half_a_step(amax: float, parts: Any) -> None:
    scale = activation_scale(amax)
    values = (parts * amax).astype(np.float32)
    error = np.abs(through_int8(values, scale).astype(np.float64) - values)
    assert (error <= float(scale) * (0.5 + 1e-5)).all()


@given(AMAX, PARTS)
def test_a_larger_number_never_comes_back_smaller(amax: float, parts: Any) -> None:
    values = np.sort(2 * parts * amax).astype(np.float32)  # beyond the range, too
    assert (np.diff(through_int8(values, activation_scale(amax))) >= 0).all()


@given(AMAX, PARTS)
def test_both_signs_are_treated_alike_within_the_range(amax: float, parts: Any) -> None:
    values, scale = (parts * amax).astype(np.float32), activation_scale(amax)
    assert (through_int8(-values, scale) == -through_int8(values, scale)).all()


@given(AMAX, st.floats(1, 1e3))
def test_what_lies_beyond_the_range_comes_back_as_its_end(amax: float, factor: float) -> None:
    scale = activation_scale(amax)
    assert through_int8(np.asarray([factor * amax], np.float32), scale)[0] <= LEVELS * scale


@pytest.mark.slow
@given(WEIGHTS, st.randoms(use_true_random=False))
def test_channels_in_another_order_have_the_same_scales_and_levels(weights: Float32, random: Any) -> None:
    order = list(range(len(weights)))
    random.shuffle(order)
    for quantize in (quantized_weights, rounded_weights):
        scales, turned = weight_scales(weights), weight_scales(weights[order])
        assert (turned == scales[order]).all()
        assert (quantize(weights[order], turned) == quantize(weights, scales)[order]).all()


@given(WEIGHTS)
def test_a_channel_alone_is_quantized_as_among_others_of_its_size(weights: Float32) -> None:
    twice = np.concatenate([weights, weights])
    scales = weight_scales(weights)
    assert (weight_scales(twice) == np.concatenate([scales, scales])).all()
    assert (quantized_weights(twice, weight_scales(twice))[len(weights) :] == quantized_weights(weights, scales)).all()


@given(WEIGHTS)
def test_what_is_an_int8_number_already_stays_what_it_is(weights: Float32) -> None:
    scales = weight_scales(weights)
    once = dequantized(quantized_weights(weights, scales), scales)
    assert (dequantized(quantized_weights(once, scales), scales) == once).all()
