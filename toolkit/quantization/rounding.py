"""Weights to int8 so that their rounding errors cancel; the nearest numbers would leave the sum of them to chance.

What a convolution adds up is alike: neighboring places of one channel, and all channels behind a ReLU, which are
positive. Errors that add up to nothing over a kernel, and over all kernels of an output channel, are therefore felt
less than smaller ones that do not. No image is needed. The CPU file's weights are rounded so; docs/int8-lab.md says why
TensorRT's files are not.

Source: Guo et al., "SQuant: On-the-Fly Data-Free Quantization via Diagonal Hessian Approximation", ICLR 2022,
section 3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.contracts import Float32
from toolkit.quantization.scales import HIGHEST, LOWEST


def rounded_weights(weights: Float32, scales: Float32) -> NDArray[np.int8]:
    """Weights (C_out, C_in / groups, ...) in steps of scales (C_out,): int8 of the same shape.

    First to the nearest number. Then of each kernel, the weights from one input channel to one output channel, so many
    are rounded the other way that the errors add up to half a step at most, those first that lie nearest to the middle
    between two numbers. Then the same is done with the kernels of an output channel, one weight of each at most. No
    weight moves by a whole step, and those that a scale clips are not turned.
    """
    kernels = weights.reshape(*weights.shape[:2], -1).astype(np.float64)
    exact = kernels / scales.astype(np.float64).reshape(-1, 1, 1)
    levels = np.rint(exact).clip(LOWEST, HIGHEST)
    errors = levels - exact
    turned = _turned(errors, errors.sum(axis=2, keepdims=True), levels)
    levels, errors = levels - turned, errors - turned
    # Of each kernel only the weight that its channel's sum would turn first is a candidate.
    sums = errors.sum(axis=2)
    total = sums.sum(axis=1, keepdims=True)
    candidate = (errors * np.sign(total)[..., None]).argmax(axis=2)[..., None]
    level = np.take_along_axis(levels, candidate, axis=2)[..., 0]
    np.put_along_axis(levels, candidate, (level - _turned(sums, total, level))[..., None], axis=2)
    result: NDArray[np.int8] = levels.reshape(weights.shape).astype(np.int8)
    return result


def _turned(errors: Any, sums: Any, levels: Any) -> Any:
    """-1, 0 or 1: what to take from `levels` so that the rows of `errors`, whose `sums` (..., 1) are given, cancel.

    What a scale clips would leave int8, and stays.
    """
    sign = np.sign(sums)
    after = levels - sign
    gain = np.where((after < LOWEST) | (after > HIGHEST), 0.0, errors * sign)
    rank = np.argsort(np.argsort(-gain, kind="stable"))
    return np.where((rank < np.rint(np.abs(sums))) & (gain > 0), sign, 0.0)
