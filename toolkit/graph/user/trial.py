"""An ONNX file's first run, in a process of its own with a limit of time and memory: only that process can hang or die.

ONNX Runtime computes constants while it opens a file and hears no Ctrl-C while it runs one. What gets through here is
run in this process afterwards, on other pixels: a graph that waits for certain pixels is not found out.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolkit.errors import ModelError, ToolkitError
from toolkit.storage.limits import TRIAL_SECONDS

LATE = ("SIGPROF", "SIGALRM")  # the limits of time of a processor, and on the clock
# The parent's own path: `-c` alone would look for modules in the current folder first, beside a user's file.
START = "import os, sys; sys.path[:] = sys.argv[1].split(os.pathsep); from toolkit.graph.user.child import main; main()"

_lock = threading.Lock()
_children: dict[int, subprocess.Popen[bytes]] = {}  # one a process, kept: it takes a second to start


def require_runs(path: Path, model: bytes, shape: Sequence[int], dtype: str = "float32") -> None:
    """Runs a file once on zeros, elsewhere; what it answers with and which errors it has are not asked here.

    Args:
        path: what people read.
        shape: of its input, where the file leaves it open.

    Raises:
        ModelError: it declares more than any classifier does, takes longer or more memory than what it declares, or
            ends the process that runs it.
    """
    request = {"bytes": len(model), "shape": list(shape), "dtype": dtype}
    with _lock:
        child = _started()
        try:
            answer = _answer(child, json.dumps(request).encode() + b"\n", model)
        except BaseException:  # Ctrl-C among them: the child does not hear it
            _end(child)
            raise
    if answer.get("much"):
        raise ModelError(f"{path} asks for more than any classifier", found=answer["much"])
    if answer.get("memory"):
        most = f"{answer['most']:,} bytes, by what it declares"
        raise ModelError(f"{path} needs too much memory to run", found=answer["memory"], allowed=most)
    if "died" in answer:
        late, seconds = answer["died"] in LATE, answer.get("seconds", TRIAL_SECONDS)
        raise ModelError(
            f"{path} " + ("does not come to an end" if late else "ends the process that runs it"),
            found=f"no answer within {seconds} s of a processor" if late else answer["died"],
            allowed="an answer to one batch of images, in ten times what its layers take",
        )


@atexit.register
def end() -> None:
    """Ends the process of trials, if there is one; the next file starts another."""
    if (child := _children.get(os.getpid())) is not None:
        _end(child)


def _started() -> subprocess.Popen[bytes]:
    """The child of this very process, not of the one that it was forked from."""
    child = _children.get(os.getpid())
    if child is not None and child.poll() is not None:
        _end(child)
        child = None
    if child is None:
        words = [sys.executable, "-c", START, os.pathsep.join(place for place in sys.path if isinstance(place, str))]
        try:
            child = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, close_fds=True
            )
        except OSError as error:
            raise ToolkitError("no process could be started to try a file in", found=error) from error
        _children[os.getpid()] = child
    return child


def _answer(child: subprocess.Popen[bytes], request: bytes, model: bytes) -> dict[str, Any]:
    assert child.stdin is not None
    assert child.stdout is not None
    with contextlib.suppress(BrokenPipeError):  # it died: the empty answer says so
        child.stdin.write(request)
        child.stdin.write(model)
        child.stdin.flush()
    answer: dict[str, Any] = {}
    for _ in range(2):  # what it may take, and how it went
        line = child.stdout.readline()
        if not line:
            break
        answer |= json.loads(line)
    else:
        return answer
    code = child.wait()
    _end(child)
    return answer | {"died": signal.Signals(-code).name if code < 0 else f"exit code {code}"}


def _end(child: subprocess.Popen[bytes]) -> None:
    _children.pop(os.getpid(), None)
    child.kill()
    child.wait()
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
