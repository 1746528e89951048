"""Claims about scales: FP16 holds them, they never clip more than asked, and they are hardly wider."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from toolkit.contracts import Float32
from toolkit.quantization.scales import (
    LARGEST_HALF,
    SMALLEST_NORMAL_HALF,
    activation_scale,
    fits_half,
    quantized_weights,
    rounded_up_to_half,
    weight_scales,
)

USUAL = st.floats(127 * SMALLEST_NORMAL_HALF, 127 * LARGEST_HALF, width=32)
WEIGHTS = npst.arrays(np.float32, (5, 2, 3, 3), elements=st.floats(-4, 4, width=32, allow_subnormal=False))


@given(USUAL)
def test_a_usual_scale_is_the_next_fp16_number_from_above(amax: float) -> None:
    scale = activation_scale(amax)
    exact = np.float32(amax) / np.float32(127)
    assert np.float32(np.float16(scale)) == scale
    assert exact <= scale <= exact * (1 + 2**-10)
    below = np.nextafter(np.float16(scale), np.float16(0))
    assert np.float32(below) < exact


@given(st.one_of(st.floats(0, 100 * SMALLEST_NORMAL_HALF), st.floats(130 * LARGEST_HALF, 1e38)))
def test_what_fp16_cannot_hold_stays_float32(amax: float) -> None:
    scale = activation_scale(amax)
    assert scale == max(np.float32(amax) / np.float32(127), np.finfo(np.float32).tiny)


def squared_errors(weights: Float32, scales: Float32) -> Float32:
    """(C_out,): what quantizing with these scales loses."""
    column = scales.reshape(-1, 1, 1, 1)
    left: Float32 = np.square(quantized_weights(weights, scales) * column - weights).sum(axis=(1, 2, 3))
    return left


@given(WEIGHTS)
def test_weight_scales_fit_fp16_and_lose_no_more_than_the_largest_weight_would(weights: Float32) -> None:
    weights[0, 0, 0, 0] = 1
    scales = weight_scales(weights)
    assert fits_half(scales)
    largest = rounded_up_to_half(np.maximum(np.abs(weights).max(axis=(1, 2, 3)) / np.float32(127), 1e-38))
    assert (scales <= largest).all()
    assert (scales >= np.float32(0.699) * largest - np.float32(6e-8)).all()
    assert (squared_errors(weights, scales) <= squared_errors(weights, largest) * 1.001).all()


def test_a_lone_large_weight_is_clipped_where_that_loses_less() -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 0.1, (1, 256, 9, 9)).astype(np.float32)
    weights[0, 0, 0, 0] = 1.0
    scales = weight_scales(weights)
    largest = np.asarray([1 / 127], np.float32)
    assert scales[0] < 0.95 * largest[0]
    assert squared_errors(weights, scales)[0] < 0.97 * squared_errors(weights, largest)[0]
    assert quantized_weights(weights, scales).max() == 127


def test_weights_too_small_for_fp16_keep_their_float32_scales() -> None:
    weights = np.full((2, 1, 1, 1), 1e-6, np.float32)
    assert np.array_equal(weight_scales(weights), np.abs(weights[:, 0, 0, 0]) / np.float32(127))
    assert not fits_half(weight_scales(weights))
