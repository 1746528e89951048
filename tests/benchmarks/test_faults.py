"""A part of `make faults` and of `make fuzz`: nothing is lost, and no file of strangers ends in a traceback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def _run(*words: str) -> tuple[int, dict[str, Any], str]:
    """A script of benchmarks/: its exit code, its document and what it said."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    return done.returncode, json.loads(done.stdout.splitlines()[-1]), done.stderr


@pytest.mark.skipif(shutil.which("cc") is None or sys.platform != "linux", reason="no C compiler, or not Linux")
def test_whatever_breaks_the_old_or_the_new_is_whole_and_the_next_command_works() -> None:
    code, document, said = _run("benchmarks/faults", "--quick")
    assert code == 0, said
    rows = {row["fault"]: row for row in document["rows"]}
    assert all(row["survived"] == row["tries"] > 0 for row in rows.values())
    assert {name for name in rows if name.startswith("SIGKILL at each rename")} >= {
        f"SIGKILL at each rename: {command}" for command in ("bundle pack", "bundle sign", "bundle unpack", "triton")
    }
    assert rows["SIGKILL at each rename: bundle sign"]["tries"] == 6  # before and after two links and a rename
    assert {"a full disk", "EIO at a write", "EIO at fsync", "EIO at a read", "two processes at once"} <= rows.keys()


def test_no_mutated_file_ends_in_anything_but_an_error_in_words() -> None:
    code, document, said = _run("benchmarks/fuzz", "--files", "60")
    assert code == 0, said
    assert len(document["targets"]) == 10
    assert all(found["tried"] == 60 for found in document["targets"].values()), said


def test_a_reader_that_fails_otherwise_is_a_finding(tmp_path: Path) -> None:
    code = (
        f"folder = {str(tmp_path)!r}\n"
        "import sys; sys.path.insert(0, 'benchmarks/fuzz'); sys.argv = ['x']\n"
        "import pathlib, runpy, targets\n"
        "targets.CORPUS = folder = pathlib.Path(folder)\n"
        "def broken(data, folder): assert b'x' not in data\n"
        "targets.TARGETS['card'] = targets.Target(broken, lambda: [b'ab', b'axb'])\n"
        "found = runpy.run_path('benchmarks/fuzz/__main__.py', run_name='fuzz')['random_run']\n"
        "import json; print(json.dumps(found('card', 0, 2, 0, folder, folder / 'last')))\n"
    )
    _, document, _ = _run("-c", code)
    assert document["findings"] == ["AssertionError"]
    assert (tmp_path / "card").is_dir(), "its bytes are kept"
