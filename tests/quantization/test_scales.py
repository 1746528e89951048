"""Claims about scales: FP16 holds them, they never clip more than asked, and they are hardly wider."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
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
    scales_of_pairs,
    weight_scales,
    weight_scales_in_16_bits,
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
    assert not fits_half(np.array([1e6], np.float32))  # nor does one that is too large warn


def _best_by_the_book(row: Float32, in_half: bool) -> float:
    """Clip by clip and weight by weight."""
    largest, best, least = np.float32(np.abs(row).max()) / np.float32(127), 0.0, np.inf
    for clip in np.linspace(1.0, 0.7, 31):
        scale = largest * np.float32(clip)
        scale = rounded_up_to_half(np.array([scale]))[0] if in_half else scale
        levels = [min(max(round(float(w / scale)), -128), 127) for w in row]
        left = sum((float(w) - float(np.float32(n * scale))) ** 2 for w, n in zip(row, levels, strict=True))
        best, least = (float(scale), left) if left < least else (best, least)
    return best


@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2**-14 * 127, 65504 * 127, 1e30, 1e-7, 0.3]))
def test_a_weight_scale_is_the_best_of_all_clips(seed: int, largest: float) -> None:
    weights = np.random.default_rng(seed).normal(size=(2, 3, 2, 2))
    weights = (weights / np.abs(weights).max() * largest).astype(np.float32)
    in_half = 2**-14 * 127 <= np.abs(weights).max() <= 65504 * 127
    expected = [_best_by_the_book(row, in_half) for row in weights.reshape(2, -1)]
    assert weight_scales(weights).tolist() == expected
    assert fits_half(weight_scales(weights)) == in_half


def test_what_a_scale_clips_ends_at_the_ends_of_int8() -> None:
    found = quantized_weights(np.array([[-300, -127.5, 0.5, 1.5, 300]], np.float32), np.ones(1, np.float32))
    assert found.tolist() == [[-128, -128, 0, 2, 127]]


@pytest.mark.parametrize(
    ("channels", "largest"),
    [([5, -3], 5), ([5, 3], 8), ([-5, -3], 8), ([-0.5, 0.25], 0.5), ([5, -3, 4], 5), ([5, -3, 4, 4], 8), ([7], 7)],
)
def test_two_neighbors_of_one_sign_must_fit_together(channels: list[float], largest: float) -> None:
    weights = np.array(channels, np.float32).reshape(1, -1, 1, 1)
    assert scales_of_pairs(weights) == np.float32(largest / 127)
    apart = np.concatenate([weights, np.zeros_like(weights)], axis=1)  # an even number: the next place begins anew
    assert scales_of_pairs(np.concatenate([apart, -apart], axis=3)) == np.float32(largest / 127)


def test_where_no_pair_overflows_the_scales_are_the_usual_ones() -> None:
    rng = np.random.default_rng(0)
    for weights in (rng.normal(size=(4, 6)).astype(np.float32), np.full((4, 6), 1e-7, np.float32)):
        found, least = weight_scales(weights), scales_of_pairs(weights)
        exact, in_half = weight_scales_in_16_bits(weights), weight_scales_in_16_bits(weights, in_half=True)
        assert exact.tolist() == np.maximum(found, least).tolist()
        assert fits_half(in_half) == fits_half(found)
        assert (in_half >= exact).all()
        assert (in_half <= exact * (1 + 2**-10)).all()
        assert (exact > found).any()


def test_the_scales_of_weights_that_were_seen_before_are_theirs_alone() -> None:
    weights = np.random.default_rng(0).normal(0, 1, (4, 6)).astype(np.float32)
    found = weight_scales(weights)
    kept = found.copy()
    found[:] = 0  # what somebody does with an answer is not in the next
    assert np.array_equal(weight_scales(weights.copy()), kept)
    assert len(weight_scales(weights.reshape(6, 4))) == 6  # the same bytes in other rows
    weights[0] *= 2
    assert weight_scales(weights)[0] != kept[0]
