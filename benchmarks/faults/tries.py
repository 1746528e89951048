"""One try: a command in a forked process that has imported everything, with what is done to it meanwhile.

The parent imports torch, onnx and ONNX Runtime once and never calls them; a child costs milliseconds, its peak of
memory beyond the parent's is what the command itself took.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RENAMES, WRITES, SYNCS, READS = 1, 2, 3, 4  # as in shim.c
SHIM = Path(__file__).with_name("shim.c")
CRASHED = 70  # exit code of a child that ended in a traceback


def preload(folder: Path) -> None:
    """Compiles the shim and starts this program anew with it; returns where it is loaded already."""
    if "FAULTS_SHIM" in os.environ:
        return
    library = folder / "shim.so"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", str(library), str(SHIM), "-ldl"], check=True)
    one = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}  # a fork has no others
    os.environ.update(one, FAULTS_SHIM=str(folder), LD_PRELOAD=str(library))
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


@dataclass(frozen=True)
class Done:
    """How a child ended.

    Attributes:
        code: its exit code; -9 where it was killed.
        seconds: of a processor, so that a busy machine does not count; who hangs is killed, and that counts.
        mib: peak of its memory beyond what it began with, pages of libraries that it touches first included.
        counted: calls that the shim saw of the kind that was watched.
    """

    code: int
    seconds: float
    mib: float
    text: str
    counted: int = 0

    @property
    def crashed(self) -> bool:
        """Whether a person saw a traceback, or the system ended it."""
        return self.code == CRASHED or self.code < 0 or "Traceback" in self.text

    @property
    def refused(self) -> bool:
        """One clear error, or a check that failed: exit 1, or 2 where the command line itself is wrong."""
        said = "error:" in self.text or "Not fit for use" in self.text or self.code == 2
        return self.code in (1, 2) and not self.crashed and said


Fault = Callable[[Any], None]  # given the shim, in the child


def nothing(shim: Any) -> None:
    """A command that nobody disturbs."""


def fault_at(calls: int, number: int, first: int, root: Path) -> Fault:
    """From the n-th call of a kind on under a folder: an errno, or SIGKILL where it is 0."""
    return lambda shim: shim.fault_plan(calls, number, ctypes.c_long(first), os.fsencode(root))


def in_child(
    action: Callable[[], int], log: Path, fault: Fault = nothing, kill_after: float | None = None, limit: float = 120
) -> Done:
    """Runs `action` in a fork; its value is the exit code."""
    started = time.monotonic()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _child(action, log, fault, writing)
    os.close(writing)
    status, usage = _waited(child, started, kill_after, limit)
    with os.fdopen(reading) as stream:
        before, counted = (int(text) for text in f"{stream.read() or 0} 0".split()[:2])
    code = os.waitstatus_to_exitcode(status)
    peak = (usage.ru_maxrss - before) / 1024
    seconds = usage.ru_utime + usage.ru_stime
    return Done(code, seconds, max(0.0, peak), log.read_text(errors="replace"), counted)


def _child(action: Callable[[], int], log: Path, fault: Fault, writing: int) -> None:
    code = CRASHED
    try:
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(handle, stream)
        shim = ctypes.CDLL(None)
        os.write(writing, f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss} ".encode())
        fault(shim)
        code = action()
        os.write(writing, f"{shim.fault_count()} ".encode())
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _waited(child: int, started: float, kill_after: float | None, limit: float) -> tuple[int, Any]:
    """The child's end; it is killed when the moment has come, and where it hangs."""
    due = started + (limit if kill_after is None else kill_after)
    while True:
        found, status, usage = os.wait4(child, os.WNOHANG)
        if found:
            return status, usage
        left = due - time.monotonic()
        if left <= 0:
            os.kill(child, signal.SIGKILL)
            return os.wait4(child, 0)[1:]
        time.sleep(min(0.005, left))


def command(workspace: Path, words: str | list[str]) -> Callable[[], int]:
    """A command line, run in a workspace; its document stays the last line of the log."""

    def action() -> int:
        os.chdir(workspace)
        os.environ.update(TOOLKIT_WORKSPACE=str(workspace), TOOLKIT_CACHE=str(workspace / "cache"))
        from toolkit.cli import run
        from toolkit.deployment import selftest

        selftest.why_not_settled = lambda latency: ""  # a machine that runs this is never calm
        try:
            run(words.split() if isinstance(words, str) else words)
        except SystemExit as ended:
            return int(ended.code or 0)
        return CRASHED

    return action


def warm(names: list[str]) -> None:
    """Imports what the commands import, and builds the command line, so that no child has to."""
    import warnings

    from toolkit.cli import command_line

    command_line()
    warnings.simplefilter("ignore")
    for name in names:
        try:
            importlib.import_module(name)
        except Exception:  # a part that cannot be imported by itself
            continue
    gc.freeze()  # a collection in a child would copy every page


def modules_of(words: list[str], workspace: Path, log: Path) -> list[str]:
    """Runs commands one after the other in one child; what it had imported in the end.

    Raises:
        SystemExit: one of them failed.
    """
    listed = workspace / ".modules.json"

    def action() -> int:
        for line in words:
            if code := command(workspace, line)():
                print(f"failed: {line}")
                return code
        listed.write_text(json.dumps([name for name in sys.modules if not name.startswith(("__main__", "tries"))]))
        return 0

    done = in_child(action, log, limit=300)
    if done.code:
        raise SystemExit(f"the commands that prepare the workspace failed\n{done.text}")
    found: list[str] = json.loads(listed.read_text())
    listed.unlink()
    return found


ERRORS = {"a full disk": (WRITES, errno.ENOSPC), "EIO at a write": (WRITES, errno.EIO),
          "EIO at fsync": (SYNCS, errno.EIO), "EIO at a read": (READS, errno.EIO)}  # fmt: skip
