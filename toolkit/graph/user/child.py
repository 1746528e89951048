"""A process in which a user's ONNX file runs first: it counts, then runs; a line of JSON after each, or it dies."""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from toolkit.graph.user.work import FEW, Declared, Work, declared_by
from toolkit.storage.limits import (
    MADE_BYTES,
    MULTIPLICATIONS_OF,
    NUMBERS_OF,
    TENSOR_OF,
    TRIAL_BYTES,
    TRIAL_SECONDS,
)

MEMORY = ("alloc", "memory")  # in whatever words a library says that there is none left
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of linux/prctl.h
# What one thread of a slow processor does in a second: a tenth of what it does on a laptop.
MULTIPLICATIONS, NUMBERS, BYTES = 1e9, 2e7, 5e7
WAITS = 10  # seconds on the clock for one of a processor, on a machine that has much else to do
# Copies of weights; tensors that live at once; copies of the images; what is kept of shapes that are not known, in
# bytes of the input, and at the most.
FILES, TENSORS, COPIES, INPUTS, UNKNOWN = 8, 16, 3, 500, 1 << 30


def main() -> None:
    """Serves until its parent closes the pipe or is gone; whatever a file prints goes nowhere."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the parent's, who ends this process
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def tell(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()

    for line in sys.stdin.buffer:
        request = json.loads(line)
        model = sys.stdin.buffer.read(request["bytes"])
        if len(model) != request["bytes"]:
            return
        _try(model, request["shape"], request["dtype"], tell)


def _try(model: bytes, shape: list[int], dtype: str, tell: Callable[[dict[str, Any]], None]) -> None:
    seconds, most = TRIAL_SECONDS + len(model) / BYTES, TRIAL_BYTES + FILES * len(model)
    _limit(seconds, most)
    try:
        declared = _declared(model, shape)
    except MemoryError:
        declared = Declared(Work(largest=math.inf))
    too_much = _too_much(declared, shape)
    if not too_much:
        images = max(shape[0], FEW) if shape else FEW
        image = declared.image
        seconds += images * (image.multiplications / MULTIPLICATIONS + image.numbers / NUMBERS)
        most += int(TENSORS * images * image.largest) + COPIES * 4 * math.prod(shape)
        most += min(INPUTS * 4 * math.prod(shape), UNKNOWN) if image.unknown else 0
        _limit(seconds, most)
    tell({"much": too_much, "seconds": math.ceil(seconds), "most": most})
    tell({} if too_much else _run(model, shape, dtype))
    _limit(0, None)


def _declared(model: bytes, shape: list[int]) -> Declared:
    """Nothing where onnx cannot read it, or is not there: what it is wrong with is said where it is run.

    Raises:
        MemoryError: the shapes themselves take too much.
    """
    try:
        import onnx

        return declared_by(onnx.load_from_string(model), shape)
    except MemoryError:
        raise
    except Exception:  # of protobuf, of onnx's inference
        return Declared(Work(unknown=True))


def _too_much(declared: Declared, shape: list[int]) -> str:
    """What is more than any classifier of such images does, in words; else nothing."""
    image, pixels = declared.image, math.prod(shape[1:])
    if declared.bends:
        return "work that grows faster than the number of images"
    if image.multiplications > MULTIPLICATIONS_OF[0] + MULTIPLICATIONS_OF[1] * pixels:
        return f"{image.multiplications:.3g} multiplications an image"
    if image.numbers > NUMBERS_OF[0] + NUMBERS_OF[1] * pixels:
        return f"{image.numbers:.3g} numbers an image"
    if image.largest > TENSOR_OF[0] + TENSOR_OF[1] * pixels:
        return f"a tensor of {image.largest:,.0f} bytes an image" if image.largest < math.inf else "shapes without end"
    if declared.fixed > MADE_BYTES:
        return f"a tensor of {declared.fixed:,.0f} bytes, however many images there are"
    return ""


def _run(model: bytes, asked: list[int], dtype: str) -> dict[str, str]:
    try:
        from toolkit.runtime.ort.runner import OrtRunner

        with OrtRunner(model, threads=1, label="the file") as runner:
            shape = _shape(runner.session.get_inputs()[0].shape, asked)
            runner.session.run(runner.outputs[:1], {runner.input: np.zeros(shape, dtype)})
    except MemoryError as error:
        return {"memory": str(error)[:200] or "no memory left"}
    except Exception as error:  # what a file is wrong with is said where it is run for its answers
        words = " ".join(str(error).split())
        return {"memory" if any(word in words.lower() for word in MEMORY) else "error": words[-200:]}
    return {}


def _shape(theirs: list[Any], asked: list[int]) -> list[int]:
    """The file's own sizes, and those that were asked for where it leaves them open."""
    if len(theirs) != len(asked):
        return asked
    return [own if isinstance(own, int) and own > 0 else size for own, size in zip(theirs, asked, strict=True)]


def _limit(seconds: float, most: int | None) -> None:
    """So many seconds of a processor, and bytes more than now, where the system has such limits; 0 and None lift them.

    Both signals are unhandled: they end a process that hears nothing else.
    """
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)
        signal.alarm(math.ceil(WAITS * seconds))
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        with open("/proc/self/statm") as statm:
            now = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (hard if most is None else now + most, hard))
