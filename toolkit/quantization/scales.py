"""Scales that FP16 holds exactly, so that every TensorRT artifact of one record has the same ones, bit for bit.

TensorRT 8 reads scales as float32 whatever their type, and from 10 on an FP16 layer wants FP16 scales. A scale is
therefore rounded up to FP16 first, at most 0.1 % wider, and the float32 files hold that very number.

x86 processors without VNNI instructions add two products of uint8 and int8 in 16 bits and saturate (VPMADDUBSW). Full
int8 weights overflow there, and ONNX Runtime's answer, `reduce_range`, gives up one bit of all weights. Only two large
neighbors of one sign can do it, so only the channels that have such a pair get wider scales where ONNX Runtime computes
in INT8: in the CPU form, and in matrix products of every form. The files have the same answers on every processor.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from toolkit.contracts import Float32

LEVELS = 127  # int8 is used from -127 to 127, symmetric about zero
LOWEST, HIGHEST = -128, 127  # what int8 holds
# A channel of zeros has no range; any positive scale quantizes it exactly.
SMALLEST_SCALE = float(np.finfo(np.float32).tiny)
SMALLEST_NORMAL_HALF = float(np.finfo(np.float16).tiny)  # 6.1e-5; below it FP16 loses digits
LARGEST_HALF = float(np.finfo(np.float16).max)
# 255 * 128 is the last that int16 holds, and rounding adds less than a step to each of the two.
LARGEST_PAIR = 127.0
CLIPS = np.linspace(1.0, 0.7, 31)  # parts of a channel's largest weight
MOST_KEPT = 4096  # tensors whose scales are kept: every method, file and layer that is tried asks for the same ones
_searched: dict[bytes, Float32] = {}  # by the weights' bytes


def rounded_up_to_half(scales: Float32) -> Float32:
    """The smallest FP16 numbers that are not below float32 `scales`, as float32; for 0 to 65,504."""
    half = scales.astype(np.float16)
    with np.errstate(over="ignore"):  # the number above the largest is not taken, yet computed
        up = np.where(half.astype(np.float32) < scales, np.nextafter(half, np.float16(np.inf)), half)
    result: Float32 = np.maximum(up, np.finfo(np.float16).smallest_subnormal).astype(np.float32)
    return result


def fits_half(scales: Float32) -> bool:
    """Whether FP16 holds every one of these scales exactly."""
    with np.errstate(over="ignore"):
        return bool((scales.astype(np.float16).astype(np.float32) == scales).all())


def activation_scale(amax: float) -> np.float32:
    """Amax / 127 as float32, rounded up to FP16 where FP16 has all its digits; elsewhere as it is."""
    scale = np.float32(max(np.float32(amax) / np.float32(LEVELS), np.float32(SMALLEST_SCALE)))
    if not SMALLEST_NORMAL_HALF <= scale <= LARGEST_HALF:
        return scale
    return np.float32(rounded_up_to_half(np.asarray(scale)))


def weight_scales(weights: Float32) -> Float32:
    """Scale of each output channel whose rounded and clipped weights have the least squared error: (C_out,) float32.

    Clips from the largest |w| down to 0.7 of it are tried, 31 a channel; of equals the widest. Against the largest |w|
    alone the logits of both CIFAR-10 nets that were measured came 1 to 3 % nearer to fp32's in every calibration draw,
    and no nearer on Fashion-MNIST; it costs no image (docs/int8-lab.md). Scales are rounded up to FP16 unless all
    channels are too small or one too large for it. A single small channel may fall among FP16's subnormal numbers: its
    step is then wider, by 6e-8 at most.

    Source: the per-channel search of Choukroun et al., "Low-bit Quantization of Neural Networks for Efficient
    Inference", ICCV Workshops 2019, on weights.
    """
    flat = np.ascontiguousarray(weights.reshape(len(weights), -1), np.float32)
    key = hashlib.sha256(str(flat.shape).encode() + flat.tobytes()).digest()
    found = _searched.get(key)
    if found is None:
        if len(_searched) >= MOST_KEPT:
            _searched.clear()
        found = _searched[key] = _least_error(flat)
    return found.copy()


def _least_error(flat: Float32) -> Float32:
    """The search of `weight_scales` over rows (C_out, K)."""
    if not flat.any():
        return np.full(len(flat), SMALLEST_NORMAL_HALF, np.float32)
    largest: Float32 = np.maximum(np.abs(flat).max(axis=1) / np.float32(LEVELS), np.float32(SMALLEST_SCALE))
    in_half = SMALLEST_NORMAL_HALF <= float(largest.max()) <= LARGEST_HALF
    best, least = largest, np.full(len(flat), np.inf)
    for clip in CLIPS:
        scales = np.maximum(largest * np.float32(clip), np.float32(SMALLEST_SCALE)).astype(np.float32)
        scales = rounded_up_to_half(scales) if in_half else scales
        left = np.square(flat - dequantized(quantized_weights(flat, scales), scales), dtype=np.float64).sum(axis=1)
        best = np.where(left < least, scales, best)
        least = np.minimum(left, least)
    return best


def weight_scales_in_16_bits(weights: Float32, in_half: bool = False) -> Float32:
    """`weight_scales`, not below `scales_of_pairs`: float32 (C_out,) of weights (C_out, ...).

    Args:
        in_half: as FP16 numbers where `weight_scales` are.
    """
    found, least = weight_scales(weights), scales_of_pairs(weights)
    scales: Float32 = np.maximum(found, rounded_up_to_half(least) if in_half and fits_half(found) else least)
    return scales


def scales_of_pairs(weights: Float32) -> Float32:
    """The least scales with which 255 times the sum of any two neighboring weights fits in int16: float32 (C_out,).

    Neighbors are what one VPMADDUBSW adds: two input channels, in the order that ONNX Runtime's kernels read, which is
    (kH, kW, C_in); where C_in is odd the last channel of one place goes with the first of the next.

    Args:
        weights: float32 (C_out, C_in / groups, kH, kW), or with another number of places.
    """
    flat = np.moveaxis(weights, 1, -1).reshape(len(weights), -1).astype(np.float64)
    pairs = np.pad(flat, ((0, 0), (0, flat.shape[1] % 2))).reshape(len(flat), -1, 2)
    together = pairs.clip(min=0).sum(axis=2), pairs.clip(max=0).sum(axis=2)
    largest = np.maximum(*(np.abs(sums).max(axis=1) for sums in together))
    scales: Float32 = (largest / LARGEST_PAIR).astype(np.float32)
    return scales


def nearest_weights(weights: Float32) -> Float32:
    """What TensorRT's INT8 files make of weights (C_out, ...): the nearest int8 numbers in steps of `weight_scales`."""
    scales = weight_scales(weights)
    return dequantized(quantized_weights(weights, scales), scales)


def dequantized(levels: NDArray[np.int8], scales: Float32) -> Float32:
    """int8 (C_out, ...) times scales (C_out,), as DequantizeLinear computes it: float32."""
    result: Float32 = (levels * scales.reshape(-1, *(1,) * (levels.ndim - 1))).astype(np.float32)
    return result


def quantized_weights(weights: Float32, scales: Float32) -> NDArray[np.int8]:
    """What QuantizeLinear makes of weights (C_out, ...) with scales (C_out,): int8, rounded half to even.

    -128 occurs where a scale clips: QuantizeLinear saturates there too.
    """
    column = scales.reshape(-1, *(1,) * (weights.ndim - 1))
    levels: NDArray[np.int8] = np.rint(weights / column).clip(LOWEST, HIGHEST).astype(np.int8)
    return levels
