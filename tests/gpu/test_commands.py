"""Claims about the commands on a GPU, in processes of their own, as a person types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.gpu.conftest import MODELS, child
from toolkit.runtime.driver import Device
from toolkit.runtime.trt import TensorRT

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]  # foreign libraries warn as they like


def document(*words: str) -> dict[str, Any]:
    """What a command says on stdout's last line; it must succeed."""
    done = child("-m", "toolkit", *words)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


@pytest.fixture
def bundle(built: Callable[[str], Path], runner: Callable[..., Any]) -> Path:
    """A bundle whose engines run here; skipped where this Python cannot speak to CUDA."""
    runner(MODELS[0], "fp32").close()
    return built(MODELS[0])


def test_the_doctor_sees_driver_and_tensorrt(gpu: Device, tensorrt: TensorRT) -> None:
    done = child("-m", "toolkit", "doctor")
    found = {check["name"]: check for check in json.loads(done.stdout.strip().splitlines()[-1])["checks"]}
    assert gpu.name in found["cuda driver"]["detail"]
    assert (found["tensorrt"]["ok"], found["tensorrt"]["version"]) == (True, tensorrt.version)


@pytest.mark.parametrize("model", MODELS)
def test_verify_passes_the_engines_of_a_bundle(model: str, built: Callable[[str], Path], bundle: Path) -> None:
    answer = document("verify", str(built(model)), "--backend", "trt")
    assert answer["ok"]
    assert "trt fp32" in json.dumps(answer)


def test_bench_measures_the_engines_of_a_bundle(bundle: Path) -> None:
    answer = document("bench", str(bundle), "--backend", "trt", "--batch", "1,8", "--seconds", "0.2")
    assert answer["ok"]
    assert "trt fp32" in json.dumps(answer)


def test_selftest_finds_the_bundle_unchanged(bundle: Path) -> None:
    answer = document("selftest", str(bundle), "--backend", "trt", "--seconds", "0.1")
    assert answer["ok"]
    verdicts = {check["what"]: check["verdict"] for check in answer["checks"]}
    assert any(name.startswith("trt ") and verdict == "ok" for name, verdict in verdicts.items())
