"""The process in which a stranger's ONNX file runs first: it answers one line of JSON a file, or dies of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from typing import Any

import numpy as np

MEMORY = ("alloc", "memory")  # in whatever words a library says that there is none left


def main() -> None:
    """Serves until its parent closes the pipe; whatever a file prints goes nowhere."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the parent's, who ends this process
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for line in sys.stdin.buffer:
        request = json.loads(line)
        model = sys.stdin.buffer.read(request["bytes"])
        if len(model) != request["bytes"]:
            return
        answers.write(json.dumps(_tried(model, request)).encode() + b"\n")
        answers.flush()


def _tried(model: bytes, request: dict[str, Any]) -> dict[str, str]:
    try:
        from toolkit.runtime.ort.runner import OrtRunner

        _limit(request["most"], request["seconds"])
        with OrtRunner(model, threads=1) as runner:
            shape = _shape(runner.session.get_inputs()[0].shape, request["shape"])
            runner.session.run(runner.outputs[:1], {runner.input: np.zeros(shape, request["dtype"])})
    except MemoryError as error:
        return {"memory": str(error)[:200] or "no memory left"}
    except Exception as error:  # what a file is wrong with is said where it is run for its answers
        words = " ".join(str(error).split())
        return {"memory" if any(word in words.lower() for word in MEMORY) else "error": words[-200:]}
    finally:
        if hasattr(signal, "alarm"):
            signal.alarm(0)
    return {}


def _shape(theirs: list[Any], asked: list[int]) -> list[int]:
    """The file's own sizes, and those that were asked for where it leaves them open."""
    if len(theirs) != len(asked):
        return asked
    return [own if isinstance(own, int) and own > 0 else size for own, size in zip(theirs, asked, strict=True)]


def _limit(most: int, seconds: int) -> None:
    """So many bytes more than now, and so many seconds, where the system has such limits."""
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)  # unhandled, it ends a process that hears nothing else
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        with open("/proc/self/statm") as statm:
            now = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (now + most, resource.getrlimit(resource.RLIMIT_AS)[1]))
