"""Claims about NVML: a compiled stub of libnvidia-ml is read right, and what it refuses is None with a reason."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conditions.conftest import Load
from toolkit.conditions.energy import GpuMeter, energy_mj, idle_watts
from toolkit.conditions.nvml import LIBRARY, gpu_here


def test_a_gpu_says_its_clocks_heat_power_memory_and_who_is_there(stub: Load) -> None:
    gpu, reason = gpu_here(stub(), visible="")
    assert reason == ""
    assert gpu is not None
    with gpu:
        assert gpu.state().as_dict() == {
            "name": "Stub GPU",
            "sm_mhz": 1410,
            "sm_most_mhz": 1980,
            "memory_mhz": 5001,
            "celsius": 83,
            "watts": 42.0,
            "slowed_by": [],
            "memory_used_mib": 3072,
            "processes": [77, 4242],
            "absent": {},
        }
        assert gpu.processes() == {4242: 512, 77: 0}


def test_what_slows_the_clocks_is_said_in_words(stub: Load) -> None:
    gpu, _ = gpu_here(stub(REASONS=0x1 | 0x4 | 0x20), visible="0")
    assert gpu is not None
    assert gpu.slowed_by() == ["power limit", "temperature (software)"]


def test_a_reading_that_is_refused_is_none_with_its_reason(stub: Load) -> None:
    gpu, _ = gpu_here(stub(POWER=3, ENERGY=3), visible="0")
    assert gpu is not None
    state = gpu.state()
    assert state.watts is None
    assert state.absent == {"watts": "not supported by this GPU (nvmlDeviceGetPowerUsage returned 3)"}
    assert gpu.joules() is None
    assert idle_watts(GpuMeter(gpu), 0.1) is None


@pytest.mark.parametrize(("visible", "name"), [("1", "Second GPU"), ("GPU-1234", "Second GPU"), ("0,1", "Stub GPU")])
def test_the_gpu_is_the_first_that_cuda_may_see(stub: Load, visible: str, name: str) -> None:
    gpu, _ = gpu_here(stub(), visible=visible)
    assert gpu is not None
    assert gpu.name == name


def test_no_library_no_driver_and_no_such_gpu_are_reasons_and_no_crash(stub: Load) -> None:
    def absent(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    assert gpu_here(absent) == (None, f"there is no NVML: {LIBRARY}: cannot open shared object file")
    assert "driver is not loaded" in gpu_here(stub(INIT=9))[1]
    assert "nvmlDeviceGetHandleByIndex_v2 returned 2" in gpu_here(stub(), visible="7")[1]


def test_a_driver_without_a_function_says_so() -> None:
    assert "has no nvmlInit_v2" in gpu_here(lambda name: object(), visible="0")[1]


def test_energy_is_from_the_counter_where_there_is_one(stub: Load) -> None:
    # The stub counts a kilojoule a reading: over 0.1 s idle that is 10 kW.
    gpu, _ = gpu_here(stub(), visible="0")
    assert gpu is not None
    assert idle_watts(GpuMeter(gpu), 0.1) == pytest.approx(10_000, rel=0.2)
    calls: list[int] = []
    found = energy_mj(GpuMeter(gpu), lambda: calls.append(1), idle=0.0, seconds=0.05)
    assert found == pytest.approx(1000 * 1000 / len(calls))


def test_energy_without_a_counter_is_from_samples_of_power(stub: Load) -> None:
    gpu, _ = gpu_here(stub(ENERGY=3), visible="0")
    assert gpu is not None
    assert idle_watts(GpuMeter(gpu), 0.2) == pytest.approx(42)
    calls: list[int] = []
    found = energy_mj(GpuMeter(gpu), lambda: calls.append(1), idle=40.0, seconds=0.2)
    assert found == pytest.approx(1000 * 2.0 * 0.2 / len(calls), rel=0.1)
    assert energy_mj(GpuMeter(gpu), lambda: None, idle=50.0, seconds=0.2) is None  # below idle: no figure
