"""Claims about the check on a GPU, where there is none: what crashes, hangs or comes late costs itself and no more."""

from __future__ import annotations

import argparse
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from toolkit.runtime.driver import probe_driver

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu_check.py"
HEADING = "## The tests, by name"
CRASHES, HANGS = "test_an_answer_is_a_fresh_array", "test_images_above_the_profile_are_split"


@pytest.fixture(scope="module")
def check() -> dict[str, Any]:
    """The script's functions by name."""
    return runpy.run_path(str(SCRIPT))


@pytest.fixture(scope="module")
def process(check: dict[str, Any]) -> Any:
    """`benchmarks/gpu_process.py`, which the script has put into the path."""
    import gpu_process  # type: ignore[import-not-found]

    return gpu_process


@pytest.fixture(scope="module")
def names(check: dict[str, Any]) -> list[str]:
    """The tests that carry the marker."""
    return list(check["collected"]())


@pytest.mark.slow
def test_the_list_in_the_docs_is_what_pytest_collects(check: dict[str, Any], names: list[str]) -> None:
    assert len(names) > 40
    written = (ROOT / "docs" / "gpu.md").read_text().partition(HEADING)[2].partition("\n\n")[2].partition("\n\n")[2]
    assert written == check["markdown"](names), "python benchmarks/gpu_check.py --list writes the list anew"


@pytest.mark.slow
def test_every_test_of_the_folder_carries_the_marker(names: list[str]) -> None:
    command = [sys.executable, "-m", "pytest", "tests/gpu", "--confcutdir", "tests/gpu", "--collect-only", "-q"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert [line for line in done.stdout.splitlines() if "::" in line] == names


def test_every_file_of_tests_has_a_step(check: dict[str, Any], tmp_path: Path) -> None:
    plan = check["plan"]
    parts = plan.parts_of(plan.Places(tmp_path, tmp_path, tmp_path))
    named = {word for part in parts if part.tests for word in part.words}
    assert named == {f"tests/gpu/{path.name}" for path in (ROOT / "tests" / "gpu").glob("test_*.py")}
    assert [part.step for part in parts if part.limit_s > 0] == sorted(
        (part.step for part in parts if part.limit_s > 0), key=list(plan.STEPS).index
    )


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


def test_an_unknown_step_is_refused_with_the_steps_there_are() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "--steps", "seam,sauna"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("there is no step sauna; allowed: machine, seam, tiny")


def test_a_place_that_takes_no_results_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    words = [sys.executable, str(SCRIPT), "--rehearse", "--steps", "seam", "--out", str(tmp_path / "file")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.strip() == f"--out {tmp_path / 'file'} cannot be written to: File exists; name a folder"
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.slow
def test_without_a_gpu_every_test_is_skipped_with_its_reason() -> None:
    if probe_driver().available:
        pytest.skip("this machine has a GPU")
    command = [sys.executable, "-m", "pytest", "tests/gpu", "-m", "gpu", "--confcutdir", "tests/gpu", "-q"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    skipped = [line for line in done.stdout.splitlines() if line.startswith("SKIPPED")]
    assert skipped
    assert all(probe_driver().reason in line for line in skipped)


@pytest.fixture(scope="session")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """A rehearsal with a crash in one test and a hang in another."""
    out = tmp_path_factory.mktemp("out")
    planted = {
        "PYTEST_PLUGINS": "tests.benchmarks.gpu_planted",
        "TOOLKIT_GPU_CRASH": CRASHES,
        "TOOLKIT_GPU_HANG": HANGS,
    }
    words = ["--rehearse", "--out", str(out), "--steps", "tiny"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *words], cwd=ROOT, env=os.environ | planted, capture_output=True, text=True
    )
    if "a rehearsal needs gcc" in done.stderr:
        pytest.skip(done.stderr.strip())
    return out, json.loads((out / "summary.json").read_text()), done


@pytest.mark.slow
def test_a_crash_costs_one_test_and_a_hang_another(rehearsed: tuple[Any, ...]) -> None:
    _, summary, done = rehearsed
    calls = next(part for part in summary["parts"] if part["name"] == "tiny-calls")
    outcomes = {name.rpartition("::")[2]: test for name, test in calls["tests"].items()}
    assert outcomes[CRASHES]["outcome"] == "crashed"
    assert outcomes[CRASHES]["reason"] == "crashed: SIGSEGV"
    assert outcomes[CRASHES]["text"].startswith("Fatal Python error: Segmentation fault")
    assert outcomes[HANGS]["outcome"] == "hung"
    assert "took more than 3 s" in outcomes[HANGS]["reason"]
    assert "pytest_runtest_call" in outcomes[HANGS]["text"]  # where it hung
    others = {test["outcome"] for name, test in outcomes.items() if name not in (CRASHES, HANGS)}
    assert others == {"passed", "skipped"}
    assert calls["starts"] == 3
    assert f"FAILED tiny-calls: test_calls.py::{CRASHES}" in done.stdout
    assert done.returncode == 1


@pytest.mark.slow
def test_the_deadline_holds_and_names_what_was_not_started(check: dict[str, Any], process: Any, tmp_path: Path) -> None:
    plan, stalls = check["plan"], tmp_path / "test_stalls.py"
    stalls.write_text(
        "import time\nimport pytest\n\npytestmark = [pytest.mark.gpu, pytest.mark.limit(600)]\n\n"
        "def test_that_ends():\n    pass\n\ndef test_that_does_not():\n    time.sleep(600)\n"
    )
    deadline_s = check["FINISH_S"] + 4.0
    options = argparse.Namespace(
        began=time.monotonic(), deadline=deadline_s, out=tmp_path / "out", rehearse=True, inputs=tmp_path
    )
    options.out.mkdir()
    environment = check["environment_of"](options, tmp_path / "work")
    run = check["Check"](options, tmp_path / "work", environment, {"available": False, "reason": "none is needed"})
    check["prepare"](run.places)
    run.run(
        [
            plan.Part("memory", "memory", (str(stalls),), 60, least_s=1, tests=True),
            plan.Part("eager", "eager", ("-c", "pass"), 60),
        ]
    )
    memory, eager = json.loads((options.out / "summary.json").read_text())["parts"]
    assert 3 < memory["seconds"] < 4 + 2 * process.GRACE_S
    assert {name.rpartition("::")[2]: test["outcome"] for name, test in memory["tests"].items()} == {
        "test_that_ends": "passed", "test_that_does_not": "hung"
    }  # fmt: skip
    assert memory["outcome"] == "failed"
    assert eager["outcome"] == "not started"
    assert eager["words"].endswith(" s left")


@pytest.mark.slow
def test_the_tar_holds_the_rest(rehearsed: tuple[Any, ...]) -> None:
    out, summary, _ = rehearsed
    assert sorted(path.name for path in out.iterdir()) == ["results.tar.gz", "summary.json"]
    with tarfile.open(out / "results.tar.gz") as tar:
        names = tar.getnames()
    assert {"results/summary.json", "results/documents/versions.json", "results/logs/tiny-calls.log"} <= set(names)
    assert "results/journals/tiny-calls.jsonl" in names
    assert not [name for name in names if name.endswith((".engine", ".npz", ".onnx"))]
    passed = [test for part in summary["parts"] for test in part["tests"].values() if test["outcome"] == "passed"]
    assert len(passed) > 20


@pytest.mark.slow
def test_the_tables_are_made_of_the_tar(rehearsed: tuple[Any, ...], tmp_path: Path) -> None:
    out, _, _ = rehearsed
    script = str(ROOT / "benchmarks" / "gpu_tables.py")
    command = [sys.executable, script, str(out / "results.tar.gz"), "--save", "--to", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("REHEARSAL ON STAND-INS, no figure means anything: Stand-in 0")
    assert re.search(r"\| tiny \| fp32 \| [\d.]+ \| 600 \| 100.00 \| 100.00 \| \+0.00 \| 0 \(0.00 %\) \|", done.stdout)
    saved = json.loads(next(tmp_path.glob("stand-in-0-*.json")).read_text())
    assert saved["rehearsal"]


@pytest.mark.slow
def test_a_command_that_fails_hangs_or_cannot_start_is_a_clause(process: Any, tmp_path: Path) -> None:
    def run(*command: str, limit_s: float = 60) -> Any:
        return process.run_in_group(list(command), tmp_path / "log", limit_s, dict(os.environ), tmp_path)

    python = sys.executable
    assert run(python, "-c", "pass").words == "ok"
    assert run(python, "-c", "import sys; sys.exit('it broke')").words == "exit code 1"
    assert "it broke" in process.last_words(tmp_path / "log")
    assert run(python, "-c", "import os; os.abort()").words == "crashed: SIGABRT"
    assert run(python, "-c", "import time; time.sleep(60)", limit_s=0.5).words == "ended after 0 s, its limit"
    assert run("/no/such/python").words.startswith("cannot be started: ")


@pytest.mark.slow
def test_what_a_command_started_ends_with_it(process: Any, tmp_path: Path) -> None:
    words = "import subprocess, time; p = subprocess.Popen(['sleep', '600']); print(p.pid, flush=True); time.sleep(600)"
    process.run_in_group([sys.executable, "-c", words], tmp_path / "log", 1.5, dict(os.environ), tmp_path)
    grandchild = int((tmp_path / "log").read_text().split()[0])
    for _ in range(50):
        try:
            os.kill(grandchild, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{grandchild}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return  # ended, and nobody has asked for its code yet
        time.sleep(0.1)
    os.kill(grandchild, signal.SIGKILL)
    pytest.fail("it was still there after five seconds")


@pytest.mark.slow
def test_a_check_that_is_told_to_stop_writes_down_what_it_knows(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--rehearse", "--out", str(tmp_path), "--steps", "seam,commands"]
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    for line in running.stderr:
        if "needs gcc" in line:
            pytest.skip(line)
        if "] versions: " in line:
            break
    time.sleep(1)
    running.send_signal(signal.SIGTERM)
    said, _ = running.communicate(timeout=30)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [part["name"] for part in summary["parts"]][:2] == ["versions", "seam"]
    assert summary["parts"][1]["words"] == "the check was told to stop"
    assert (tmp_path / "results.tar.gz").is_file()
    assert "FAILED seam" in said
