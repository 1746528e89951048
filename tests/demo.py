"""What `make demo` leaves behind, made once for every test and worker that looks at it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.storage.folders import locked

ROOT = Path(__file__).parent.parent
RESULTS = "bundles/demo-results"


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which `make demo` has run, read-only: that of $TOOLKIT_DEMO, else one that it runs in now."""
    if told := os.environ.get("TOOLKIT_DEMO"):
        return ROOT / told
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "demo"
    with locked(folder.with_suffix(".lock")):
        if not (folder / RESULTS / "report.json").exists():
            (folder / "calibration").mkdir(parents=True)
            for images in (ROOT / "calibration").glob("*-fashion"):
                (folder / "calibration" / images.name).symlink_to(images)
            _make_demo(folder)
    return folder


def _make_demo(folder: Path) -> None:
    """The target's own lines, with the Python that runs the tests instead of one that would be installed."""
    alone = (
        "OMP_NUM_THREADS",
        "TOOLKIT_WORKSPACE",
        "MAKEFLAGS",
        "MAKELEVEL",
    )  # of the tests, and of a make around them
    environment = {name: value for name, value in os.environ.items() if name not in alone}
    words = ["make", "-f", str(ROOT / "Makefile"), "demo", "INSTALLED=", f"BIN={Path(sys.executable).parent}"]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
