"""Memory of one slot: where images and answers lie on the device, and the pinned memory that copies go through.

On an integrated GPU pinned memory is device memory: engines work in it, and nothing is copied (CUDA for Tegra,
"Memory Selection": pinned memory is recommended where copies can be left out).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.contracts import Float32
from toolkit.runtime.cuda import CudaError, Pinned, Stream
from toolkit.runtime.trt.engine import LoadedEngine

_AT_ONCE_BYTES = 16 << 20  # buffers up to this size are made for the largest batch at once, larger ones grow


class Buffers:
    """Used again by every call, and grown; every method is called with the engine's CUDA context current.

    Attributes:
        capacity: images that there is room for; 0 before the first `grow`.
        addresses: of the input and the outputs on the device, in the engine's order.
    """

    def __init__(self, engine: LoadedEngine) -> None:
        self.engine, self.cuda = engine, engine.cuda
        self.capacity = 0
        self.addresses: list[int] = []
        self._allocated: list[int] = []
        self._pinned: list[Pinned] = []  # images, logits
        self._mapped = self.cuda.integrated

    def grow(self, count: int) -> None:
        """Makes room for at least `count` images; what named the old memory must be gone."""
        engine = self.engine
        at_once = engine.largest * engine.input.item_bytes <= _AT_ONCE_BYTES
        capacity = engine.largest if at_once else min(engine.largest, max(count, 2 * self.capacity))
        self.release()
        for tensor in (engine.input, engine.outputs[0]):
            self._pinned.append(self.cuda.allocate_pinned(capacity * tensor.item_bytes, self._mapped))
        self.addresses = [pinned.mapped for pinned in self._pinned] if self._mapped else []
        for tensor in (engine.input, *engine.outputs)[len(self.addresses) :]:
            self.addresses.append(self.cuda.allocate(capacity * tensor.item_bytes))
            self._allocated.append(self.addresses[-1])
        self.capacity = capacity

    def pixels(self, count: int) -> NDArray[Any]:
        """Where the host puts `count` images, in the engine's type."""
        return self.engine.input.view(self._pinned[0].bytes, count)

    def fresh(self, count: int) -> Callable[[], Float32]:
        """What copies the logits of `count` images out of pinned memory as float32."""
        logits = self.engine.outputs[0]
        answers = logits.view(self._pinned[1].bytes, count)
        if logits.dtype == "BF16":  # the upper half of a float32
            return lambda: (answers.astype(np.uint32) << 16).view(np.float32)
        return answers.copy if logits.dtype == "FLOAT" else lambda: answers.astype(np.float32)

    def copy_in(self, count: int, stream: Stream) -> None:
        """`pixels` to the device, unless they are there."""
        if not self._mapped:
            self.cuda.copy_in(self.addresses[0], self._pinned[0], count * self.engine.input.item_bytes, stream)

    def copy_across(self, count: int, address: int, stream: Stream) -> None:
        """Images that lie elsewhere on the device."""
        self.cuda.copy_across(self.addresses[0], address, count * self.engine.input.item_bytes, stream)

    def copy_out(self, count: int, stream: Stream) -> None:
        """Logits to where `fresh` finds them, unless they are there."""
        if not self._mapped:
            self.cuda.copy_out(self._pinned[1], self.addresses[1], count * self.engine.outputs[0].item_bytes, stream)

    def release(self) -> None:
        """Gives all of it back, as far as CUDA lets go."""
        self.capacity = 0
        while self._pinned:
            with suppress(CudaError):
                self.cuda.release_pinned(self._pinned.pop())
        self.addresses = []
        while self._allocated:
            with suppress(CudaError):
                self.cuda.release(self._allocated.pop())
