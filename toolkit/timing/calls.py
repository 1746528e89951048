"""Calls of one function, each timed: back to back, from several threads, or when they are due.

The loops do two readings of the clock and one append a call and nothing else, because what they do is in the figures of
a fast engine. A clock returns whole nanoseconds, as `time.perf_counter_ns` does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier, Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.contracts import UInt8

Call = Callable[[UInt8], Any]
Clock = Callable[[], int]
SPIN_NS = 200_000  # Linux wakes a sleeper up to 0.1 ms late (its timer slack is 50 us); the rest is waited for awake
LONGEST_OVERRUN = 2.0  # times its length; a queue that grows for ever is not served to its end


@dataclass(frozen=True)
class Turn:
    """What one function did while it was its turn.

    Attributes:
        taken_ns: int64 (calls,), in the order of calls; thread after thread where there are several.
        elapsed_ns: from the first call's start to the last call's end.
        late_ns: how long after it was due the last call began; 0 where nothing was due.
        unserved: calls that were due and did not begin before the turn was broken off.
    """

    taken_ns: NDArray[np.int64]
    elapsed_ns: int
    late_ns: int = 0
    unserved: int = 0


def back_to_back(
    call: Call, images: UInt8, length_ns: float, clock: Clock = time.perf_counter_ns, most: int = 0
) -> Turn:
    """A call as soon as the one before has answered, for a length of time or `most` calls; one call at least."""
    taken: list[int] = []
    append = taken.append
    began = started = clock()
    end = began + length_ns
    while True:
        call(images)
        ended = clock()
        append(ended - started)
        if ended >= end or len(taken) == most:
            break
        started = clock()
    return Turn(np.array(taken, np.int64), ended - began)


def from_threads(
    call: Call,
    images: UInt8,
    length_ns: float,
    threads: int,
    clock: Clock = time.perf_counter_ns,
    most: int = 0,
) -> Turn:
    """`back_to_back` in several threads at once; each has its own calls, and all begin together.

    Args:
        most: calls of all threads together, at least one of each; 0: as many as the time gives.
    """
    together = Barrier(threads)

    def one(place: int) -> tuple[int, Turn]:
        share = (most + threads - 1 - place) // threads
        together.wait()
        return clock(), back_to_back(call, images, length_ns, clock, share)

    with ThreadPoolExecutor(threads) as pool:
        done = [future.result() for future in [pool.submit(one, place) for place in range(threads)]]
    began = min(start for start, _ in done)
    ended = max(start + turn.elapsed_ns for start, turn in done)
    return Turn(np.concatenate([turn.taken_ns for _, turn in done]), ended - began)


def on_schedule(
    call: Call,
    images: UInt8,
    length_ns: int,
    rate_hz: float,
    threads: int = 1,
    clock: Clock = time.perf_counter_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> Turn:
    """A call every 1 / rate seconds, whether the ones before have answered or not.

    A latency counts from when the call was due, not from when it could begin: so the time in the queue is in it, which
    a caller that waits for the answer before it asks again would not see (G. Tene's "coordinated omission").

    Args:
        threads: how many calls may run at once.
    """
    count, apart_ns = max(1, round(rate_hz * length_ns / 1e9)), 1e9 / rate_hz
    numbers = iter(range(count))  # shared: the next thread that is free takes the next call
    began = clock()
    give_up, broken_off = began + int(LONGEST_OVERRUN * length_ns), Event()

    def serve() -> list[tuple[int, int, int]]:
        served = []
        for number in numbers:
            due = began + int(number * apart_ns)
            while (left := due - clock()) > 0:
                if left > SPIN_NS:
                    sleep((left - SPIN_NS) / 1e9)
            started = clock()
            if (started > give_up and number > 0) or broken_off.is_set():
                break
            call(images)
            served.append((due, started, clock()))
        return served

    if threads == 1:
        served = serve()
    else:
        with ThreadPoolExecutor(threads) as pool:
            try:
                parts = [future.result() for future in [pool.submit(serve) for _ in range(threads)]]
            except BaseException:  # Ctrl-C, say: the other threads must not go on to the end of the schedule
                broken_off.set()
                raise
        served = sorted(entry for part in parts for entry in part)
    times = np.array(served, np.int64).reshape(-1, 3)
    return Turn(
        taken_ns=times[:, 2] - times[:, 0],
        elapsed_ns=int(times[:, 2].max()) - began,
        late_ns=int(times[-1, 1] - times[-1, 0]),
        unserved=count - len(times),
    )
