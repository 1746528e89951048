"""A pytest plugin that writes down each test as it happens, so that a crash, a hang or the end of the time loses one.

`-p tests.gpu.journal` with $TOOLKIT_GPU_JOURNAL, a file that gets a line of JSON when the tests are collected, when one
begins and when it ended, each on the disk before the next thing happens. $TOOLKIT_GPU_DONE is a file with the tests, a
line each, that have an outcome already: they are left out. After a failure that no CUDA context survives the process
ends, and whoever started it starts the rest in a fresh one.
"""

from __future__ import annotations

import faulthandler
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest

LIMIT_S = 30.0  # of a test that does not carry the marker `limit`
LONGEST_TEXT, LONGEST_SAID = 3000, 2000
CHILDS = "--- stderr ---"  # in the words of a test about a child's fault
POISONED = 86  # exit code: nothing more can run in this process
_STDERR = os.dup(2)  # the log, before pytest takes standard error away
_POISON = re.compile(
    r"CudaFault|CudaContextLost|CudaHardwareFault|ILLEGAL_ADDRESS|illegal memory access|ASSERT_TRIGGERED"
)


class Journal:
    """Writes the lines of one process."""

    def __init__(self, file: Path, done: Path | None) -> None:
        self._stream = file.open("a")
        self._done = set(done.read_text().splitlines()) if done is not None and done.is_file() else set()
        self._limits: dict[str, float] = {}
        self._now: dict[str, Any] = {}
        self._began = 0.0

    def write(self, **line: Any) -> None:
        """A line, on the disk when this returns."""
        self._stream.write(json.dumps(line) + "\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Leaves out what has an outcome, and names the rest."""
        left_out = [item for item in items if item.nodeid in self._done]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item.nodeid not in self._done]
        for item in items:
            marker = item.get_closest_marker("limit")
            self._limits[item.nodeid] = float(marker.args[0]) if marker else LIMIT_S
        self.write(event="collected", tests=[item.nodeid for item in items], at=time.time())

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """A test begins; where it hangs, its stacks go into the log shortly before it is ended."""
        limit_s = self._limits.get(nodeid, LIMIT_S)
        self._began, self._now = time.monotonic(), {"outcome": "passed", "reason": "", "text": "", "said": ""}
        self.write(event="begin", test=nodeid, at=time.time(), limit_s=limit_s)
        faulthandler.dump_traceback_later(max(1.0, limit_s - 2), file=_STDERR)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """The worst of setup, call and teardown counts."""
        now = self._now
        now["said"] = report.capstdout[-LONGEST_SAID:]
        if report.skipped:
            words = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
            now.update(outcome="skipped", reason=str(words).removeprefix("Skipped: ")[:500])
        elif report.failed:
            crash = getattr(getattr(report.longrepr, "reprcrash", None), "message", "") or report.longreprtext
            text = report.longreprtext[-LONGEST_TEXT:]
            now.update(outcome="failed" if report.when == "call" else "error", reason=crash[:600], text=text)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """A test ended."""
        faulthandler.cancel_dump_traceback_later()
        seconds = round(time.monotonic() - self._began, 3)
        self.write(event="end", test=nodeid, at=time.time(), seconds=seconds, **self._now)
        words = self._now["reason"] + self._now["text"]
        if self._now["outcome"] in ("failed", "error") and _POISON.search(words) and CHILDS not in words:
            self.write(event="poisoned", test=nodeid, at=time.time())
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(POISONED)


def pytest_configure(config: pytest.Config) -> None:
    """Only where somebody asked for the journal."""
    file, done = os.environ.get("TOOLKIT_GPU_JOURNAL"), os.environ.get("TOOLKIT_GPU_DONE")
    if file:
        config.pluginmanager.register(Journal(Path(file), Path(done) if done else None), "gpu-journal")
