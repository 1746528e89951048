"""Claims about NVML: a compiled stub of libnvidia-ml is read right, and what it refuses is None with a reason."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toolkit.conditions.energy import GpuMeter, energy_mj, idle_watts
from toolkit.conditions.nvml import LIBRARY, gpu_here

# The C side of nvml.h, as far as it is called: the same names, structures and codes.
STUB = r"""
#include <string.h>
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned pid; unsigned long long used; unsigned gpu, compute; } process_t;
static int open_count = 0; static double joules = 0;
int nvmlInit_v2(void) { open_count++; return INIT; }
int nvmlShutdown(void) { open_count--; return 0; }
int stub_open(void) { return open_count; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
  if (index > 1) return 2; *device = (void *)(long)(100 + index); return 0; }
int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
  if (strncmp(uuid, "GPU-1", 5)) return 6; *device = (void *)101; return 0; }
int nvmlDeviceGetName(void *device, char *name, unsigned length) {
  strncpy(name, device == (void *)100 ? "Stub GPU" : "Second GPU", length); return 0; }
int nvmlDeviceGetClockInfo(void *d, unsigned type, unsigned *mhz) { *mhz = type == 1 ? 1410 : 5001; return 0; }
int nvmlDeviceGetMaxClockInfo(void *d, unsigned type, unsigned *mhz) { *mhz = 1980; return 0; }
int nvmlDeviceGetTemperature(void *d, unsigned sensor, unsigned *c) { *c = 83; return 0; }
int nvmlDeviceGetCurrentClocksThrottleReasons(void *d, unsigned long long *mask) { *mask = REASONS; return 0; }
int nvmlDeviceGetPowerUsage(void *d, unsigned *mw) { *mw = 42000; return POWER; }
int nvmlDeviceGetTotalEnergyConsumption(void *d, unsigned long long *mj) {
  joules += 1000000; *mj = (unsigned long long)joules; return ENERGY; }
int nvmlDeviceGetMemoryInfo(void *d, memory_t *m) {
  m->total = 8ull << 30; m->used = 3ull << 30; m->free = m->total - m->used; return 0; }
int nvmlDeviceGetComputeRunningProcesses_v3(void *d, unsigned *count, process_t *p) {
  if (*count < 2) { *count = 2; return 7; }
  *count = 2; p[0] = (process_t){4242, 512ull << 20, 0, 0}; p[1] = (process_t){77, -1ull, 0, 0}; return 0; }
"""
Load = Callable[..., Callable[[str], Any]]


@pytest.fixture
def stub(tmp_path: Path) -> Load:
    """Compiles the stub with some answers changed, and gives what stands in for ctypes.CDLL."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc to compile a stub of libnvidia-ml")

    def make(**answers: int) -> Callable[[str], Any]:
        source, library = tmp_path / "nvml.c", tmp_path / f"stub{len(list(tmp_path.iterdir()))}.so"
        source.write_text(STUB)
        defined = {"INIT": 0, "REASONS": 0x1, "POWER": 0, "ENERGY": 0} | answers
        flags = [f"-D{name}={value}" for name, value in defined.items()]
        subprocess.run(["gcc", "-shared", "-fPIC", "-w", *flags, str(source), "-o", str(library)], check=True)

        def load(name: str) -> Any:
            assert name == LIBRARY
            return ctypes.CDLL(str(library))

        return load

    return make


def test_a_gpu_says_its_clocks_heat_power_memory_and_who_is_there(stub: Load) -> None:
    gpu, reason = gpu_here(stub(), visible="")
    assert reason == ""
    assert gpu is not None
    with gpu:
        assert gpu.state() == {
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
    assert state["watts"] is None
    assert state["absent"] == {"watts": "not supported by this GPU (nvmlDeviceGetPowerUsage returned 3)"}
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
