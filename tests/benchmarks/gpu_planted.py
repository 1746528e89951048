"""A pytest plugin that plants a crash and a hang, to see what a check on a GPU makes of them.

`PYTEST_PLUGINS=tests.benchmarks.gpu_planted` with $TOOLKIT_GPU_CRASH and $TOOLKIT_GPU_HANG, each the name of a test.
"""

from __future__ import annotations

import os
import signal
import time

import pytest

LIMIT_S = 3.0  # of the test that hangs


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The test that hangs is given little time."""
    for item in items:
        if item.name == os.environ.get("TOOLKIT_GPU_HANG"):
            item.add_marker(pytest.mark.limit(LIMIT_S), append=False)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """A segmentation fault, as a library would have it; or a wait that no signal of Python's ends."""
    if item.name == os.environ.get("TOOLKIT_GPU_CRASH"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if item.name == os.environ.get("TOOLKIT_GPU_HANG"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
