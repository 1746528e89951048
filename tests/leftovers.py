"""A pytest plugin: what a test started ends with pytest, however pytest ends.

A run that is killed cannot clean up after itself. So whatever these tests start carries the run in its environment, and
a watcher in a session of its own waits for the end of pytest and kills what still carries it: children of children and
those with a session of their own as well. A run that ends by itself has nothing left to kill: else its last test fails.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

MARK = "TOOLKIT_TEST_RUN"
GRACE_S = float(os.environ.get("TOOLKIT_TEST_GRACE_S", "5"))  # for what was told to end


def pytest_configure() -> None:
    """Marks the children to come and starts their watcher; each worker of pytest-xdist is a run of its own."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: fixtures are torn down, mounts unmounted
    os.environ[MARK] = f"{os.getpid()}-{time.time_ns()}"
    if sys.platform == "linux":  # elsewhere there is no /proc to look into
        silent = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)]
        words = [sys.executable, "-I", __file__, str(os.getpid()), os.environ[MARK]]
        os.posix_spawn(sys.executable, words, {}, file_actions=silent, setsid=True)


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_running() -> Iterator[None]:
    """Fails the last test of a run that leaves processes behind."""
    yield
    if (trial := sys.modules.get("toolkit.graph.user.trial")) is not None:
        trial.end()  # as it ends when Python does, which is later
    if (warm := sys.modules.get("tests.warm")) is not None:
        warm.end()
    end = time.monotonic() + GRACE_S
    while (left := marked(os.environ[MARK])) and time.monotonic() < end:
        time.sleep(0.05)
    commands = [Path(f"/proc/{number}/cmdline").read_bytes().replace(b"\0", b" ").decode() for number in left]
    assert not commands, "tests left processes running"


def marked(run: str) -> list[int]:
    """The processes that a run's tests started and that have not ended."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={run}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:  # it has ended, or is somebody else's
            continue
    return found


def watch(pid: int, run: str) -> None:
    """Waits for the end of a process, then kills what carries its run until nothing new appears."""
    with suppress(ProcessLookupError):  # it has ended already
        select.select([os.pidfd_open(pid)], [], [])
    while left := marked(run):
        for number in left:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        time.sleep(0.05)


if __name__ == "__main__":
    watch(int(sys.argv[1]), sys.argv[2])
