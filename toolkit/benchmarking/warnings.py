"""What makes a latency something else than it seems, in words, each with the kind that a program can ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from toolkit.conditions.host import Disturbances, Host
from toolkit.conditions.jetson import JetsonState
from toolkit.conditions.nvml import GpuState
from toolkit.storage.documents import Document
from toolkit.timing.latency import Latency

LAUNCH_BOUND = 0.8  # enqueueing over GPU time; trtexec warns at the same (sampleReporting.cpp)
BUSY_CORES = 0.25
STOLEN_CORES = 0.02
Kind = Literal[
    "launch-bound", "unstable", "rate-not-held", "throttled", "power-limited", "shared-gpu", "governor",
    "busy-machine", "stolen-time", "cpu-quota", "no-graph", "no-layer-times",
]  # fmt: skip


@dataclass(frozen=True)
class Warned(Document):
    """One warning.

    Attributes:
        kind: what a program can ask for.
        about: the runner and batch, or "" for the machine.
        text: in words.
    """

    kind: Kind
    about: str
    text: str


def warnings_of_rows(rows: list[Latency]) -> list[Warned]:
    """What a row itself shows."""
    found = []
    for row in rows:
        about = f"{row.runner} at batch {row.batch}"
        enqueue_ms = row.phases.enqueue_ms if row.phases else None
        if row.phases and enqueue_ms is not None and enqueue_ms > LAUNCH_BOUND * row.phases.gpu_ms:
            text = (
                f"launch-bound: {enqueue_ms:.3f} ms to enqueue {row.phases.gpu_ms:.3f} ms of GPU; larger "
                "batches or a CUDA graph pay, a faster kernel does not"
            )
            found.append(Warned("launch-bound", about, text))
        if row.rate_held is False:
            text = (
                f"{row.rate_hz:g} calls a second cannot be held, {row.rate_reached_hz:.1f} were reached: the queue "
                "grows, and its latencies say how long was measured, not how long a call takes"
            )
            found.append(Warned("rate-not-held", about, text))
        elif not row.stable:
            low, high = min(row.round_medians_ms), max(row.round_medians_ms)
            text = f"unstable: medians of rounds from {low:.3f} to {high:.3f} ms; lock clocks, or quieten the machine"
            found.append(Warned("unstable", about, text))
    return found


def warnings_of_host(host: Host, during: Disturbances) -> list[Warned]:
    """What /proc and /sys showed before and while measuring."""
    found = []
    if "powersave" in (host.governor or ""):
        text = f"the CPU's governor is {host.governor}: clocks rise late; cpupower frequency-set -g performance"
        found.append(Warned("governor", "", text))
    if during.busy_cores >= BUSY_CORES:
        names = ", ".join(f"{name} {cores:.1f}" for name, cores in during.busy_processes.items())
        text = f"the machine is busy: others take {during.busy_cores:.1f} of {host.cores} cores ({names})"
        found.append(Warned("busy-machine", "", text))
    if during.stolen_cores >= STOLEN_CORES:
        text = f"the hypervisor took {during.stolen_cores:.2f} cores away for its other guests"
        found.append(Warned("stolen-time", "", text))
    if during.throttled_periods:
        text = f"the container's CPU quota stopped this machine in {during.throttled_periods} periods"
        found.append(Warned("cpu-quota", "", text))
    return found


def warnings_of_gpu(states: Sequence[GpuState | JetsonState], own: int) -> list[Warned]:
    """What NVML, or a Jetson's files, showed while measuring.

    Args:
        own: the process that measures.
    """
    slowed = sorted({reason for state in states for reason in state.slowed_by or []})
    heat = [reason for reason in slowed if "power" not in reason and not _chosen(reason)]
    power = [reason for reason in slowed if "power" in reason]
    found = []
    if heat:
        hottest = max((state.hottest_celsius for state in states), default=0.0)
        text = f"thermally throttled while measuring ({', '.join(heat)}; {hottest:.0f} degrees at most): cool it"
        found.append(Warned("throttled", "", text))
    if power:
        text = f"slowed by its power limit while measuring ({', '.join(power)}): this is the speed of this power mode"
        found.append(Warned("power-limited", "", text))
    others = {pid for state in states if isinstance(state, GpuState) for pid in state.processes or []}
    # In a container NVML gives the host's ids: then one of these is this process, and which cannot be known.
    allowed = set() if own in others else {None}
    if len(others - {own}) > len(allowed):
        text = f"another process is on the GPU: {', '.join(str(pid) for pid in sorted(others - {own}))}"
        found.append(Warned("shared-gpu", "", text))
    return found


def _chosen(reason: str) -> bool:
    """Clocks that somebody set are no fault."""
    return reason in ("clocks set by an application", "display clocks", "sync boost")
