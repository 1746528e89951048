"""Claims about `benchmarks/gpu.py`, shown by a real run on the CPU: rows of several processes in one table and JSON."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu.py"
# torch.compile needs a C++ compiler and minutes; it is measured by the same code as torch.
WORDS = ("--device", "cpu", "--backends", "torch,ort,trt,ort-cuda", "--batch", "1,4", "--seconds", "0.05")


@pytest.fixture(scope="session")
def answer(tiny_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """The document of a run over the tiny bundle, which was checked to be that of the file, and what people saw."""
    file = tmp_path_factory.mktemp("gpu") / "bench.json"
    command = [sys.executable, str(SCRIPT), str(tiny_workspace / "bundles/tiny"), *WORDS, "--json", str(file)]
    command += ["--python", f"torch={sys.executable}", "--python", "ort-cuda=/no/such/python"]
    environment = os.environ | {"TOOLKIT_WORKSPACE": str(tiny_workspace)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout.strip().splitlines()[-1])
    assert document == json.loads(file.read_text())
    return document, done.stderr


@pytest.mark.slow
def test_rows_of_every_process_are_in_one_document(answer: tuple[dict[str, Any], str]) -> None:
    rows = {(row["backend"], row["precision"], row["variant"], row["batch"]): row for row in answer[0]["rows"]}
    wanted = [("torch", "fp32", "eager")] + [("ort", precision, "session") for precision in ("fp32", "fp16", "int8")]
    assert set(rows) == {(*name, batch) for name in wanted for batch in (1, 4)}
    for row in rows.values():
        assert 0 < row["call_p50_ms"] <= row["call_p99_ms"]
        assert row["gpu_p50_ms"] is None  # nobody has a GPU's time here
        assert row["model"] == "tiny"
        eager = rows["torch", "fp32", "eager", row["batch"]]["call_p50_ms"]
        assert row["times_eager"] == pytest.approx(eager / row["call_p50_ms"])
    assert answer[0]["pythons"]["torch"] == sys.version.split()[0]


@pytest.mark.slow
def test_what_could_not_run_is_named_with_its_reason(answer: tuple[dict[str, Any], str]) -> None:
    document, text = answer
    assert set(document["unavailable"]) == {"trt tiny", "ort-cuda"}
    assert document["unavailable"]["ort-cuda"].startswith("/no/such/python cannot be started")
    for name in document["unavailable"]:
        assert f"not run: {name}: " in text
    assert "Traceback" not in text


@pytest.mark.slow
def test_the_table_has_a_line_for_each_row(answer: tuple[dict[str, Any], str]) -> None:
    document, text = answer
    assert len([line for line in text.splitlines() if line.startswith("tiny ")]) == len(document["rows"])
    assert "x eager" in text


@pytest.fixture(scope="module")
def gpu() -> dict[str, Any]:
    """The script's functions by name."""
    return runpy.run_path(str(SCRIPT))


def row(**changed: Any) -> dict[str, Any]:
    """One row as a process hands it over."""
    return {
        "model": "m", "backend": "trt", "precision": "int8", "variant": "graph", "batch": 1, "stable": True,
        "call_p50_ms": 0.05, "call_p99_ms": 0.06, "gpu_p50_ms": 0.04, "gpu_p99_ms": 0.05, "images_per_s": 1.0,
    } | changed  # fmt: skip


def test_targets_are_judged_by_the_rows_and_not_known_without_them(gpu: dict[str, Any]) -> None:
    def judged(*rows: dict[str, Any]) -> list[bool | None]:
        return [one["met"] for one in gpu["targets"](gpu["joined"]({"x": {"rows": rows, "unavailable": {}}})[0])]

    eager = row(backend="torch", variant="eager", precision="fp32", call_p50_ms=0.4)
    assert judged(row(), eager) == [True, True]  # 0.05 <= 1.15 x 0.04 + 0.015, and 8 times as fast
    assert judged(row(call_p50_ms=0.062), eager) == [False, False]
    assert judged(row()) == [True, None]
    assert judged(row(precision="fp32", call_p50_ms=0.2), row(), eager) == [False, True, True]  # the fastest counts
    assert judged(row(variant="no graph", call_p50_ms=9), eager) == []


@pytest.mark.parametrize(
    ("backend", "command"),
    [
        ("trt", ["/opt/kit/python"]),
        ("torch", ["python3", "-X", "dev"]),
        ("compile", ["python3", "-X", "dev"]),
        ("ort-cuda", ["/ort"]),
        ("ort-trt", ["/special"]),
    ],
)
def test_a_backend_runs_in_its_own_python_or_its_familys(gpu: dict[str, Any], backend: str, command: list[str]) -> None:
    chosen = ["trt=/opt/kit/python", "torch=python3 -X dev", "ort=/ort", "ort-trt=/special"]
    assert gpu["python_of"](backend, chosen) == command
    assert gpu["python_of"](backend, []) == [sys.executable]
