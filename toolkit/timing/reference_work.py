"""A fixed piece of work that is timed beside the runners: if it takes longer than then, the machine is slower."""

from __future__ import annotations

import numpy as np

from toolkit.contracts import Float32, UInt8
from toolkit.runtime.runner import ClosesItself


class Machine(ClosesItself):
    """A runner that does the same sums whatever it is asked: if it takes longer than then, the machine is slower."""

    name = "machine"
    description = "a sort of 4,096 float32, a running sum of 32,768 and a Python loop, one thread"

    def __init__(self) -> None:
        # No matrix product: numpy's BLAS takes every core, and one busy core would make this ten times as slow.
        self._values = np.random.default_rng(0).random(32_768, dtype=np.float32)

    def logits(self, images_nhwc: UInt8) -> Float32:
        """Nothing of the images; about 0.2 ms of work in the caches, in memory and in Python."""
        answer: Float32 = np.sort(self._values[:4096])
        np.cumsum(self._values)
        sum(range(2000))
        return answer
