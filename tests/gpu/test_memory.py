"""Claims about memory on a GPU: 100,000 calls leave it as it was, and a runner gives back what it took."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.gpu.conftest import Engine, Inputs, keep, quick

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]  # foreign libraries warn as they like
CALLS = 100_000
GROWTH_MIB = 8  # of the process and of the device over so many calls; one leaked kilobyte a call would be 98
READINGS = 3  # of the device's memory: other programs come and go, so the least counts


@pytest.mark.limit(55)
def test_a_hundred_thousand_calls_leave_the_memory_of_host_and_device_flat(
    model: str, runner: Callable[..., Any], inputs: Inputs
) -> None:
    one = runner(model, "fp32")
    batches = [np.ascontiguousarray(inputs.images[:1]), np.ascontiguousarray(inputs.images[1:9])]
    for _ in range(quick(1000, 10)):
        for images in batches:
            one.logits(images)
    memory_mib()  # loads NVML's library, which stays
    before, calls, began = memory_mib(), quick(CALLS, 400), time.perf_counter()
    for _ in range(calls // 2):
        for images in batches:
            one.logits(images)
    seconds, after = time.perf_counter() - began, memory_mib()
    grown = {name: after[name] - before[name] for name in before if name in after}
    print(f"after {calls:,} calls in {seconds:.1f} s: grown MiB {grown}; before {before}")
    keep("memory", {"model": model, "calls": calls, "seconds": seconds, "before": before, "grown": grown})
    assert grown["host"] <= GROWTH_MIB
    assert grown.get("own", grown["card"]) <= GROWTH_MIB


def test_a_runner_that_is_opened_and_closed_gives_its_memory_back(
    model: str, runner: Callable[..., Any], engine: Callable[..., Engine], inputs: Inputs
) -> None:
    from toolkit.runtime.trt.runner import TrtRunner

    runner(model, "fp32").logits(inputs.images[:8])  # keeps CUDA and TensorRT loaded
    path, used = engine(model, "fp32").path, []
    for _ in range(6):
        with TrtRunner(path) as one:
            one.logits(inputs.images[:8])
        used.append(memory_mib())
    which = "own" if all("own" in entry for entry in used) else "card"
    print(f"{which}: {[round(entry[which], 1) for entry in used]} MiB; host {[round(e['host'], 1) for e in used]} MiB")
    keep("memory", {"model": model, "opened": used})
    assert used[-1][which] - used[1][which] <= GROWTH_MIB


def memory_mib() -> dict[str, float]:
    """MiB in use: "host" of this process, "own" of it on the GPU where NVML tells, "card" by all programs together.

    Of the GPU's, the least of three readings.
    """
    found = {"host": _resident_mib()}
    own = [value for value in (_own_mib() for _ in range(READINGS)) if value is not None]
    if own:
        found["own"] = min(own)
    readings = []
    for _ in range(READINGS):
        readings.append(_card_mib())
        time.sleep(0.1)
    return found | {"card": min(readings)}


def _resident_mib() -> float:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _own_mib() -> float | None:
    """What NVML says this process has; None where there is no NVML, or it names processes by other numbers."""
    from toolkit.conditions.nvml import Refused, gpu_here

    gpu, _ = gpu_here()
    if gpu is None:
        return None
    with gpu:
        try:
            found = gpu.processes().get(os.getpid())
        except Refused:
            return None
    return float(found) if found else None  # 0: NVML does not know


def _card_mib() -> float:
    """Of the whole device, asked of libcuda in the primary context; other programs on it count too."""
    from toolkit.runtime.cuda import open_cuda

    cuda = open_cuda()
    entered = cuda.enter()
    try:
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        code = ctypes.CDLL("libcuda.so.1").cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
        assert code == 0, f"cuMemGetInfo returned {code}"
    finally:
        cuda.leave(entered)
        cuda.close()
    return (total.value - free.value) / 2**20
