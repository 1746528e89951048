"""Claims about the figures that were measured on GPUs: the pages say what the documents hold, a later run replaces."""

from __future__ import annotations

import io
import json
import random
import re
import runpy
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu_tables.py"
RESULTS = ROOT / "docs" / "gpu-results"
PAGE = ROOT / "docs" / "measured.md"


@pytest.fixture(scope="module")
def tables() -> dict[str, Any]:
    """The script's functions by name."""
    return runpy.run_path(str(SCRIPT))


def row(**changed: Any) -> dict[str, Any]:
    """A row as benchmarks/gpu_backend.py prints it."""
    plain = {
        "model": "net", "backend": "trt", "precision": "fp16", "variant": "graph", "batch": 1, "threads": 1,
        "calls": 100, "call_p50_ms": 0.1, "call_p99_ms": 0.2, "images_per_s": 9000.0, "stable": True,
        "gpu_p50_ms": 0.09, "gpu_p99_ms": 0.09, "enqueue_p50_ms": 0.002, "gpu_is": "pure", "phases_p50_ms": None,
    }  # fmt: skip
    return plain | changed


def tar_of(path: Path, began: str, card: str, parts: dict[str, str], **benches: list[dict[str, Any]]) -> Path:
    """A check's tar: parts by outcome, and what backends printed."""
    summary = {
        "began": began, "machine": card, "rehearsal": False, "seconds": 9.0, "deadline_s": 10.0,
        "driver": {"devices": [{"name": card}], "driver_version": "13.0"},
        "parts": [{"step": "bench", "name": name, "outcome": outcome, "words": f"see /srv/{name}/log", "seconds": 1.0,
                   "tests": {}} for name, outcome in parts.items()],
    }  # fmt: skip
    engine = {"engine": "net/engines/model.fp16.engine.json", "tensorrt": {"kind": "tensorrt", "version": "10.6.0"},
              "onnx": {"file": "model.fp16.onnx"}, "plan": {"bytes": 2048}, "census": None}  # fmt: skip
    files = {"summary.json": json.dumps(summary, indent=1), "engines.json": json.dumps([engine])}
    for name, rows in benches.items():
        files[f"documents/{name.replace('_', '-')}.json"] = "\n".join(json.dumps({"row": one}) for one in rows)
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"results/{name}")
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
    return path


def run(*words: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *map(str, words)], capture_output=True, text=True)


def test_the_page_holds_the_tables_that_its_commands_print(tables: dict[str, Any]) -> None:
    text = PAGE.read_text()
    assert "<!-- python benchmarks/gpu_tables.py docs/gpu-results/" in text
    assert tables["page_with_tables"](text, RESULTS) == text, f"{SCRIPT.name} docs/gpu-results/X.json --pages"


def test_every_document_is_shown_in_the_page_of_what_was_measured() -> None:
    text = PAGE.read_text()
    names = [path.name for path in RESULTS.glob("*.json")]
    assert names
    assert all(f"docs/gpu-results/{name} -->" in text for name in names)


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_a_document_is_small_of_a_real_card_and_tells_of_no_machines_folders(path: Path) -> None:
    text = path.read_text()
    assert len(text) < 200_000
    assert json.loads(text)["rehearsal"] is False
    assert not re.search(r"(?<![\w.])/(tmp|opt|root|home|usr|work|mnt|var)/", text)
    assert not re.search(r"sk-|token|password|hostname", text, re.IGNORECASE)


def test_a_later_run_takes_the_place_of_the_same_figures_and_keeps_the_others(tmp_path: Path) -> None:
    first = tar_of(tmp_path / "1.tar.gz", "2026-01-01T10:00:00Z", "Card", {"bench": "ok", "faults": "failed"},
                   eager=[row(backend="torch", variant="eager", call_p50_ms=1.0)],
                   bench_net=[row(call_p50_ms=0.5), row(batch=8, call_p50_ms=0.7)])  # fmt: skip
    second = tar_of(tmp_path / "2.tar.gz", "2026-01-02T10:00:00Z", "Card", {"bench": "not started", "faults": "ok"},
                    bench_net=[row(call_p50_ms=0.25)])  # fmt: skip
    done = run(second, first, "--save", "--to", tmp_path)
    assert done.returncode == 0, done.stderr
    saved = json.loads((tmp_path / "card-2026-01-01.json").read_text())
    times = {(one["backend"], one["batch"]): (one["call_p50_ms"], one["times_eager"]) for one in saved["rows"]}
    assert times == {("torch", 1): (1.0, 1.0), ("trt", 1): (0.25, 4.0), ("trt", 8): (0.7, None)}
    assert {part["name"]: part["outcome"] for part in saved["parts"]} == {"bench": "ok", "faults": "ok"}
    assert [one["began"][:10] for one in saved["runs"]] == ["2026-01-01", "2026-01-02"]
    assert {one["run"][:10] for one in saved["engines"]} == {"2026-01-01"}  # the second run found it there
    assert (
        "| net | 1 | TensorRT 10.6.0 fp16 | 0.0900 | 0.0900 | 0.0020 | 0.2500 | 0.2000 | 9,000 | 4.0 | 100 | 2 |"
        in done.stdout
    )
    assert "/srv" not in json.dumps(saved)
    assert run(tmp_path / "card-2026-01-01.json").stdout == done.stdout


@pytest.mark.slow
def test_saved_figures_and_a_new_run_join_as_two_runs_do(tmp_path: Path) -> None:
    first = tar_of(tmp_path / "1.tar.gz", "2026-01-01T10:00:00Z", "Card", {}, bench_net=[row()])
    second = tar_of(tmp_path / "2.tar.gz", "2026-01-02T10:00:00Z", "Card", {}, bench_net=[row(batch=64)])
    run(first, "--save", "--to", tmp_path)
    joined = run(tmp_path / "card-2026-01-01.json", second)
    assert joined.stdout == run(first, second).stdout
    assert "| net | 64 | TensorRT 10.6.0 fp16 |" in joined.stdout


def test_figures_of_two_cards_are_never_in_one_table(tmp_path: Path) -> None:
    one = tar_of(tmp_path / "1.tar.gz", "2026-01-01T10:00:00Z", "Card A", {}, bench_net=[row()])
    other = tar_of(tmp_path / "2.tar.gz", "2026-01-02T10:00:00Z", "Card B", {}, bench_net=[row()])
    done = run(one, other, "--save", "--to", tmp_path)
    assert {path.name for path in tmp_path.glob("*.json")} == {"card-a-2026-01-01.json", "card-b-2026-01-02.json"}
    assert done.stdout.count("### Latency of one caller, ms") == 2


@pytest.mark.slow
def test_a_file_of_something_else_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_bytes(b"no tar")
    (tmp_path / "x.json").write_text('{"format": 1}')
    noise = bytes(random.Random(0).randbytes(20_000))
    with tarfile.open(tmp_path / "whole.tar.gz", "w:gz") as tar:
        entry = tarfile.TarInfo("results/summary.json")
        entry.size = len(noise)
        tar.addfile(entry, io.BytesIO(noise))
    whole = (tmp_path / "whole.tar.gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "bad.tar.gz").write_bytes(whole[:9000] + bytes(200) + whole[9200:])
    for name in ("cut", "bad"):
        said = run(tmp_path / f"{name}.tar.gz")
        assert said.stderr.strip().startswith(f"{tmp_path / name}.tar.gz cannot be read: ")
        assert (said.returncode, "Traceback" in said.stderr) == (1, False)
    assert "x.tar.gz cannot be read: file could not be opened" in run(tmp_path / "x.tar.gz").stderr
    assert run(tmp_path / "x.json").stderr.strip().endswith("x.json has format 1, not 2")
    assert run(tmp_path / "none.tar.gz").stderr.startswith("[Errno 2] No such file")
