"""Claims about measuring: exact with a clock that the test drives, and sane with the real one."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from toolkit.contracts import Float32, UInt8
from toolkit.runtime.null import NullRunner
from toolkit.runtime.runner import Phases, Runner
from toolkit.timing.latency import (
    FEWEST_ROUNDS,
    PERCENTILES,
    ROUNDS,
    WARMUP_WINDOW,
    Load,
    bench,
    phases_of,
    times_phases,
)

IMAGES = np.arange(3 * 2 * 2 * 1, dtype=np.uint8).reshape(3, 2, 2, 1)
WARM = 2 * WARMUP_WINDOW


class _Clock:
    """Nanoseconds that pass only when a runner says so."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += round(1e9 * seconds)


class _Timed(NullRunner):
    """Takes `seconds(number of the call)` of the clock for each call and writes it down."""

    def __init__(self, name: str, clock: _Clock, seconds: Callable[[int], float], diary: list[tuple[str, int]]) -> None:
        super().__init__(4)
        self.name, self.clock, self.seconds, self.diary, self.calls = name, clock, seconds, diary, 0

    def logits(self, images_nhwc: UInt8) -> Float32:
        self.clock.now += round(1e9 * self.seconds(self.calls))
        self.calls += 1
        self.diary.append((self.name, len(images_nhwc)))
        return super().logits(images_nhwc)


def test_a_steady_runner_is_measured_exactly() -> None:
    clock = _Clock()
    runner = _Timed("a", clock, lambda call: 0.125, [])
    (latency,) = bench({"a": runner}, IMAGES, (2,), seconds=20.0, clock=clock)
    assert latency.calls == 160
    assert latency.warmup_calls == WARM
    assert runner.calls == 160 + WARM  # a round holds 4 calls, so that none is spent to settle
    for value in (latency.p50_ms, latency.p90_ms, latency.p99_ms, latency.min_ms, latency.mean_ms, latency.max_ms):
        assert value == pytest.approx(125)
    assert latency.images_per_s == pytest.approx(16)
    assert latency.first_ms == pytest.approx(125)
    assert (latency.runner, latency.batch, latency.threads, latency.rate_hz) == ("a", 2, 1, None)
    assert latency.stable
    assert latency.converged
    assert latency.round_medians_ms == pytest.approx([125] * 40)  # of half a second each
    assert latency.quantiles_ms == pytest.approx([125] * 101)


@pytest.mark.parametrize(("iterations", "rounds"), [(1, 1), (7, 7), (25, 10)])
def test_so_many_iterations_are_measured_whatever_they_take(iterations: int, rounds: int) -> None:
    clock = _Clock()
    runner = _Timed("a", clock, lambda call: 100.0, [])
    (latency,) = bench({"a": runner}, IMAGES, (1,), iterations=iterations, warmup_s=0, clock=clock)
    assert (latency.calls, len(latency.round_medians_ms)) == (iterations, max(rounds, 1))
    assert latency.warmup_calls == WARM


@pytest.mark.parametrize(
    ("calls", "named"), [(9, "p50"), (10, "p50 p90"), (99, "p50 p90 p95"), (100, "p50 p90 p95 p99")]
)
def test_the_slowest_of_a_few_calls_is_called_no_percentile(calls: int, named: str) -> None:
    clock = _Clock()
    runner = _Timed("a", clock, lambda call: 100.0, [])
    (latency,) = bench({"a": runner}, IMAGES, (1,), iterations=calls, warmup_s=0, clock=clock)
    assert [name for name in PERCENTILES if latency.percentile_ms(name)] == named.split()


def test_it_warms_up_for_as_long_as_it_is_told() -> None:
    clock = _Clock()
    (latency,) = bench(
        {"a": _Timed("a", clock, lambda call: 0.01, [])}, IMAGES, (1,), seconds=1, warmup_s=3, clock=clock
    )
    assert latency.warmup_calls == 300


def test_rare_slow_calls_show_in_the_tail_and_not_in_the_median() -> None:
    clock = _Clock()
    runner = _Timed("a", clock, lambda call: 0.1 if call % 10 == 9 else 0.0125, [])
    (latency,) = bench({"a": runner}, IMAGES, (1,), seconds=40.0, clock=clock)
    assert (latency.p50_ms, latency.p99_ms, latency.min_ms) == pytest.approx((12.5, 100, 12.5))
    assert latency.mean_ms == pytest.approx(21.25, rel=0.05)


def test_the_far_tail_is_given_only_where_enough_calls_support_it() -> None:
    clock = _Clock()
    (few,) = bench({"a": _Timed("a", clock, lambda call: 1e-3, [])}, IMAGES, (1,), seconds=0.3, clock=clock)
    assert few.p99_9_ms is None
    assert few.intervals_ms.p99_9 is None
    assert few.why_null["p99_9_ms"] == "300 calls; 3,688 independent ones are needed"
    assert few.intervals_ms.p90 == pytest.approx((1, 1))
    runner = _Timed("a", clock, lambda call: 1e-3, [])
    (many,) = bench({"a": runner}, IMAGES, (1,), seconds=4.0, paired=True, clock=clock)
    assert many.p99_9_ms == pytest.approx(1)
    assert many.why_null == {}


def test_it_stops_when_the_median_is_known_and_says_when_it_is_not() -> None:
    clock, draws = _Clock(), np.random.default_rng(0)
    calm = _Timed("calm", clock, lambda call: 1e-3 * draws.lognormal(0, 0.02), [])
    wild = _Timed("wild", clock, lambda call: 1e-3 * draws.lognormal(0, 1.0), [])
    found = {m.runner: m for m in bench({"calm": calm, "wild": wild}, IMAGES, (1,), seconds=5.0, clock=clock)}
    assert found["calm"].converged
    assert len(found["calm"].round_medians_ms) == FEWEST_ROUNDS
    assert not found["wild"].converged
    assert len(found["wild"].round_medians_ms) == ROUNDS


def test_a_slow_runner_still_gets_a_call_a_round() -> None:
    clock = _Clock()
    (latency,) = bench({"a": _Timed("a", clock, lambda call: 60.0, [])}, IMAGES, (1,), seconds=1.0, clock=clock)
    assert latency.calls == ROUNDS


def test_warming_up_goes_on_while_it_gets_faster_and_is_not_counted() -> None:
    clock = _Clock()
    runner = _Timed("a", clock, lambda call: max(2**-10, 2**-6 / (1 + call)), [])
    (latency,) = bench({"a": runner}, IMAGES, (1,), seconds=1.0, clock=clock)
    assert latency.warmup_calls >= 15
    assert latency.p99_ms == pytest.approx(1000 / 2**10)
    assert latency.first_ms == pytest.approx(1000 / 2**6)


def test_a_runner_that_never_settles_is_warmed_up_for_a_while_only() -> None:
    clock = _Clock()
    runner = _Timed("a", clock, lambda call: max(0.001, 0.1 * 0.9**call), [])
    (latency,) = bench({"a": runner}, IMAGES, (1,), seconds=1e-6, clock=clock)
    assert WARM <= latency.warmup_calls <= 12


def test_a_gpu_is_warmed_up_for_two_tenths_of_a_second_at_the_least_and_until_it_is_steady() -> None:
    class _OnDevice(_Timed):
        def phases(self, images_nhwc: UInt8) -> Phases:
            raise AssertionError("not asked for here")

        def without_graph(self) -> Runner:
            return self

    def warmed_up_for(seconds_of: Callable[[int], float]) -> float:
        clock = _Clock()
        runner = _OnDevice("a", clock, seconds_of, [])
        (latency,) = bench({"a": runner}, IMAGES, (1,), seconds=1e-6, clock=clock)
        return sum(map(seconds_of, range(latency.warmup_calls)))

    assert 0.2 <= warmed_up_for(lambda call: 2**-10) < 0.21
    ramp = warmed_up_for(lambda call: 2**-10 * (4 if call < 100 else 1))  # a clock that rises after 0.4 s
    assert 0.2 <= ramp < 0.45
    assert 2.0 <= warmed_up_for(lambda call: 0.1 * 0.98**call) < 2.5  # never steady


def test_runners_take_turns_forwards_and_backwards_at_every_batch() -> None:
    clock, diary = _Clock(), list[tuple[str, int]]()
    runners: dict[str, Runner] = {name: _Timed(name, clock, lambda call: 0.25, diary) for name in ("a", "b")}
    progress: list[tuple[int, int]] = []
    results = bench(runners, IMAGES, (1, 5), seconds=2.5, clock=clock, on_progress=lambda *step: progress.append(step))
    for batch in (1, 5):
        order = "".join(name for name, size in diary if size == batch)
        assert order == "a" * WARM + "b" * WARM + "abba" * (ROUNDS // 2)
    assert [(latency.runner, latency.batch) for latency in results] == [("a", 1), ("b", 1), ("a", 5), ("b", 5)]
    assert progress == [(step, 4 * ROUNDS) for step in range(1, 4 * ROUNDS + 1)]


def test_a_fast_runner_spends_a_call_to_forget_the_one_before() -> None:
    clock = _Clock()
    runner = _Timed("a", clock, lambda call: 1e-3, [])
    (latency,) = bench({"a": runner}, IMAGES, (1,), seconds=0.5, clock=clock)
    assert runner.calls == latency.calls + latency.warmup_calls + len(latency.round_medians_ms)


def test_a_runner_that_drifts_is_called_unstable() -> None:
    clock = _Clock()
    runner = _Timed("a", clock, lambda call: 0.25 if call < 30 else 0.5, [])
    (latency,) = bench({"a": runner}, IMAGES, (1,), seconds=15.0, clock=clock)
    assert not latency.stable


@pytest.mark.parametrize(("seconds_a_call", "held"), [(0.002, True), (0.02, False)])
def test_on_a_schedule_it_is_said_whether_the_rate_was_held(seconds_a_call: float, held: bool) -> None:
    clock = _Clock()

    class _Ticking(_Clock):
        def __call__(self) -> int:
            clock.now += 1000
            return clock.now

    runner = _Timed("a", clock, lambda call: seconds_a_call, [])
    load = Load(rate_hz=100)
    (row,) = bench({"a": runner}, IMAGES, (1,), seconds=3.0, load=load, clock=_Ticking(), sleep=clock.sleep)
    assert row.rate_held is held
    assert row.rate_reached_hz == pytest.approx(100 if held else 50, rel=0.02)
    assert (row.p50_ms == pytest.approx(2, rel=0.05)) is held
    assert len(row.round_medians_ms) == ROUNDS


def test_threads_answer_more_than_one_call_at_once() -> None:
    import time

    class _Sleeps(NullRunner):
        def logits(self, images_nhwc: UInt8) -> Float32:
            time.sleep(0.002)
            return super().logits(images_nhwc)

    rows = [bench({"a": _Sleeps(4)}, IMAGES, (1,), seconds=0.1, load=Load(threads=n))[0] for n in (1, 4)]
    assert rows[1].threads == 4
    assert rows[1].images_per_s > 2 * rows[0].images_per_s


def test_parts_on_a_device_are_medians_and_the_rest_is_pythons() -> None:
    class _OnDevice(NullRunner):
        calls = 0

        def phases(self, images_nhwc: UInt8) -> Phases:
            self.calls += 1
            return Phases(0.1, 50.0 if self.calls == 1 else 1.0, 0.2, 0.3)

        def without_graph(self) -> Runner:
            return self

    assert times_phases(NullRunner(4)) is None
    timed = times_phases(_OnDevice(4))
    assert timed is not None
    assert vars(phases_of(timed, IMAGES, 2.0)) == pytest.approx(
        {"python_ms": 0.7, "h2d_ms": 0.1, "gpu_ms": 1.0, "d2h_ms": 0.2, "enqueue_ms": 0.3}
    )
    assert phases_of(timed, IMAGES, 1.0).python_ms == 0


def test_the_null_runner_is_measured_with_the_real_clock() -> None:
    (latency,) = bench({"null": NullRunner(10)}, IMAGES, (8,), seconds=0.02)
    assert 0 < latency.min_ms <= latency.p50_ms <= latency.p90_ms <= latency.p99_ms <= latency.max_ms
    assert latency.images_per_s > 0
    assert latency.calls >= ROUNDS
    assert json.loads(json.dumps(latency.as_dict(), allow_nan=False))["batch"] == 8
