"""A fixed piece of work that is timed beside the runners: if it takes longer than then, the machine is slower."""

from __future__ import annotations

import numpy as np

from toolkit.contracts import Float32, UInt8

NAME = "machine"
# No matrix product: numpy's BLAS takes every core, and one busy core would make this ten times as slow.
VALUES = np.random.default_rng(0).random(32_768, dtype=np.float32)


def reference_work(images_nhwc: UInt8) -> Float32:
    """Nothing of the images: about 0.2 ms of work in the caches, in memory and in Python, on one thread."""
    answer: Float32 = np.sort(VALUES[:4096])
    np.cumsum(VALUES)
    sum(range(2000))
    return answer
