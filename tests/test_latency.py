"""Claims about measuring: exact with a clock that the test drives, and sane with the real one."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.contracts import Float32, UInt8
from toolkit.latency import FEWEST_CALLS, ROUNDS, WARMUP_WINDOW, bench, host_conditions, percentile_nearest_rank
from toolkit.runtime.null import NullRunner
from toolkit.runtime.runner import Runner

IMAGES = np.arange(3 * 2 * 2 * 1, dtype=np.uint8).reshape(3, 2, 2, 1)


class _Clock:
    """Time that passes only when a runner says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class _Timed(NullRunner):
    """Takes `seconds(number of the call)` of the clock for each call and writes it down."""

    def __init__(self, name: str, clock: _Clock, seconds: Callable[[int], float], diary: list[tuple[str, int]]) -> None:
        super().__init__(4)
        self.name, self.clock, self.seconds, self.diary, self.calls = name, clock, seconds, diary, 0

    def logits(self, images_nhwc: UInt8) -> Float32:
        self.clock.now += self.seconds(self.calls)
        self.calls += 1
        self.diary.append((self.name, len(images_nhwc)))
        return super().logits(images_nhwc)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300), st.integers(1, 100))
def test_a_percentile_is_numpys_nearest_rank(values: list[float], percent: int) -> None:
    found = percentile_nearest_rank(sorted(values), percent)
    assert found in values
    assert sum(value <= found for value in values) * 100 >= percent * len(values)
    assert sum(value < found for value in values) * 100 < percent * len(values)


def test_percentiles_of_ten_are_the_fifth_the_ninth_and_the_last() -> None:
    values = [float(value) for value in range(1, 11)]
    assert [percentile_nearest_rank(values, percent) for percent in (0.1, 50, 90, 99, 100)] == [1, 5, 9, 10, 10]


def test_a_steady_runner_is_measured_exactly() -> None:
    clock = _Clock()
    runner = _Timed("a", clock, lambda call: 0.25, [])
    (latency,) = bench({"a": runner}, IMAGES, (2,), seconds=10.0, clock=clock)
    assert latency.calls == 40
    assert latency.warmup_calls == 2 * WARMUP_WINDOW
    assert runner.calls == 40 + 2 * WARMUP_WINDOW
    for value in (latency.p50_ms, latency.p90_ms, latency.p99_ms, latency.min_ms, latency.mean_ms):
        assert value == pytest.approx(250)
    assert latency.images_per_s == pytest.approx(8)
    assert (latency.runner, latency.batch, latency.stable) == ("a", 2, True)


def test_rare_slow_calls_show_in_the_tail_and_not_in_the_median() -> None:
    clock = _Clock()
    runner = _Timed("a", clock, lambda call: 1.0 if call % 10 == 9 else 0.125, [])
    (latency,) = bench({"a": runner}, IMAGES, (1,), seconds=40.0, clock=clock)
    assert (latency.p50_ms, latency.p99_ms, latency.min_ms) == pytest.approx((125, 1000, 125))
    assert latency.mean_ms == pytest.approx(212.5, rel=0.05)


def test_a_slow_runner_still_gets_the_fewest_calls() -> None:
    clock = _Clock()
    (latency,) = bench({"a": _Timed("a", clock, lambda call: 60.0, [])}, IMAGES, (1,), seconds=1.0, clock=clock)
    assert latency.calls == FEWEST_CALLS


def test_warming_up_goes_on_while_it_gets_faster_and_is_not_counted() -> None:
    clock = _Clock()
    runner = _Timed("a", clock, lambda call: max(2**-10, 2**-6 / (1 + call)), [])
    (latency,) = bench({"a": runner}, IMAGES, (1,), seconds=1.0, clock=clock)
    assert latency.warmup_calls >= 15
    assert latency.p99_ms == pytest.approx(1000 / 2**10)


def test_a_runner_that_never_settles_is_warmed_up_for_a_while_only() -> None:
    clock = _Clock()
    runner = _Timed("a", clock, lambda call: max(0.001, 0.1 * 0.9**call), [])
    (latency,) = bench({"a": runner}, IMAGES, (1,), seconds=1e-6, clock=clock)
    assert 2 * WARMUP_WINDOW <= latency.warmup_calls <= 12


def test_runners_take_turns_round_by_round_at_every_batch() -> None:
    clock, diary = _Clock(), list[tuple[str, int]]()
    runners: dict[str, Runner] = {name: _Timed(name, clock, lambda call: 0.25, diary) for name in ("a", "b")}
    progress: list[tuple[int, int]] = []
    results = bench(runners, IMAGES, (1, 5), seconds=10.0, clock=clock, on_progress=lambda *step: progress.append(step))
    turns = [entry for index, entry in enumerate(diary) if index == 0 or diary[index - 1] != entry]
    # One warm-up each, then five rounds of both, at each batch size.
    assert turns == [("a", 1), ("b", 1)] * (1 + ROUNDS) + [("a", 5), ("b", 5)] * (1 + ROUNDS)
    assert [(latency.runner, latency.batch) for latency in results] == [("a", 1), ("b", 1), ("a", 5), ("b", 5)]
    assert progress == [(step, 20) for step in range(1, 21)]


def test_a_runner_that_drifts_is_called_unstable() -> None:
    clock = _Clock()
    runner = _Timed("a", clock, lambda call: 0.25 if call < 30 else 0.5, [])
    (latency,) = bench({"a": runner}, IMAGES, (1,), seconds=10.0, clock=clock)
    assert not latency.stable


def test_the_null_runner_is_measured_with_the_real_clock() -> None:
    (latency,) = bench({"null": NullRunner(10)}, IMAGES, (8,), seconds=0.02)
    assert 0 < latency.min_ms <= latency.p50_ms <= latency.p90_ms <= latency.p99_ms
    assert latency.images_per_s > 0
    assert latency.calls >= FEWEST_CALLS
    assert json.loads(json.dumps(latency.as_dict()))["batch"] == 8


def test_conditions_of_the_host_are_json_and_count_cores() -> None:
    conditions = json.loads(json.dumps(host_conditions()))
    assert set(conditions) == {"cpu", "cores", "load_1min", "governor"}
    assert conditions["cores"] >= 1
