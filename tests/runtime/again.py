"""A program's rest several times over, each in a process of its own: what it imported until then is imported once."""

from __future__ import annotations

import os
import sys


def again(times: int) -> None:
    """Returns in one child after another; the parent ends with 0, or as the first child that ended otherwise.

    Called before there is a thread, a session or a GPU's context: none of them outlives a fork.
    """
    assert len(os.listdir("/proc/self/task")) == 1
    for _ in range(times):
        if (child := os.fork()) == 0:
            return
        if code := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            sys.exit(f"a child ended with {code}")
    sys.exit()
