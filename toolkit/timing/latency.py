"""Latency of runners as whole Python calls: warmed up until steady, in interleaved rounds, as percentiles.

A call takes uint8 images in host memory and returns logits in host memory, so every copy and every wait is inside.
`toolkit.timing.percentiles` says how percentiles and their intervals are estimated; no call is left out of them.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Annotated, cast

import numpy as np

from toolkit.contracts import Float64, UInt8
from toolkit.runtime.runner import Runner, TimesPhases, WarmsUp
from toolkit.storage.documents import Document
from toolkit.storage.hints import Items, Limits, Maybe, NotNegative, Positive
from toolkit.timing.calls import Call, Clock, Turn, back_to_back, from_threads, on_schedule
from toolkit.timing.percentiles import (
    fewest_for,
    percentile_interval,
    percentile_nearest_rank,
    quantiles_from_sorted,
)

ROUNDS = 10
FEWEST_ROUNDS = 5  # before a measurement may end because it has converged
LONGEST_ROUND_S = 0.5
# Paired rounds are short, so that the machine is the same in both halves of a pair: rounds of 20 ms find on a wandering
# machine what rounds of 50 ms find in six times the time (tests/faults). A rank test at 1 in 1,000 needs ten.
PAIRED_ROUNDS, MOST_PAIRED_ROUNDS, PAIRED_ROUND_S = 20, 400, 0.02
WARMUP_WINDOW = 3
# Least and most. trtexec warms up for 0.2 s at the least: an idle GPU runs at a fraction of its clock. A CPU is awake
# at once, and a machine that drifts never settles.
ON_HOST_S, ON_DEVICE_S = (0.0, 0.2), (0.2, 2.0)
STEADY = 1.05
CONVERGED = 0.01  # half the width of the median's interval, relative to the median
SLACK = 20  # calls to a round before one is spent untimed, to forget the runner that had the turn before
PERCENTILES = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p99_9": 99.9}
PHASE_CALLS = 50
HELD = 0.01  # of the schedule's length that the last call may be late
Interval = tuple[Positive, Positive]
AtLeastOne = Annotated[int, Limits(least=1)]
Timed = Runner | Call


@dataclass(frozen=True)
class Load:
    """How a runner is called: back to back from so many threads, or `rate_hz` times a second on a schedule."""

    threads: int = 1
    rate_hz: float | None = None


@dataclass(frozen=True)
class PhaseTimes(Document):
    """Medians of one call's parts.

    Attributes:
        python_ms: what of the call's median is not on the device.
        h2d_ms: the images to the device; `d2h_ms` the logits back.
        enqueue_ms: a part of python_ms: what the host takes to put the compute into the stream; once not measured.
    """

    python_ms: NotNegative
    h2d_ms: NotNegative
    gpu_ms: NotNegative
    d2h_ms: NotNegative
    enqueue_ms: Maybe[NotNegative] = None


@dataclass(frozen=True)
class Intervals(Document):
    """The 95 % interval of each percentile, from order statistics; null where there are too few calls."""

    p50: Interval | None
    p90: Interval | None
    p95: Interval | None
    p99: Interval | None
    p99_9: Interval | None


@dataclass(frozen=True)
class Latency(Document):
    """One runner at one batch size; milliseconds a call, host memory to host memory.

    Attributes:
        runner: backend and variant, such as "ort int8"; " without graph" and " (against)" mark how it was run.
        threads: callers at once.
        rate_hz: calls a second on a schedule; null: each call follows the answer to the one before.
        p99_9_ms: null where there are too few calls to say; `why_null` has how many would do.
        quantiles_ms: 101 values, the 0th to the 100th percentile, nearest rank.
        images_per_s: images answered over the time that passed, all threads together.
        round_medians_ms: in the order of the rounds; what a comparison of two runs or runners rests on.
        stable: whether the medians of the rounds lie within 10 % of each other.
        converged: whether the median's interval lies within 1 % of the median.
        warmup_calls: calls before measuring, until a window was no longer faster than the one before.
        first_ms: the very first call at this batch size.
        rate_held: with a rate: whether no queue was left growing. A latency counts from when its call was due.
        phases: medians of a call's parts; null where the runner does not time them.
        energy_mj: millijoules of a call above idle.
        why_null: by field, the reason why it is null.
    """

    runner: str
    batch: AtLeastOne
    threads: AtLeastOne
    rate_hz: Positive | None
    calls: AtLeastOne
    p50_ms: Positive
    p90_ms: Positive
    p95_ms: Positive
    p99_ms: Positive
    p99_9_ms: Positive | None
    intervals_ms: Intervals
    min_ms: Positive
    mean_ms: Positive
    max_ms: Positive
    images_per_s: NotNegative
    quantiles_ms: Annotated[tuple[Positive, ...], Items(101, 101)]
    round_medians_ms: Annotated[tuple[Positive, ...], Items(least=1)]
    stable: bool
    converged: bool
    warmup_calls: AtLeastOne
    first_ms: NotNegative
    rate_reached_hz: NotNegative | None
    rate_held: bool | None
    phases: PhaseTimes | None
    energy_mj: NotNegative | None
    why_null: dict[str, str]

    def percentile_ms(self, name: str) -> float | None:
        """A percentile as people read it, such as "p99": None of so few calls that it is the slowest of them."""
        rare = 100 / (100 - PERCENTILES[name])
        value: float | None = getattr(self, f"{name}_ms")
        return value if self.calls >= round(rare) else None


@dataclass(frozen=True)
class _Length:
    """Of a round: nanoseconds, or so many calls."""

    ns: float
    calls: int = 0


@dataclass
class _Series:
    """What is known of one runner so far."""

    warmup_calls: int
    first_ms: float
    settle: bool
    turns: list[Turn] = field(default_factory=list)
    done: bool = False

    @property
    def calls(self) -> int:
        """Measured so far."""
        return sum(len(turn.taken_ns) for turn in self.turns)

    @property
    def spent_s(self) -> float:
        """Measuring time so far."""
        return sum(turn.elapsed_ns for turn in self.turns) / 1e9


def bench(
    runners: Mapping[str, Timed],
    images_nhwc: UInt8,
    batches: tuple[int, ...],
    *,
    seconds: float = 1.0,
    iterations: int | None = None,
    warmup_s: float | None = None,
    load: Load = Load(),  # frozen
    paired: bool = False,
    clock: Clock = time.perf_counter_ns,
    sleep: Callable[[float], None] = time.sleep,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Latency]:
    """Measures every runner at every batch size; runners take turns, so that drift of the machine hits all alike.

    Every second round goes through the runners backwards: what drifts steadily then favors nobody. A runner drops out
    when its median is known to 1 % (`converged`) or its time is up; `paired` ones go on together until then.

    Args:
        runners: by the name to print; a function that takes images and is no runner is timed like one.
        images_nhwc: uint8 (N, H, W, C); repeated where a batch needs more.
        seconds: most measuring time of one runner at one batch size, warm-up not counted; one call a round at least.
        iterations: so many calls of a runner at a batch size, of all threads together, instead.
        warmup_s: seconds of it before each measurement; None: until a call takes no less than before.
        load: threads and arrivals.
        paired: every runner is measured in every round, and rounds are short, for `toolkit.timing.rank_tests`.
        clock: nanoseconds.
    """
    lengths, fewest = _rounds(seconds, iterations, load, paired)
    rounds, limit_s = len(lengths), seconds if iterations is None else math.inf
    results, total = [], len(batches) * rounds * len(runners)
    for index, batch in enumerate(batches):
        images = np.ascontiguousarray(np.resize(images_nhwc, (batch, *images_nhwc.shape[1:])))
        series = {name: _warm_up(runner, images, lengths[0], warmup_s, clock) for name, runner in runners.items()}
        for runner in runners.values() if load.threads > 1 else ():
            if isinstance(runner, WarmsUp):  # else the first turns make what further callers need
                runner.warm_up((batch,), runner.streams)
        for turn, length in enumerate(lengths):
            for place, name in enumerate(list(runners) if turn % 2 == 0 else list(runners)[::-1]):
                one = series[name]
                if not one.done:
                    one.turns.append(_turn(runners[name], images, length, load, one.settle, clock, sleep))
                    one.done = one.spent_s >= limit_s and turn + 1 >= fewest
                    if iterations is None and not paired and turn + 1 >= FEWEST_ROUNDS:
                        one.done |= one.spent_s >= limit_s and one.calls >= ROUNDS
                        one.done |= _has_converged(one.turns)
                on_progress((index * rounds + turn) * len(runners) + place + 1, total)
            if any(one.done for one in series.values()) if paired else all(one.done for one in series.values()):
                break
        results += [_latency(name, batch, load, one) for name, one in series.items()]
    return results


def _warm_up(runner: Timed, images: UInt8, length: _Length, warmup_s: float | None, clock: Clock) -> _Series:
    """Calls until a window of calls is no longer clearly faster than the one before; two windows at least."""
    limits = ON_DEVICE_S if times_phases(runner) else ON_HOST_S
    limits = limits if warmup_s is None else (warmup_s, warmup_s)
    least, most = (clock() + int(1e9 * limit) for limit in limits)
    call, first_ms, before, took, calls = _call_of(runner), 0.0, math.inf, 0.0, 0
    while calls < 2 * WARMUP_WINDOW or clock() < most:
        started = clock()
        for _ in range(WARMUP_WINDOW):
            call(images)
            first_ms = first_ms or (clock() - started) / 1e6
        took, calls = float(clock() - started), calls + WARMUP_WINDOW
        if took * STEADY >= before and clock() >= least:
            break
        before = took
    has_room = took / WARMUP_WINDOW * SLACK < length.ns if not length.calls else length.calls >= SLACK
    return _Series(calls, first_ms, settle=has_room)


def _turn(
    runner: Timed,
    images: UInt8,
    length: _Length,
    load: Load,
    settle: bool,
    clock: Clock,
    sleep: Callable[[float], None],
) -> Turn:
    call = _call_of(runner)
    if settle:
        call(images)
    if load.rate_hz is not None:
        return on_schedule(call, images, int(length.ns), load.rate_hz, load.threads, clock, sleep)
    if load.threads > 1:
        return from_threads(call, images, length.ns, load.threads, clock, length.calls)
    return back_to_back(call, images, length.ns, clock, length.calls)


def _call_of(timed: Timed) -> Call:
    return cast(Call, getattr(timed, "logits", timed))


def _rounds(seconds: float, iterations: int | None, load: Load, paired: bool) -> tuple[list[_Length], int]:
    """Every round and the fewest of them; on a schedule there is one, because a queue needs time to build up."""
    if load.rate_hz is not None:
        return [_Length(1e9 * (seconds if iterations is None else iterations / load.rate_hz))], 1
    fewest = PAIRED_ROUNDS if paired else ROUNDS
    if iterations is not None:
        fewest = max(1, min(fewest, iterations // load.threads))  # a call of each thread in every round
        ends = [iterations * i // fewest for i in range(fewest + 1)]
        return [_Length(math.inf, end - begin) for begin, end in itertools.pairwise(ends)], fewest
    length_s = min(seconds / fewest, LONGEST_ROUND_S)
    if paired:
        length_s = min(seconds / fewest, max(PAIRED_ROUND_S, seconds / MOST_PAIRED_ROUNDS))
    return [_Length(int(1e9 * length_s))] * max(fewest, math.ceil(seconds / length_s - 1e-9)), fewest


def _has_converged(turns: list[Turn]) -> bool:
    """Whether the median is known to 1 % and there are calls enough for an interval of the 99th percentile."""
    values = np.concatenate([turn.taken_ns for turn in turns]).astype(np.float64)
    if len(values) < fewest_for(99):
        return False
    return _within(percentile_interval(values, np.sort(values), 50), CONVERGED)


def _within(interval: tuple[float, float] | None, part: float) -> bool:
    return interval is not None and interval[1] - interval[0] <= part * (interval[0] + interval[1])


def _latency(name: str, batch: int, load: Load, series: _Series) -> Latency:
    values = np.concatenate([turn.taken_ns for turn in series.turns]) / 1e6
    ordered = np.sort(values)
    found = {key: percentile_nearest_rank(ordered, percent) for key, percent in PERCENTILES.items()}
    intervals = {key: percentile_interval(values, ordered, percent) for key, percent in PERCENTILES.items()}
    medians = _round_medians(series.turns, values)
    reached, held = _rate(series.turns, load, len(values), series.spent_s)
    return Latency(
        runner=name,
        batch=batch,
        threads=load.threads,
        rate_hz=load.rate_hz,
        calls=len(values),
        p50_ms=found["p50"],
        p90_ms=found["p90"],
        p95_ms=found["p95"],
        p99_ms=found["p99"],
        p99_9_ms=found["p99_9"] if intervals["p99_9"] else None,
        intervals_ms=Intervals(**intervals),
        min_ms=float(ordered[0]),
        mean_ms=math.fsum(values) / len(values),
        max_ms=float(ordered[-1]),
        images_per_s=batch * len(values) / series.spent_s,
        quantiles_ms=tuple(quantiles_from_sorted(ordered)),
        round_medians_ms=medians,
        stable=max(medians) <= 1.1 * min(medians),
        converged=_within(intervals["p50"], CONVERGED),
        warmup_calls=series.warmup_calls,
        first_ms=series.first_ms,
        rate_reached_hz=reached,
        rate_held=held,
        phases=None,
        energy_mj=None,
        why_null=_why_null(intervals, len(values)),
    )


def _round_medians(turns: list[Turn], values: Float64) -> tuple[float, ...]:
    """Of each round; a single long one, as on a schedule, is cut into parts of equal numbers of calls."""
    parts = [turn.taken_ns / 1e6 for turn in turns]
    if len(parts) == 1:
        parts = np.array_split(values, min(ROUNDS, len(values)))
    return tuple(percentile_nearest_rank(np.sort(part), 50) for part in parts)


def _rate(turns: list[Turn], load: Load, calls: int, elapsed_s: float) -> tuple[float | None, bool | None]:
    """The rate that was reached, and whether it was held: all served, the last call begun within 1 % of the run."""
    if load.rate_hz is None:
        return None, None
    apart_ns = 1e9 / load.rate_hz
    late_ns, unserved = turns[-1].late_ns, turns[-1].unserved
    return calls / elapsed_s, unserved == 0 and late_ns <= max(apart_ns, HELD * calls * apart_ns)


def _why_null(intervals: dict[str, tuple[float, float] | None], calls: int) -> dict[str, str]:
    reasons = {
        f"intervals_ms.{key}": f"{calls:,} calls; {fewest_for(PERCENTILES[key]):,} independent ones are needed"
        for key, interval in intervals.items()
        if interval is None
    }
    if "intervals_ms.p99_9" in reasons:
        reasons["p99_9_ms"] = reasons["intervals_ms.p99_9"]
    return reasons


def times_phases(runner: Timed) -> TimesPhases | None:
    """The runner, where it runs on a device and can time a call's parts there."""
    return cast(TimesPhases, runner) if hasattr(runner, "phases") and hasattr(runner, "without_graph") else None


def phases_of(runner: TimesPhases, images_nhwc: UInt8, p50_ms: float) -> PhaseTimes:
    """Medians of `PHASE_CALLS` calls' parts; what is left of `p50_ms`, the median of whole calls, is Python's."""
    found = [runner.phases(images_nhwc) for _ in range(PHASE_CALLS)]
    h2d, gpu, d2h, enqueue = (statistics.median(part) for part in zip(*map(astuple, found), strict=True))
    return PhaseTimes(max(0.0, p50_ms - h2d - gpu - d2h), h2d, gpu, d2h, enqueue)


def rows_as_csv(rows: Sequence[Latency]) -> str:
    """A line a runner and batch size, RFC 4180: percentiles in milliseconds, images a second, calls."""
    text = io.StringIO()
    lines = csv.writer(text)
    names = [f"{name}_ms" for name in PERCENTILES]
    lines.writerow(["runner", "batch", *names, "images_per_s", "calls", "stable"])
    for row in rows:
        values = [getattr(row, name) for name in (*names, "images_per_s", "calls", "stable")]
        lines.writerow([row.runner, row.batch, *("" if value is None else value for value in values)])
    return text.getvalue()
