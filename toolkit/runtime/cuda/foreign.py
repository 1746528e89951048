"""Memory and streams that somebody else made, asked of libcuda itself: pycuda knows nothing about them.

Most are called with a context current in the thread.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

from toolkit.runtime.cuda.errors import cuda_error
from toolkit.runtime.cuda.seam import Stream
from toolkit.runtime.driver import LIBRARY

_MEMORY_TYPE, _ORDINAL = 2, 9  # CU_POINTER_ATTRIBUTE_MEMORY_TYPE and _DEVICE_ORDINAL of cuda.h
_HOST, _DEVICE = 1, 2  # CU_MEMORYTYPE_HOST and _DEVICE; managed memory is either
_NO_TIMING = 2  # CU_EVENT_DISABLE_TIMING


@lru_cache(maxsize=1)
def _library() -> Any:
    return ctypes.CDLL(LIBRARY)


def _call(name: str, *arguments: Any) -> None:
    code = getattr(_library(), name)(*arguments)
    if code != 0:
        text = ctypes.c_char_p()
        _library().cuGetErrorName(code, ctypes.byref(text))
        raise cuda_error((text.value or b"").decode() or f"CUDA error {code}", name)


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
    device, context = ctypes.c_int(0), ctypes.c_void_p()
    _call("cuDeviceGet", ctypes.byref(device), 0)
    _call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)


def pop_if_current(context: int) -> None:
    """Takes a context off this thread's stack where it is the current one."""
    current = ctypes.c_void_p()
    _call("cuCtxGetCurrent", ctypes.byref(current))
    if current.value == context:
        _call("cuCtxPopCurrent_v2", ctypes.byref(current))
