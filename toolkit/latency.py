"""Latency of runners as whole Python calls: warmed up until steady, in interleaved rounds, as percentiles.

A call takes uint8 images in host memory and returns logits in host memory, so every copy and every wait is inside.
Percentiles are nearest-rank: a latency that really occurred (Hyndman and Fan 1996, definition 1).
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from toolkit.contracts import UInt8
from toolkit.runtime.runner import Runner

ROUNDS = 5
FEWEST_CALLS = 10
WARMUP_WINDOW = 3
LONGEST_WARMUP_S = 0.2  # what trtexec takes too
STEADY = 1.05


@dataclass(frozen=True)
class Latency:
    """One runner at one batch size; milliseconds a call.

    Attributes:
        stable: whether the medians of the rounds lie within 10 % of each other.
        warmup_calls: calls before measuring, until a window was no longer faster than the one before.
    """

    runner: str
    batch: int
    calls: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    min_ms: float
    mean_ms: float
    images_per_s: float
    stable: bool
    warmup_calls: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def percentile_nearest_rank(sorted_values: list[float], percent: float) -> float:
    """The smallest value that at least `percent` of all values do not exceed."""
    return sorted_values[max(0, math.ceil(percent / 100 * len(sorted_values)) - 1)]


def bench(
    runners: dict[str, Runner],
    images_nhwc: UInt8,
    batches: tuple[int, ...],
    *,
    seconds: float = 1.0,
    clock: Callable[[], float] = time.perf_counter,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Latency]:
    """Measures every runner at every batch size; runners take turns, so that drift of the machine hits all alike.

    Args:
        runners: by the name to print.
        images_nhwc: uint8 (N, H, W, C); repeated where a batch needs more.
        seconds: measuring time of one runner at one batch size, warm-up not counted.
    """
    results = []
    total = len(batches) * ROUNDS * len(runners)
    for index, batch in enumerate(batches):
        images = np.ascontiguousarray(np.resize(images_nhwc, (batch, *images_nhwc.shape[1:])))
        warm = {name: _warm_up(runner, images, clock) for name, runner in runners.items()}
        rounds: dict[str, list[list[float]]] = {name: [] for name in runners}
        for turn in range(ROUNDS):
            for place, (name, runner) in enumerate(runners.items()):
                rounds[name].append(_timed_calls(runner, images, seconds / ROUNDS, clock))
                on_progress((index * ROUNDS + turn) * len(runners) + place + 1, total)
        results += [_latency(name, batch, rounds[name], warm[name]) for name in runners]
    return results


def _warm_up(runner: Runner, images: UInt8, clock: Callable[[], float]) -> int:
    """Calls until a window of calls is no longer clearly faster than the one before; returns how many.

    Two windows at least, and no further one after `LONGEST_WARMUP_S`: a machine that drifts never settles.
    """
    before, calls, end = math.inf, 0, clock() + LONGEST_WARMUP_S
    while calls < 2 * WARMUP_WINDOW or clock() < end:
        started = clock()
        for _ in range(WARMUP_WINDOW):
            runner.logits(images)
        took, calls = clock() - started, calls + WARMUP_WINDOW
        if took * STEADY >= before:
            break
        before = took
    return calls


def _timed_calls(runner: Runner, images: UInt8, seconds: float, clock: Callable[[], float]) -> list[float]:
    """Seconds of single calls, for about `seconds`, at least `FEWEST_CALLS` over all rounds."""
    taken: list[float] = []
    end = clock() + seconds
    while len(taken) < FEWEST_CALLS // ROUNDS or clock() < end:
        started = clock()
        runner.logits(images)
        taken.append(clock() - started)
    return taken


def _latency(name: str, batch: int, rounds: list[list[float]], warmup_calls: int) -> Latency:
    values = sorted(1000 * value for part in rounds for value in part)
    medians = [percentile_nearest_rank(sorted(part), 50) for part in rounds]
    mean = math.fsum(values) / len(values)
    return Latency(
        runner=name,
        batch=batch,
        calls=len(values),
        p50_ms=percentile_nearest_rank(values, 50),
        p90_ms=percentile_nearest_rank(values, 90),
        p99_ms=percentile_nearest_rank(values, 99),
        min_ms=values[0],
        mean_ms=mean,
        images_per_s=1000 * batch / mean,
        stable=max(medians) <= 1.1 * min(medians),
        warmup_calls=warmup_calls,
    )


def host_conditions() -> dict[str, Any]:
    """What a latency on this host depends on: CPU, cores, load, frequency governor."""
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "governor": _first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
    }


def _cpu_name() -> str | None:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as stream:
            for line in stream:
                if line.lower().startswith(("model name", "hardware")):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return None


def _first_line(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.readline().strip()
    except OSError:
        return None
