"""Claims about a test run that is cut off: what its tests started does not outlive it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.leftovers import marked

ROOT = Path(__file__).parent.parent
STARTS = """
import os, subprocess, sys, time
from pathlib import Path

NESTED = "import subprocess, time; subprocess.Popen(['sleep', '600'], start_new_session=True); time.sleep(600)"


def test_that_starts_children_and_waits():
    subprocess.Popen(["sleep", "600"])
    subprocess.Popen([sys.executable, "-c", NESTED])
    Path("run").write_text(os.environ["TOOLKIT_TEST_RUN"])
    time.sleep(600)


def test_that_forgets_a_child():
    subprocess.Popen(["sleep", "600"]).returncode = 0  # without it Python would warn
"""


def pytest_in(folder: Path, *words: str) -> subprocess.Popen[str]:
    """A pytest of its own, with the plugin, on the tests above."""
    (folder / "test_starts.py").write_text(STARTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.leftovers", "-p", "no:cacheprovider", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TOOLKIT_TEST_GRACE_S": "0.5"}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)


def wait_until(true: Callable[[], bool], what: str, seconds: float = 30) -> None:
    """Asks again and again."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc to see which processes there are")
@pytest.mark.parametrize(
    ("number", "words"),
    [(signal.SIGKILL, ""), (signal.SIGTERM, ""), (signal.SIGINT, ""), (signal.SIGKILL, "-n 1")],
)
def test_a_run_that_is_cut_off_leaves_no_child(tmp_path: Path, number: signal.Signals, words: str) -> None:
    running = pytest_in(tmp_path, "-k", "waits", *words.split())
    wait_until((tmp_path / "run").exists, "the test never ran")
    run = (tmp_path / "run").read_text()
    wait_until(lambda: len(marked(run)) == 3, "it did not start its three children")
    running.send_signal(number)
    running.communicate(timeout=30)
    assert running.returncode != 0
    wait_until(lambda: not marked(run), "a child was left running")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc to see which processes there are")
def test_a_test_that_forgets_a_child_fails(tmp_path: Path) -> None:
    running = pytest_in(tmp_path, "-k", "forgets")
    said, _ = running.communicate(timeout=30)
    assert running.returncode == 1
    assert "tests left processes running" in said
    assert "sleep 600" in said
