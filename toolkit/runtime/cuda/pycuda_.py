"""The CUDA seam on pycuda, which compiles on every JetPack: the primary context, pushed and popped; no CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from toolkit.runtime.cuda.errors import cuda_error
from toolkit.runtime.cuda.libcuda import is_integrated, names_by_words, pop_if_current
from toolkit.runtime.cuda.seam import Pinned, Stream

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING of cuda.h; pycuda has no name for it
_NO_GRAPHS = "CUDA graphs, which pycuda does not have"

Method = TypeVar("Method", bound=Callable[..., Any])


def _named(method: Method) -> Method:
    """Turns what pycuda raises into the exceptions of `toolkit.runtime.cuda.errors`."""

    @wraps(method)
    def call(self: PyCuda, *arguments: Any) -> Any:
        try:
            return method(self, *arguments)
        except self._driver.Error as error:
            call, _, words = str(error).partition(" failed: ")  # pycuda 2026.1, cuda.hpp
            words = words.partition(" - ")[0].strip()
            raise cuda_error(names_by_words().get(words, words or type(error).__name__), call) from error

    return cast(Method, call)


class PyCuda:
    """`toolkit.runtime.cuda.seam.Cuda` on pycuda: that says what each method does.

    It makes no context of its own: torch and TensorRT use the primary.

    Raises:
        ImportError: pycuda is not installed, or there is no libcuda.so.1 for it.
        CudaUnavailable: there is no GPU, in the driver's words.
    """

    has_graphs = False
    lets_go = True

    def __init__(self, reason: str = "") -> None:
        import pycuda
        import pycuda.driver

        self._driver: Any = pycuda.driver
        self.name, self.reason = f"pycuda {pycuda.VERSION_TEXT}", reason
        self._allocations: dict[int, Any] = {}
        self._retain()

    @_named
    def _retain(self) -> None:
        self._driver.init()
        self._context: Any = self._driver.Device(0).retain_primary_context()
        self._context_address = int(self._context.handle)
        self.integrated = is_integrated()

    @_named
    def enter(self) -> bool:
        # Always pushed: pycuda frees only what belongs to the context on its own stack.
        self._context.push()
        return True

    def leave(self, entered: bool) -> None:
        if entered:
            self._driver.Context.pop()

    @_named
    def allocate(self, size_bytes: int) -> int:
        allocation = self._driver.mem_alloc(size_bytes)
        self._allocations[int(allocation)] = allocation
        return int(allocation)

    @_named
    def release(self, address: int) -> None:
        self._allocations.pop(address).free()

    @_named
    def allocate_pinned(self, size_bytes: int, mapped: bool = False) -> Pinned:
        import numpy as np

        flags = self._driver.host_alloc_flags.DEVICEMAP if mapped else 0
        array = self._driver.pagelocked_empty(size_bytes, np.uint8, mem_flags=flags)
        seen = int(array.base.get_device_pointer()) if mapped else 0
        return Pinned(array, int(array.ctypes.data), array.base, seen)

    @_named
    def release_pinned(self, pinned: Pinned) -> None:
        pinned.raw.free()

    @_named
    def copy_in(self, device: int, pinned: Pinned, size_bytes: int, stream: Stream) -> None:
        self._driver.memcpy_htod_async(device, pinned.bytes[:size_bytes], stream.raw)

    @_named
    def copy_out(self, pinned: Pinned, device: int, size_bytes: int, stream: Stream) -> None:
        self._driver.memcpy_dtoh_async(pinned.bytes[:size_bytes], device, stream.raw)

    @_named
    def copy_across(self, device: int, source: int, size_bytes: int, stream: Stream) -> None:
        self._driver.memcpy_dtod_async(device, source, size_bytes, stream.raw)

    @_named
    def stream(self) -> Stream:
        raw = self._driver.Stream(_NON_BLOCKING)
        return Stream(int(raw.handle), raw)

    def release_stream(self, stream: Stream) -> None:
        stream.raw = None  # pycuda destroys a stream with its last reference

    @_named
    def synchronize(self, stream: Stream) -> None:
        stream.raw.synchronize()

    @_named
    def event(self) -> Any:
        return self._driver.Event()

    def release_event(self, event: Any) -> None:
        pass  # pycuda destroys an event with its last reference

    @_named
    def record(self, event: Any, stream: Stream) -> None:
        event.record(stream.raw)

    @_named
    def elapsed_ms(self, before: Any, after: Any) -> float:
        return float(after.time_since(before))

    def begin_capture(self, stream: Stream) -> None:
        raise cuda_error("CUDA_ERROR_NOT_SUPPORTED", _NO_GRAPHS)

    def end_capture(self, stream: Stream) -> Any:
        raise cuda_error("CUDA_ERROR_NOT_SUPPORTED", _NO_GRAPHS)

    def abandon_capture(self, stream: Stream) -> None:
        pass

    def launch(self, graph: Any, stream: Stream) -> None:
        raise cuda_error("CUDA_ERROR_NOT_SUPPORTED", _NO_GRAPHS)

    def release_graph(self, graph: Any) -> None:
        pass

    @_named
    def close(self) -> None:
        context, self._context = self._context, None
        if context is None:
            return
        context.push()  # pycuda releases a context of another thread only where it is the current one
        context.detach()
        pop_if_current(self._context_address)  # of a primary context, detach leaves the push behind
