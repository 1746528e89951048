"""How every session of ONNX Runtime starts: without a word of its own, on no more cores than this process may use."""

from __future__ import annotations

import os
from typing import Any

from toolkit.lazy import needs


def session_options(threads: int = 1) -> Any:
    """onnxruntime.SessionOptions for a graph that is looked at, or run as its users do.

    Args:
        threads: of one operator. 1 starts no thread that spins when the call is over; 0 takes every core that this
            process may use. Left to itself ONNX Runtime takes those of the machine, even where `taskset` or a
            container's cpuset allows fewer ("Thread management" in its documentation).
    """
    with needs("run ONNX files"):
        import onnxruntime
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what is wrong comes as an exception too; the rest is not for users
    options.intra_op_num_threads = threads or _cores_if_fewer()
    return options


def _cores_if_fewer() -> int:
    """The cores that this process is held to; 0 where it may use them all, or nobody can tell."""
    if not hasattr(os, "sched_getaffinity"):
        return 0
    allowed = len(os.sched_getaffinity(0))
    return allowed if allowed < (os.cpu_count() or 0) else 0
