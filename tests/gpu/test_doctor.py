"""Claims about `toolkit doctor` on a GPU: it sees the driver, and the TensorRT that is there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.gpu.conftest import child
from toolkit.runtime.driver import Device
from toolkit.runtime.trt.module import TensorRT

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default"), pytest.mark.limit(50)]


@pytest.fixture(scope="module")
def checks(gpu: Device) -> dict[str, Any]:
    """What doctor says, by name; kept for `benchmarks/gpu_check.py`."""
    done = child("-m", "toolkit", "doctor", timeout=45)
    if folder := os.environ.get("TOOLKIT_GPU_RESULTS"):
        (Path(folder) / "documents").mkdir(parents=True, exist_ok=True)
        (Path(folder) / "documents" / "doctor.json").write_text(done.stdout)
        (Path(folder) / "documents" / "doctor.txt").write_text(done.stderr)
    print(done.stderr[-2000:])
    return {check["name"]: check for check in json.loads(done.stdout.strip().splitlines()[-1])["checks"]}


def test_the_doctor_sees_the_gpu(gpu: Device, checks: dict[str, Any]) -> None:
    assert gpu.name in checks["cuda driver"]["detail"]


def test_the_doctor_sees_the_tensorrt(tensorrt: TensorRT, checks: dict[str, Any]) -> None:
    assert (checks["tensorrt"]["ok"], checks["tensorrt"]["version"]) == (True, tensorrt.version), checks["tensorrt"]
