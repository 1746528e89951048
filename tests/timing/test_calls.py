"""Claims about timing calls: exact with a clock that the test drives, and true with threads and the real one."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from toolkit.contracts import UInt8
from toolkit.timing.calls import back_to_back, from_threads, on_schedule

IMAGES = np.zeros((1, 2, 2, 1), np.uint8)
MS = 1_000_000


class _Server:
    """Takes `ms` of its own clock for a call; sleeping passes time too."""

    def __init__(self, ms: float) -> None:
        self.now, self.ms = 0, ms

    def clock(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += round(1e9 * seconds)

    def waking_clock(self) -> int:
        """Time passes while somebody waits awake."""
        self.now += 1000
        return self.now

    def __call__(self, images: UInt8) -> None:
        self.now += round(MS * self.ms)


def test_calls_back_to_back_fill_the_time_and_each_is_exact() -> None:
    server = _Server(2)
    turn = back_to_back(server, IMAGES, 10 * MS, server.clock)
    assert turn.taken_ns.tolist() == [2 * MS] * 5
    assert (turn.elapsed_ns, turn.late_ns, turn.unserved) == (10 * MS, 0, 0)


def test_the_loop_adds_less_than_3_microseconds_to_a_call() -> None:
    turns = [back_to_back(lambda images: None, IMAGES, MS) for _ in range(50)]
    assert min(turn.elapsed_ns / len(turn.taken_ns) for turn in turns) < 3000


def test_a_call_longer_than_the_turn_is_made_once() -> None:
    server = _Server(50)
    assert back_to_back(server, IMAGES, MS, server.clock).taken_ns.tolist() == [50 * MS]


def test_a_schedule_that_is_held_shows_the_calls_own_time() -> None:
    server = _Server(2)
    turn = on_schedule(server, IMAGES, 1000 * MS, 100, clock=server.waking_clock, sleep=server.sleep)
    assert len(turn.taken_ns) == 100
    assert turn.taken_ns.max() < 2.1 * MS
    assert turn.unserved == 0
    assert turn.elapsed_ns == pytest.approx(992 * MS, rel=0.01)


def test_a_stall_is_seen_by_every_call_that_was_due_in_it() -> None:
    """A caller that waits for the answer sees one slow call in 100; on a schedule 10 calls were due meanwhile."""
    server = _Server(2)
    calls = 0

    def stalls(images: UInt8) -> None:
        nonlocal calls
        calls += 1
        server.now += 100 * MS if calls == 50 else 2 * MS

    waits = back_to_back(stalls, IMAGES, 298 * MS, server.clock).taken_ns
    assert (waits > 10 * MS).sum() == 1
    calls = 0
    queues = on_schedule(stalls, IMAGES, 1000 * MS, 100, clock=server.waking_clock, sleep=server.sleep)
    assert 9 <= (queues.taken_ns > 10 * MS).sum() <= 14
    assert queues.late_ns < MS


def test_a_rate_that_cannot_be_held_leaves_a_growing_queue_and_ends() -> None:
    server = _Server(20)
    turn = on_schedule(server, IMAGES, 1000 * MS, 100, clock=server.waking_clock, sleep=server.sleep)
    assert turn.unserved == pytest.approx(0, abs=1)  # twice the length serves all 100 at 20 ms
    assert turn.late_ns > 900 * MS
    server = _Server(100)
    broken = on_schedule(server, IMAGES, 1000 * MS, 100, clock=server.waking_clock, sleep=server.sleep)
    assert broken.unserved == 80
    assert broken.elapsed_ns <= 2.2 * 1000 * MS


def test_threads_call_at_once_and_every_call_is_counted() -> None:
    inside, most, lock = 0, 0, threading.Lock()

    def slow(images: UInt8) -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.002)
        with lock:
            inside -= 1

    turn = from_threads(slow, IMAGES, 60 * MS, 3)
    assert most == 3
    assert turn.taken_ns.min() >= 2 * MS
    assert turn.elapsed_ns >= 60 * MS
    assert len(turn.taken_ns) * turn.taken_ns.mean() > 1.5 * turn.elapsed_ns  # more than one at a time


def test_threads_share_a_schedule_without_losing_or_doubling_a_call() -> None:
    seen = []
    turn = on_schedule(lambda images: seen.append(1), IMAGES, 100 * MS, 2000, threads=3)
    assert len(seen) + turn.unserved == 200
    assert len(turn.taken_ns) == len(seen)


def test_what_a_thread_raises_is_raised() -> None:
    def breaks(images: UInt8) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        from_threads(breaks, IMAGES, MS, 2)
