"""A stub of libnvidia-ml, compiled where it is needed, whose answers a test may change."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toolkit.conditions.nvml import LIBRARY

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
