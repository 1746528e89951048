"""The CUDA seam on cuda-python's driver bindings: cuda-bindings 12.6 to 13, or the older `cuda.cuda`. It has graphs."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from toolkit.contracts import UInt8
from toolkit.runtime.cuda.errors import CudaUnavailable, cuda_error
from toolkit.runtime.cuda.libcuda import is_integrated
from toolkit.runtime.cuda.seam import Pinned, Stream

_DEVICE_MAP = 2  # CU_MEMHOSTALLOC_DEVICEMAP of cuda.h
LETS_GO = (12, 9, 1)  # NVIDIA/cuda-python 589: until then every call held Python's lock, also those that wait
HOLDS = "it holds Python's lock while it waits, and other threads stand still: pip install -U 'cuda-bindings>=12.9.1'"


class CudaPython:
    """`toolkit.runtime.cuda.seam.Cuda` on cuda-python: that says what each method does.

    Raises:
        ImportError: cuda-python is not installed.
        CudaUnavailable: there is no driver or no GPU, in the driver's words.
    """

    has_graphs = True

    def __init__(self, reason: str = "") -> None:
        self._driver, version = bindings()
        self.name = f"cuda-python {version}"
        self.lets_go = lets_go(version)
        self.reason = reason if self.lets_go else f"{reason}; {HOLDS}"
        driver = self._driver
        self._success = driver.CUresult.CUDA_SUCCESS
        try:
            self._done(driver.cuInit(0), "cuInit")
        except RuntimeError as error:  # cuda-bindings raises its own where libcuda.so.1 is not found
            raise CudaUnavailable("no libcuda.so.1", "cuInit", fix="look at what works on this machine") from error
        self._device = self._value(driver.cuDeviceGet(0), "cuDeviceGet")
        self._context: Any = self._value(driver.cuDevicePrimaryCtxRetain(self._device), "cuDevicePrimaryCtxRetain")
        self._context_address = int(self._context)
        self.integrated = is_integrated()
        # Looked up once: each is called for every image.
        self._get_current, self._push, self._pop = (
            driver.cuCtxGetCurrent,
            driver.cuCtxPushCurrent,
            driver.cuCtxPopCurrent,
        )
        self._graph_launch, self._stream_synchronize = driver.cuGraphLaunch, driver.cuStreamSynchronize

    def _done(self, answer: tuple[Any, ...], call: str) -> None:
        if answer[0] is not self._success and answer[0] != self._success:
            raise cuda_error(answer[0].name, call)

    def _value(self, answer: tuple[Any, ...], call: str) -> Any:
        self._done(answer, call)
        return answer[1]

    def enter(self) -> bool:
        error, current = self._get_current()
        if error is self._success and int(current) == self._context_address:
            return False
        self._done(self._push(self._context), "cuCtxPushCurrent")
        return True

    def leave(self, entered: bool) -> None:
        if entered:
            self._pop()

    def allocate(self, size_bytes: int) -> int:
        return int(self._value(self._driver.cuMemAlloc(size_bytes), "cuMemAlloc"))

    def release(self, address: int) -> None:
        self._done(self._driver.cuMemFree(address), "cuMemFree")

    def allocate_pinned(self, size_bytes: int, mapped: bool = False) -> Pinned:
        flags = _DEVICE_MAP if mapped else 0
        address = int(self._value(self._driver.cuMemHostAlloc(size_bytes, flags), "cuMemHostAlloc"))
        array: UInt8 = np.ctypeslib.as_array((ctypes.c_uint8 * size_bytes).from_address(address))
        if not mapped:
            return Pinned(array, address, address)
        seen = self._value(self._driver.cuMemHostGetDevicePointer(address, 0), "cuMemHostGetDevicePointer")
        return Pinned(array, address, address, int(seen))

    def release_pinned(self, pinned: Pinned) -> None:
        self._done(self._driver.cuMemFreeHost(pinned.raw), "cuMemFreeHost")

    def copy_in(self, device: int, pinned: Pinned, size_bytes: int, stream: Stream) -> None:
        self._done(self._driver.cuMemcpyHtoDAsync(device, pinned.address, size_bytes, stream.raw), "cuMemcpyHtoDAsync")

    def copy_out(self, pinned: Pinned, device: int, size_bytes: int, stream: Stream) -> None:
        self._done(self._driver.cuMemcpyDtoHAsync(pinned.address, device, size_bytes, stream.raw), "cuMemcpyDtoHAsync")

    def copy_across(self, device: int, source: int, size_bytes: int, stream: Stream) -> None:
        self._done(self._driver.cuMemcpyDtoDAsync(device, source, size_bytes, stream.raw), "cuMemcpyDtoDAsync")

    def stream(self) -> Stream:
        flag = int(self._driver.CUstream_flags.CU_STREAM_NON_BLOCKING)
        raw = self._value(self._driver.cuStreamCreate(flag), "cuStreamCreate")
        return Stream(int(raw), raw)

    def release_stream(self, stream: Stream) -> None:
        self._done(self._driver.cuStreamDestroy(stream.raw), "cuStreamDestroy")

    def synchronize(self, stream: Stream) -> None:
        answer = self._stream_synchronize(stream.raw)
        if answer[0] is not self._success:
            self._done(answer, "cuStreamSynchronize")

    def event(self) -> Any:
        return self._value(self._driver.cuEventCreate(0), "cuEventCreate")

    def release_event(self, event: Any) -> None:
        self._done(self._driver.cuEventDestroy(event), "cuEventDestroy")

    def record(self, event: Any, stream: Stream) -> None:
        self._done(self._driver.cuEventRecord(event, stream.raw), "cuEventRecord")

    def elapsed_ms(self, before: Any, after: Any) -> float:
        return float(self._value(self._driver.cuEventElapsedTime(before, after), "cuEventElapsedTime"))

    def begin_capture(self, stream: Stream) -> None:
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._done(self._driver.cuStreamBeginCapture(stream.raw, mode), "cuStreamBeginCapture")

    def end_capture(self, stream: Stream) -> Any:
        graph = self._value(self._driver.cuStreamEndCapture(stream.raw), "cuStreamEndCapture")
        try:
            return self._value(self._driver.cuGraphInstantiate(graph, 0), "cuGraphInstantiate")
        finally:
            self._driver.cuGraphDestroy(graph)

    def abandon_capture(self, stream: Stream) -> None:
        error, graph = self._driver.cuStreamEndCapture(stream.raw)
        if error == self._success and graph is not None and int(graph):
            self._driver.cuGraphDestroy(graph)

    def launch(self, graph: Any, stream: Stream) -> None:
        answer = self._graph_launch(graph, stream.raw)
        if answer[0] is not self._success:
            self._done(answer, "cuGraphLaunch")

    def release_graph(self, graph: Any) -> None:
        self._done(self._driver.cuGraphExecDestroy(graph), "cuGraphExecDestroy")

    def close(self) -> None:
        context, self._context = self._context, None
        if context is not None:
            self._driver.cuDevicePrimaryCtxRelease(self._device)


def lets_go(version: str) -> bool:
    """Whether cuda-bindings of this version lets other threads run while it waits for the GPU."""
    parts = [int(part) for part in version.split(".")[:3] if part.isdigit()]
    return len(parts) < 3 or tuple(parts) >= LETS_GO


def bindings() -> tuple[Any, str]:
    """The driver module and its version, under the name that this cuda-python has it."""
    try:
        import cuda.bindings
        from cuda.bindings import driver

        return driver, str(cuda.bindings.__version__)
    except ModuleNotFoundError:  # before 12.6 there was no cuda.bindings
        from cuda import cuda as driver

        return driver, str(getattr(driver, "__version__", "12"))
