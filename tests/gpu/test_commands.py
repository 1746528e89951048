"""Claims about the commands on a GPU, in processes of their own, as a person types them; what they say is kept."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.gpu.conftest import MODELS, STANDIN, child, inputs_folder

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default"), pytest.mark.limit(60)]


def document(name: str, *words: str) -> dict[str, Any]:
    """What a command says on stdout's last line; it must succeed."""
    done = child("-m", "toolkit", *words, timeout=55)
    if folder := os.environ.get("TOOLKIT_GPU_RESULTS"):
        file = Path(folder) / "commands" / f"{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{' '.join(words)}\nexit code {done.returncode}\n\n{done.stderr}\n\n{done.stdout}\n")
    if STANDIN and "silently ran on the CPU" in done.stderr:
        pytest.skip("the stand-in computes with ONNX Runtime, and verify sees it")
    if done.returncode != 0 or "Traceback" in done.stderr:
        pytest.fail(f"exit code {done.returncode}\n{done.stderr[-2800:]}", pytrace=False)
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


@pytest.fixture
def bundle(built: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of a bundle whose engines run here: the first real net's, else the tiny one's."""
    model = next((name for name in MODELS if name != "tiny" and (inputs_folder() / name).is_dir()), "tiny")
    shutil.copytree(built(model), tmp_path / model)
    return tmp_path / model


@pytest.mark.parametrize("model", MODELS)
def test_verify_passes_the_engines_of_a_bundle(model: str, built: Callable[[str], Path]) -> None:
    folder = built(model)
    answer = document(f"verify-{model}", "verify", str(folder), "--backend", "ort,trt")
    assert answer["ok"]
    assert "trt fp32" in json.dumps(answer)


def test_bench_measures_the_engines_of_a_bundle(bundle: Path) -> None:
    answer = document(
        "bench", "bench", str(bundle), "--backend", "trt", "--batch", "1,8", "--seconds", "0.2", "--graph", "both"
    )
    assert answer["ok"]
    assert "trt fp32" in json.dumps(answer)


def test_bench_with_many_callers_measures_the_engines(bundle: Path) -> None:
    words = ("--backend", "trt", "--batch", "1", "--seconds", "0.2", "--callers", "8")
    assert document("bench-8-threads", "bench", str(bundle), *words)["ok"]


def test_selftest_finds_a_saved_bundle_unchanged(bundle: Path) -> None:
    words = ("selftest", str(bundle), "--backend", "trt", "--seconds", "0.1")
    recorded = document("selftest-save", *words, "--save")
    assert recorded["ok"]
    answer = document("selftest", *words, "--max-slowdown", "3")
    assert answer["ok"]
    verdicts = {check["what"]: check["verdict"] for check in answer["checks"]}
    assert any(name.startswith("trt ") and verdict == "ok" for name, verdict in verdicts.items())


def test_load_takes_tensorrt_by_itself_and_says_so(bundle: Path) -> None:
    words = "import sys, toolkit\nwith toolkit.load(sys.argv[1]) as net:\n    print(net.description)\n"
    done = child("-c", words, str(bundle), timeout=55)
    print(done.stdout[-1000:], done.stderr[-1500:])
    assert done.returncode == 0, done.stderr[-3000:]
    assert "tensorrt" in done.stdout.lower()
