"""Computes for the stand-in libnvinfer with ONNX Runtime, in place of a GPU's kernels. Copied into a child's path.

`register` is called by the front modules `tensorrt` and `tensorrt_rtx` that `standin.py` writes; without it, or with
STANDIN_COMPUTE=sum, the library computes a sum (see `compute.h`) that needs no Python. So it does at the process's end
and in a forked child: ONNX Runtime would abort the one (a destructor of pybind11 takes Python's lock in a daemon
thread) and hang the other (its threads are gone), and a GPU does neither.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
import threading
import traceback
from typing import Any

_Compute = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_char_p, ctypes.c_int, ctypes.c_int64,
    ctypes.POINTER(ctypes.c_void_p),
)  # fmt: skip
_libraries: list[Any] = []
_sessions: dict[int, Any] = {}
_opening = threading.Lock()


def register(library: str) -> None:
    """Lets a library that this process has loaded compute with ONNX Runtime, for good."""
    if os.environ.get("STANDIN_COMPUTE") != "sum":
        _libraries.append(ctypes.CDLL(library))
        _libraries[0].standin_compute_with(_compute)
        atexit.register(_libraries[0].standin_compute_with, None)


def _answered(key: int, file: int, size: int, names: bytes, inputs: int, batch: int, addresses: Any) -> int:
    try:
        _answer(_session(key, file, size), names.decode().split("\n"), inputs, batch, addresses)
    except BaseException:
        traceback.print_exc(file=sys.stderr)
        return 1
    return 0


_compute = _Compute(_answered)  # the library calls it as long as the process lives


def _session(key: int, file: int, size: int) -> Any:
    with _opening:
        if key not in _sessions:
            import onnxruntime

            if not _sessions:
                _libraries[0].standin_leave_forks_early()  # before what ONNX Runtime does at the end of a process

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            options.log_severity_level = 3
            _keep_float_biases(options)
            _sessions[key] = onnxruntime.InferenceSession(
                ctypes.string_at(file, size), options, providers=["CPUExecutionProvider"]
            )
        return _sessions[key]


def _keep_float_biases(options: Any) -> None:
    """As TensorRT does, and as the toolkit lets ONNX Runtime do where it stands for TensorRT."""
    try:
        from toolkit.runtime.ort.quirks import keep_float_biases
    except ImportError:
        return
    keep_float_biases(options)


def _answer(session: Any, names: list[str], inputs: int, batch: int, addresses: Any) -> None:
    import numpy as np

    types = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8"}
    ends = {end.name: end for end in (*session.get_inputs(), *session.get_outputs())}

    def memory(index: int, shape: tuple[int, ...], dtype: Any) -> Any:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return np.frombuffer((ctypes.c_uint8 * size).from_address(addresses[index]), dtype).reshape(shape)

    feeds = {}
    for i, name in enumerate(names[:inputs]):
        shape = (batch, *(int(length) for length in ends[name].shape[1:]))
        feeds[name] = memory(i, shape, types[ends[name].type])
    for i, found in enumerate(session.run(names[inputs:], feeds), inputs):
        memory(i, found.shape, found.dtype)[...] = found * found.dtype.type(1 + 2**-21)  # a GPU rounds otherwise
