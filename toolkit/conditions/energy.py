"""Energy of an inference: what the device drew while it answered, less what it draws when it waits, over the answers.

Power comes from the GPU's NVML, a Jetson's rails or the CPU package's RAPL counter, whichever the runner works on. A
counter of energy is read at both ends; a reading of power is taken `SAMPLES_HZ` times a second by another thread.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from toolkit.conditions import jetson
from toolkit.conditions.host import ROOT, number_of, text_of
from toolkit.conditions.nvml import Gpu, Refused

SAMPLES_HZ = 20


class Meter(Protocol):
    """A source of power readings."""

    @property
    def name(self) -> str:
        """What is measured, for people."""
        ...

    def watts(self) -> float:
        """Power now."""
        ...

    def joules(self) -> float | None:
        """A counter of energy, where there is one; only differences mean something."""
        ...


@dataclass(frozen=True)
class JetsonMeter:
    """The module's rails: no counter."""

    root: Path = ROOT
    name: str = "the module's INA3221 rails"

    def watts(self) -> float:
        """Power now."""
        found = jetson.watts(self.root)
        if found is None:
            raise Refused("the rails can no longer be read")
        return found

    def joules(self) -> float | None:
        """The rails count no energy."""
        return None


@dataclass(frozen=True)
class GpuMeter:
    """A GPU's board."""

    gpu: Gpu
    name: str = "the GPU's board (NVML)"

    def watts(self) -> float:
        """Power now."""
        return self.gpu.watts()

    def joules(self) -> float | None:
        """Since the driver was loaded."""
        return self.gpu.joules()


@dataclass(frozen=True)
class RaplMeter:
    """The CPU's packages, from Linux's powercap files, which only root may read on most systems."""

    packages: tuple[Path, ...]
    name: str = "the CPU packages (RAPL)"

    def watts(self) -> float:
        """RAPL counts energy, not power."""
        raise Refused("RAPL has no reading of power")

    def joules(self) -> float | None:
        """Wraps after minutes to hours; a difference across that is negative and is dropped."""
        found = [number_of(package / "energy_uj") for package in self.packages]
        return None if not found or None in found else sum(value or 0 for value in found) / 1e6


def rapl_meter(root: Path = ROOT) -> RaplMeter | None:
    """The meter of this host's CPUs, or None where there is none or it may not be read."""
    packages = tuple(
        zone
        for zone in sorted((root / "sys/class/powercap").glob("intel-rapl:[0-9]*"))
        if (text_of(zone / "name") or "").startswith("package")
    )
    meter = RaplMeter(packages)
    return meter if meter.joules() is not None else None


def idle_watts(meter: Meter, seconds: float = 1.0) -> float | None:
    """Mean power while this process sleeps; whatever else runs is in it, and so stays out of the inferences."""
    joules, passed_s = _spent(meter, lambda: time.sleep(seconds))
    return None if joules is None else joules / passed_s


def energy_mj(meter: Meter, call: Callable[[], object], idle: float, seconds: float = 1.0) -> float | None:
    """Millijoules of one call above idle; None where the meter fails or the difference is not positive.

    Args:
        idle: watts, see `idle_watts`.
        seconds: how long to call; readings of power are averaged over up to a second by some GPUs.
    """
    calls = 0

    def work() -> None:
        nonlocal calls
        end = time.perf_counter() + seconds
        while calls == 0 or time.perf_counter() < end:
            call()
            calls += 1

    joules, passed_s = _spent(meter, work)
    if joules is None or joules <= idle * passed_s:
        return None
    return 1000 * (joules - idle * passed_s) / calls


def _spent(meter: Meter, work: Callable[[], None]) -> tuple[float | None, float]:
    """Joules while `work` ran, and for how many seconds it did."""
    try:
        before = meter.joules()
    except Refused:
        before = None
    with_counter = before is not None
    samples: list[float] = []
    done = threading.Event()

    def sample() -> None:
        try:
            while not done.wait(1 / SAMPLES_HZ):
                samples.append(meter.watts())
        except Refused:
            samples.clear()

    thread = threading.Thread(target=sample, daemon=True)
    began = time.perf_counter()
    if not with_counter:
        thread.start()
    try:
        work()
    finally:
        passed_s = time.perf_counter() - began
        done.set()
        if not with_counter:
            thread.join()
    if with_counter:
        after = meter.joules()
        grown = None if before is None or after is None or after < before else after - before
        return grown, passed_s
    return (statistics.fmean(samples) * passed_s if samples else None), passed_s
