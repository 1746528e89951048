"""What is asked of libcuda itself, because pycuda knows nothing about it: others' memory and streams, the context.

Most are called with a context current in the thread.
"""

from __future__ import annotations

import ctypes
import threading
from contextlib import suppress
from functools import lru_cache
from typing import Any

from toolkit.errors import ToolkitError
from toolkit.runtime.cuda.errors import CudaError, cuda_error
from toolkit.runtime.cuda.seam import Stream
from toolkit.runtime.driver import LIBRARY

_MEMORY_TYPE, _ORDINAL = 2, 9  # CU_POINTER_ATTRIBUTE_MEMORY_TYPE and _DEVICE_ORDINAL of cuda.h
_HOST, _DEVICE = 1, 2  # CU_MEMORYTYPE_HOST and _DEVICE; managed memory is either
_NO_TIMING = 2  # CU_EVENT_DISABLE_TIMING
_INTEGRATED = 18  # CU_DEVICE_ATTRIBUTE_INTEGRATED
_WAITS = {"auto": 0, "spin": 1, "yield": 2, "block": 4}  # CU_CTX_SCHED_* of cuda.h
_WAIT_BITS = 7  # CU_CTX_SCHED_MASK
WAITS = ("auto", "spin", "block")
LONGEST_HOLD_S = 0.25
_HostFunction = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@lru_cache(maxsize=1)
def _library() -> Any:
    return ctypes.CDLL(LIBRARY)


def _call(name: str, *arguments: Any) -> None:
    code = getattr(_library(), name)(*arguments)
    if code != 0:
        text = ctypes.c_char_p()
        _library().cuGetErrorName(code, ctypes.byref(text))
        raise cuda_error((text.value or b"").decode() or f"CUDA error {code}", name)


def _device() -> ctypes.c_int:
    """The handle of GPU 0, which everything here works on."""
    device = ctypes.c_int(0)
    _call("cuDeviceGet", ctypes.byref(device), 0)
    return device


@lru_cache(maxsize=1)
def names_by_words() -> dict[str, str]:
    """cuda.h's name of every error by the driver's own words for it, which is all that pycuda passes on."""
    names: dict[str, str] = {}
    for code in range(1, 1000):
        words, name = ctypes.c_char_p(), ctypes.c_char_p()
        if _library().cuGetErrorString(code, ctypes.byref(words)) == 0 and words.value:
            _library().cuGetErrorName(code, ctypes.byref(name))
            names.setdefault(words.value.decode(), (name.value or b"").decode())
    return names


def device_of_address(address: int) -> int | None:
    """The number of the GPU whose memory lies at an address; None where it is no memory of a GPU."""
    answers = []
    for attribute in (_MEMORY_TYPE, _ORDINAL):
        answer = ctypes.c_int(0)
        if _library().cuPointerGetAttribute(ctypes.byref(answer), attribute, ctypes.c_uint64(address)) != 0:
            return None  # CUDA_ERROR_INVALID_VALUE: CUDA has never heard of it
        answers.append(answer.value)
    return answers[1] if answers[0] in (_HOST, _DEVICE) else None


def wait_for_stream(stream: Stream, other: int) -> None:
    """Makes a stream wait for what is in another one now; `other` is its handle, 1 the legacy default stream."""
    event = ctypes.c_void_p()
    _call("cuEventCreate", ctypes.byref(event), _NO_TIMING)
    try:
        _call("cuEventRecord", event, ctypes.c_void_p(other))
        _call("cuStreamWaitEvent", ctypes.c_void_p(stream.handle), event, 0)
    finally:
        _call("cuEventDestroy_v2", event)  # CUDA keeps it until the wait is over


@lru_cache(maxsize=1)
def keep_primary_context() -> None:
    """Keeps the primary context of GPU 0 until the process ends, as torch does.

    TensorRT brings a CUDA runtime of its own that loads kernels into it; destroyed and made again behind that runtime's
    back, it would have the same handle and none of the kernels.
    """
    context = ctypes.c_void_p()
    _call("cuDevicePrimaryCtxRetain", ctypes.byref(context), _device())


def pop_if_current(context: int) -> None:
    """Takes a context off this thread's stack where it is the current one."""
    current = ctypes.c_void_p()
    _call("cuCtxGetCurrent", ctypes.byref(current))
    if current.value == context:
        _call("cuCtxPopCurrent_v2", ctypes.byref(current))


def is_integrated() -> bool:
    """Whether GPU 0 works in the host's memory, as a Jetson's does: page-locked memory is then device memory."""
    answer = ctypes.c_int(0)
    _call("cuDeviceGetAttribute", ctypes.byref(answer), _INTEGRATED, _device())
    return bool(answer.value)


def require_known_wait(wanted: str) -> None:
    """Refuses a way to wait for the GPU that is none of `WAITS`, with a ToolkitError."""
    if wanted not in WAITS:
        raise ToolkitError("unknown way to wait for the GPU", found=wanted, allowed=", ".join(WAITS))


def choose_wait(wanted: str) -> str:
    """How threads wait for the GPU in the primary context: a spinning one wakes at once and keeps a core busy.

    Best called before the context is made; "auto" leaves it as it is (CUDA Driver API, cuDevicePrimaryCtxSetFlags).

    Returns:
        What the context has: "auto" (CUDA chooses; on Tegra it may block), "spin", "yield" or "block".

    Raises:
        ToolkitError: not one of `WAITS`, or the process has a context already and CUDA does not change it.
    """
    require_known_wait(wanted)
    device = _device()
    flags = _flags(device)
    if wanted != "auto" and flags & _WAIT_BITS != _WAITS[wanted]:
        with suppress(CudaError):  # CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE before CUDA 11
            _call("cuDevicePrimaryCtxSetFlags_v2", device, ctypes.c_uint(flags & ~_WAIT_BITS | _WAITS[wanted]))
        flags = _flags(device)
        if flags & _WAIT_BITS != _WAITS[wanted]:
            raise ToolkitError(
                "this process has a CUDA context already, and it waits for the GPU in another way",
                found=_name_of_wait(flags),
                allowed=wanted,
                fix=f"open the engine before torch or another runner does, or leave wait={wanted!r} out",
            )
    return _name_of_wait(flags)


def _flags(device: ctypes.c_int) -> int:
    """Of a device's primary context, whether there is one now or not."""
    flags, active = ctypes.c_uint(0), ctypes.c_int(0)
    _call("cuDevicePrimaryCtxGetState", device, ctypes.byref(flags), ctypes.byref(active))
    return flags.value


def _name_of_wait(flags: int) -> str:
    return {bits: name for name, bits in _WAITS.items()}.get(flags & _WAIT_BITS, f"flags {flags}")


class Held:
    """Holds a stream back, so that the device begins on all that is put into it at once: `with Held(stream): ...`.

    The launches of the host then lie outside of what events in the stream measure.

    Attributes:
        in_time: whether all was put in before the stream went on by itself, after `LONGEST_HOLD_S`: whoever waits for
            the device while it is held would wait for ever.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream, self._let_go, self.in_time = stream, threading.Event(), True
        self._wait = _HostFunction(self._hold)  # CUDA calls it later: it must stay alive until then

    def _hold(self, unused: Any) -> None:
        self.in_time = self._let_go.wait(LONGEST_HOLD_S)

    def __enter__(self) -> Held:
        _call("cuLaunchHostFunc", ctypes.c_void_p(self._stream.handle), self._wait, None)
        return self

    def __exit__(self, *unused: Any) -> None:
        self._let_go.set()
