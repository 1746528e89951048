"""Claims about `toolkit.bench` on a GPU and on a Jetson, with a stub of libnvidia-ml and a planted tree."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import toolkit
from tests.conditions.conftest import Load
from tests.conditions.test_jetson import ORIN_NANO, plant
from toolkit.conditions.machine import MachineState
from toolkit.conditions.nvml import gpu_here
from toolkit.contracts import Float32, UInt8
from toolkit.deployment.openers import OPENERS
from toolkit.runtime.null import NullRunner
from toolkit.runtime.runner import Phases, Runner

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs/schema/bench.v1.json").read_text())


class _OnDevice(NullRunner):
    """A call of 2 ms, a tenth of which is the GPU's."""

    def logits(self, images_nhwc: UInt8) -> Float32:
        time.sleep(0.002)
        return super().logits(images_nhwc)

    def phases(self, images_nhwc: UInt8) -> Phases:
        return Phases(0.01, 0.2, 0.01, 0.3)

    def without_graph(self) -> Runner:
        return self

    def allow_streams(self, count: int) -> None:
        """It has as many as there are callers."""


@pytest.fixture(autouse=True)
def trt(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT's place is taken."""
    monkeypatch.setitem(OPENERS, "trt", lambda bundle, precision: _OnDevice(4))


def _measured(**options: Any) -> tuple[Any, dict[str, Any]]:
    bundle = ROOT / "tests/bundle/format-1"
    found = toolkit.bench(bundle, backends="trt", precisions="fp32", batches=(1,), seconds=0.1, energy=True, **options)
    document = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    jsonschema.validate(document, SCHEMA, jsonschema.Draft202012Validator)
    return found, document


@pytest.mark.slow
def test_a_hot_shared_gpu_is_in_the_document_and_in_the_warnings(stub: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    load = stub(REASONS=0x40)
    monkeypatch.setattr("toolkit.conditions.machine.gpu_here", lambda: gpu_here(load, visible="0"))
    found, document = _measured()
    assert {"launch-bound", "throttled", "shared-gpu"} <= {warned.kind for warned in found.warnings}
    assert document["conditions"]["gpu"]["name"] == "Stub GPU"
    assert document["conditions"]["gpu"]["slowed_by"] == ["temperature (hardware)"]
    assert document["openings"]["trt fp32"]["device_mib"] == 0
    (row,) = found.latency
    assert row.phases is not None
    assert row.phases.python_ms == pytest.approx(row.p50_ms - 0.22)
    # The stub's counter grows by a kilojoule in the idle second and by one over the calls: no more than idle.
    assert (row.energy_mj is None) is ("energy_mj" in row.why_null)


@pytest.mark.slow
def test_a_jetson_says_mode_rails_and_energy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = plant(tmp_path, ORIN_NANO)

    class _Jetson(MachineState):
        def __init__(self) -> None:
            super().__init__(root, (None, "no NVML on this Jetson"))

        def measure_idle(self) -> None:
            super().measure_idle()
            plant(root, {"sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/curr1_input": "2200"})

    monkeypatch.setattr("toolkit.benchmarking.bench.MachineState", _Jetson)
    found, document = _measured()
    state = document["conditions"]["jetson"]
    assert (state["power_mode"], state["gpu_mhz"], state["over_current_events"]) == ("MAXN_SUPER", 1020, 0)
    assert document["conditions"]["absent"] == {"gpu": "no NVML on this Jetson"}
    (row,) = found.latency
    # 1 A more than idle at 4.976 V, for calls of 2 ms, and a good deal more where the machine is busy.
    assert row.energy_mj is not None
    assert 0.95 * 4.976 * 2 <= row.energy_mj <= 4.976 * 200
