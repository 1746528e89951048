"""The machine beside the runners: host, GPU and Jetson before and while they are measured, and its meters of power."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.conditions import jetson
from toolkit.conditions.energy import GpuMeter, JetsonMeter, Meter, energy_mj, idle_watts, rapl_meter
from toolkit.conditions.host import (
    ROOT,
    Disturbances,
    Host,
    disturbances,
    host_conditions,
    jiffies,
    peak_resident_mib,
)
from toolkit.conditions.jetson import JetsonState
from toolkit.conditions.nvml import Gpu, GpuState, Refused, gpu_here
from toolkit.storage.documents import Document
from toolkit.storage.hints import NotNegative

LOOK_EVERY_S = 0.5  # a look at NVML takes a millisecond, one at a Jetson's rails some


@dataclass(frozen=True)
class Conditions(Document):
    """The machine while something was measured on it.

    Attributes:
        host: before.
        during: what disturbed it since.
        gpu: at the last look, as is `jetson`.
        peak_host_mib: the most memory that this process has had.
        absent: by field, the reason why it is null.
    """

    host: Host
    during: Disturbances
    gpu: GpuState | None
    jetson: JetsonState | None
    peak_host_mib: NotNegative | None
    absent: dict[str, str]


class MachineState:
    """Looks at the host, its GPU and the Jetson's files from when it is made until it is closed.

    Args:
        root: of the file system.
        gpu: stands in for the answer of `gpu_here`.

    Attributes:
        states: what the GPU or the Jetson showed at each look.
    """

    def __init__(self, root: Path = ROOT, gpu: tuple[Gpu | None, str] | None = None) -> None:
        self._root, (self._gpu, self._no_gpu) = root, gpu or gpu_here()
        self._jetson = jetson.is_jetson(root)
        self._host, self._before, self._looked = host_conditions(root), jiffies(root), 0.0
        self._over_current = jetson.over_current_events(root)
        self.states: list[GpuState | JetsonState] = []
        self.idle: dict[str, float | None] = {}

    def look(self) -> None:
        """Notes the state of GPU and Jetson, if the last look is not too near."""
        if time.monotonic() - self._looked < LOOK_EVERY_S or not (self._gpu or self._jetson):
            return
        self.states += [self._gpu.state()] if self._gpu else []
        self.states += [jetson.state(self._root, self._over_current)] if self._jetson else []
        self._looked = time.monotonic()

    def conditions(self) -> Conditions:
        """The host before, what disturbed it since, the last look at GPU and Jetson, peak memory."""
        self._looked = 0.0
        self.look()
        reasons = {"gpu": self._no_gpu, "jetson": "" if self._jetson else "this is not a Jetson"}
        return Conditions(
            host=self._host,
            during=disturbances(self._before, jiffies(self._root)),
            gpu=next((state for state in reversed(self.states) if isinstance(state, GpuState)), None),
            jetson=next((state for state in reversed(self.states) if isinstance(state, JetsonState)), None),
            peak_host_mib=peak_resident_mib(self._root),
            absent={key: reason for key, reason in reasons.items() if reason},
        )

    def device_mib(self) -> float | None:
        """GPU memory in use by everybody; None without NVML. A Jetson's is the host's own memory."""
        try:
            return self._gpu.memory_used_mib() if self._gpu else None
        except Refused:
            return None

    def meter(self, on_device: bool) -> Meter | None:
        """What measures the power of a runner: the Jetson's rails, the GPU's board, or the CPU's packages."""
        if self._jetson:
            return JetsonMeter(self._root) if jetson.watts(self._root) is not None else None
        if on_device:
            return GpuMeter(self._gpu) if self._gpu else None
        return rapl_meter(self._root)

    def measure_idle(self) -> None:
        """Once, before anything is opened: what each meter shows while nothing is asked of the device."""
        for on_device in (False, True):
            meter = self.meter(on_device)
            if meter and meter.name not in self.idle:
                self.idle[meter.name] = idle_watts(meter)

    def energy_mj(self, call: Any, on_device: bool) -> tuple[float | None, str]:
        """Millijoules of a call above idle, or None and the reason."""
        meter = self.meter(on_device)
        if meter is None:
            return None, "no meter of power can be read here"
        idle = self.idle.get(meter.name)
        found = None if idle is None else energy_mj(meter, call, idle)
        return found, "" if found is not None else f"{meter.name}: not more than idle, or no longer readable"

    def close(self) -> None:
        """Lets go of NVML."""
        if self._gpu:
            self._gpu.close()
            self._gpu = None
