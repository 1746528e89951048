"""Claims about `make gpu` on a machine without a GPU: it says so, and the list of what it would check is true."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from toolkit.runtime.driver import probe_driver

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "benchmarks" / "gpu_check.py"
HEADING = "## The tests, by name"


@pytest.fixture(scope="module")
def check() -> dict[str, Any]:
    """The script's functions by name."""
    return runpy.run_path(str(SCRIPT))


def test_the_list_in_the_docs_is_what_pytest_collects(check: dict[str, Any]) -> None:
    names = check["collected"]()
    assert len(names) > 40
    written = (ROOT / "docs" / "gpu.md").read_text().partition(HEADING)[2].partition("\n\n")[2].partition("\n\n")[2]
    assert written == check["markdown"](names), "python benchmarks/gpu_check.py --list writes the list anew"


def test_every_test_of_the_folder_carries_the_marker(check: dict[str, Any]) -> None:
    command = [sys.executable, "-m", "pytest", "tests/gpu", "--collect-only", "-q"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert [line for line in done.stdout.splitlines() if "::" in line] == check["collected"]()


def test_cases_are_listed_in_brackets_under_their_test_and_file(check: dict[str, Any]) -> None:
    names = [
        "tests/gpu/test_a.py::test_one",
        "tests/gpu/test_a.py::test_two[1-x]",
        "tests/gpu/test_a.py::test_two[2-x]",
    ]
    assert check["markdown"](names) == "`tests/gpu/test_a.py`\n\n- `test_one`\n- `test_two` (1-x, 2-x)\n"


def test_a_machine_without_a_gpu_says_so_and_exits_1() -> None:
    if probe_driver().available:
        pytest.skip("this machine has a GPU")
    done = subprocess.run([sys.executable, str(SCRIPT)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("There is no GPU to check anything on: ")
    assert "Traceback" not in done.stderr
    assert not done.stdout


def test_without_a_gpu_every_test_is_skipped_with_its_reason() -> None:
    if probe_driver().available:
        pytest.skip("this machine has a GPU")
    command = [sys.executable, "-m", "pytest", "tests/gpu", "-m", "gpu", "--confcutdir", "tests/gpu", "-q"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    skipped = [line for line in done.stdout.splitlines() if line.startswith("SKIPPED")]
    assert skipped
    assert all(probe_driver().reason in line for line in skipped)


def test_the_gpu_tests_themselves_pass_on_the_stand_ins_for_libcuda_and_tensorrt(tmp_path: Path) -> None:
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc to make a libcuda of")
    source = ROOT / "tests" / "runtime" / "cuda" / "stub" / "libcuda.c"
    options = ["-shared", "-fPIC", "-O2", "-w", "-Wl,-soname,libcuda.so.1", "-o", str(tmp_path / "libcuda.so.1")]
    subprocess.run([compiler, *options, str(source), "-lpthread", "-ldl"], check=True)
    environment = os.environ | {"LD_LIBRARY_PATH": f"{tmp_path}:{os.environ.get('LD_LIBRARY_PATH', '')}"}
    environment |= {"TOOLKIT_STANDIN": str(tmp_path), "PYTHONPATH": str(ROOT)}
    words = ["tests/gpu", "-m", "gpu", "--confcutdir", "tests/gpu", "-p", "tests.gpu_on_standin", "-q"]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout
    assert int(done.stdout.rpartition("\n")[0].rpartition("\n")[2].split()[0]) > 30  # "39 passed, ..."


def test_outcomes_are_read_off_pytests_own_file(check: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "tests" / "gpu"
    folder.mkdir(parents=True)
    (folder / "test_it.py").write_text(
        "import pytest\n"
        "@pytest.fixture\ndef broken():\n    raise OSError('x')\n"
        "def test_good(): pass\n"
        "def test_bad(): assert False\n"
        "def test_error(broken): pass\n"
        "@pytest.mark.parametrize('n', [1, 2])\ndef test_cases(n): pytest.skip('no driver')\n"
    )
    file = tmp_path / "out.xml"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-c",
        "/dev/null",
        "--rootdir",
        str(tmp_path),
        f"--junitxml={file}",
    ]
    subprocess.run([*command, "tests/gpu"], cwd=tmp_path, capture_output=True)
    assert check["outcomes_from_junit"](file) == {
        "tests/gpu/test_it.py::test_good": "passed",
        "tests/gpu/test_it.py::test_bad": "failed",
        "tests/gpu/test_it.py::test_error": "failed",
        "tests/gpu/test_it.py::test_cases[1]": "skipped: no driver",
        "tests/gpu/test_it.py::test_cases[2]": "skipped: no driver",
    }


def test_a_step_that_fails_hangs_or_cannot_start_is_a_code_and_its_last_words(
    check: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = check["run"]
    run.__globals__["RESULTS"] = tmp_path
    assert run("good", [sys.executable, "-c", "pass"], 60) == 0
    assert run("bad", [sys.executable, "-c", "import sys; sys.exit('it broke')"], 60) == 1
    assert run("slow", [sys.executable, "-c", "import time; time.sleep(60)"], 0.5) == 124
    assert run("absent", ["/no/such/python"], 60) == 127
    said = capsys.readouterr().err
    assert "good: ok" in said
    assert "    it broke" in said
    assert "slow: not done within" in said
    assert "absent: /no/such/python cannot be started" in said
