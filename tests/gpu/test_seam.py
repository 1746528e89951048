"""Claims about the CUDA seam on a GPU, without TensorRT: copies, captures, replays, events, threads, memory."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tests.gpu.conftest import keep, quick
from toolkit.errors import BackendUnavailable
from toolkit.runtime.driver import Device

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]  # foreign libraries warn as they like
REPLAYS = 1000
MIB = 1 << 20


@dataclass
class Open:
    """CUDA, entered in this thread, with a stream, and what gives memory back at the end."""

    cuda: Any
    stream: Any
    ends: list[Callable[[], None]]

    def pinned(self, size: int) -> Any:
        """Page-locked memory."""
        found = self.cuda.allocate_pinned(size)
        self.ends.append(lambda: self.cuda.release_pinned(found))
        return found

    def memory(self, size: int) -> int:
        """Device memory."""
        found: int = self.cuda.allocate(size)
        self.ends.append(lambda: self.cuda.release(found))
        return found

    def event(self) -> Any:
        """An event."""
        found = self.cuda.event()
        self.ends.append(lambda: self.cuda.release_event(found))
        return found

    def wait(self) -> None:
        """Until the stream is done."""
        self.cuda.synchronize(self.stream)


@pytest.fixture
def seam(gpu: Device) -> Iterator[Open]:
    """The implementation that `open_cuda` takes here."""
    from toolkit.runtime.cuda import open_cuda

    try:
        cuda = open_cuda()
    except BackendUnavailable as error:
        pytest.skip(f"{error.what}: {error.found}")
    entered = cuda.enter()
    found = Open(cuda, cuda.stream(), [])
    yield found
    found.wait()
    for end in reversed(found.ends):
        end()
    cuda.release_stream(found.stream)
    cuda.leave(entered)
    cuda.close()


def test_the_seam_says_which_package_it_is_and_has_graphs(seam: Open) -> None:
    print(f"{seam.cuda.name}: {seam.cuda.reason}")
    keep("seam", {"cuda": seam.cuda.name, "reason": seam.cuda.reason})
    assert seam.cuda.has_graphs


@pytest.mark.parametrize("size", [1, 3072, 4096, 8 * MIB + 3])
def test_bytes_come_back_from_the_device_as_they_went(seam: Open, size: int) -> None:
    there, back, device = seam.pinned(size), seam.pinned(size), seam.memory(size)
    there.bytes[:size] = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    back.bytes[:size] = 0
    seam.cuda.copy_in(device, there, size, seam.stream)
    seam.cuda.copy_out(back, device, size, seam.stream)
    seam.wait()
    assert device % 256 == 0
    assert np.array_equal(there.bytes[:size], back.bytes[:size])


def test_a_copy_across_happens_in_the_streams_order(seam: Open) -> None:
    size = MIB
    there, back, one, two = seam.pinned(size), seam.pinned(size), seam.memory(size), seam.memory(size)
    there.bytes[:] = np.random.default_rng(1).integers(0, 256, size, np.uint8)
    seam.cuda.copy_in(one, there, size, seam.stream)
    seam.cuda.copy_across(two, one, size, seam.stream)
    seam.cuda.copy_out(back, two, size, seam.stream)
    seam.wait()
    assert np.array_equal(there.bytes, back.bytes)


def test_a_captured_copy_is_replayed_a_thousand_times_with_fresh_bytes(seam: Open) -> None:
    cuda, stream, size, count = seam.cuda, seam.stream, 3072, quick(REPLAYS, 100)
    there, back, one, two = seam.pinned(size), seam.pinned(size), seam.memory(size), seam.memory(size)
    cuda.begin_capture(stream)
    cuda.copy_in(one, there, size, stream)
    cuda.copy_across(two, one, size, stream)
    cuda.copy_out(back, two, size, stream)
    graph = cuda.end_capture(stream)
    took = []
    for number in range(count):
        there.bytes[:size] = (number * 31 + np.arange(size)) % 256
        began = time.perf_counter()
        cuda.launch(graph, stream)
        cuda.synchronize(stream)
        took.append(time.perf_counter() - began)
        assert np.array_equal(back.bytes[:size], there.bytes[:size]), number
    cuda.release_graph(graph)
    p50, p99 = (1e6 * float(np.quantile(took, part)) for part in (0.5, 0.99))
    print(f"{count} replays of three copies: median {p50:.1f} us, p99 {p99:.1f} us")
    keep("seam", {"replay_p50_us": p50, "replay_p99_us": p99})


def test_what_a_call_of_the_seam_costs_the_host(seam: Open) -> None:
    cuda, stream, count = seam.cuda, seam.stream, quick(2000, 50)
    before, after, graph_of = seam.event(), seam.event(), seam.memory(4096)
    cuda.begin_capture(stream)
    cuda.copy_across(graph_of, graph_of + 2048, 1024, stream)
    graph = cuda.end_capture(stream)
    calls: dict[str, Callable[[], Any]] = {
        "enter_leave": lambda: cuda.leave(cuda.enter()),
        "record": lambda: cuda.record(before, stream),
        "launch_and_wait": lambda: (cuda.launch(graph, stream), cuda.synchronize(stream)),
        "wait_for_nothing": lambda: cuda.synchronize(stream),
    }
    cost = {}
    for name, call in calls.items():
        took = []
        for _ in range(count):
            began = time.perf_counter_ns()
            call()
            took.append(time.perf_counter_ns() - began)
        cost[name] = float(np.median(took)) / 1000
    cuda.record(after, stream)
    cuda.synchronize(stream)
    cuda.release_graph(graph)
    print(", ".join(f"{name} {value:.2f} us" for name, value in cost.items()))
    keep("seam", {"host_us": cost})
    assert max(cost.values()) < 5000


def test_events_take_the_time_of_what_lies_between_them(seam: Open) -> None:
    cuda, stream, size = seam.cuda, seam.stream, 64 * MIB
    one, two = seam.memory(size), seam.memory(size)
    start, middle, end = seam.event(), seam.event(), seam.event()
    for _ in range(2):  # the first time warms up
        began = time.perf_counter()
        cuda.record(start, stream)
        cuda.copy_across(two, one, size, stream)
        cuda.record(middle, stream)
        for _ in range(20):
            cuda.copy_across(two, one, size, stream)
        cuda.record(end, stream)
        cuda.synchronize(stream)
        host_ms = 1000 * (time.perf_counter() - began)
    single, many = cuda.elapsed_ms(start, middle), cuda.elapsed_ms(middle, end)
    print(f"64 MiB across: {single:.3f} ms, twenty times: {many:.3f} ms, host {host_ms:.3f} ms")
    keep("seam", {"copy_64_mib_ms": single, "copies_20_ms": many, "host_ms": host_ms})
    assert 0 < single < many
    assert single + many <= host_ms + 0.05


def test_two_threads_capture_and_allocate_at_once(seam: Open) -> None:
    cuda, stream, size, problems = seam.cuda, seam.stream, 4096, []
    there, device = seam.pinned(size), seam.memory(size)

    def other() -> None:
        try:
            entered = cuda.enter()
            for _ in range(50):
                cuda.release(cuda.allocate(MIB))
                cuda.release_pinned(cuda.allocate_pinned(4096))
            cuda.leave(entered)
        except Exception as error:
            problems.append(repr(error))

    thread = threading.Thread(target=other)
    cuda.begin_capture(stream)
    thread.start()
    for _ in range(50):
        cuda.copy_in(device, there, size, stream)
    thread.join(20)
    graph = cuda.end_capture(stream)
    cuda.launch(graph, stream)
    cuda.synchronize(stream)
    cuda.release_graph(graph)
    assert not problems


def test_a_thread_that_waits_for_the_gpu_lets_the_others_run(seam: Open) -> None:
    """cuda-bindings up to 12.9.0 held Python's lock while it waited."""
    cuda, stream, size = seam.cuda, seam.stream, 256 * MIB if quick(1, 0) else MIB
    one, two, ticks, done = seam.memory(size), seam.memory(size), 0, threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not done.is_set():
            ticks += 1
            time.sleep(0.0005)

    for _ in range(400):
        cuda.copy_across(two, one, size, stream)
    thread = threading.Thread(target=tick)
    thread.start()
    before, began = ticks, time.perf_counter()
    cuda.synchronize(stream)
    waited_ms, during = 1000 * (time.perf_counter() - began), ticks - before
    done.set()
    thread.join(10)
    print(f"{during} ticks of another thread in {waited_ms:.1f} ms of waiting")
    keep("seam", {"ticks": during, "waited_ms": waited_ms})
    if waited_ms < 20:
        pytest.skip(f"the wait was too short to tell: {waited_ms:.1f} ms")
    assert during >= waited_ms / 10


def test_a_capture_that_is_abandoned_leaves_the_stream_usable(seam: Open) -> None:
    cuda, stream, size = seam.cuda, seam.stream, 4096
    there, back, device = seam.pinned(size), seam.pinned(size), seam.memory(size)
    cuda.begin_capture(stream)
    cuda.copy_in(device, there, size, stream)
    cuda.abandon_capture(stream)
    there.bytes[:size] = 7
    cuda.copy_in(device, there, size, stream)
    cuda.copy_out(back, device, size, stream)
    cuda.synchronize(stream)
    assert (back.bytes[:size] == 7).all()


def test_memory_that_is_given_back_is_free_again(seam: Open) -> None:
    def used() -> int:
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        assert ctypes.CDLL("libcuda.so.1").cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)) == 0
        return total.value - free.value

    def round_trip() -> None:
        blocks = [seam.cuda.allocate(64 * MIB) for _ in range(8)]
        for block in blocks:
            seam.cuda.release(block)

    round_trip()
    before = used()
    for _ in range(10):
        round_trip()
    assert used() - before <= 64 * MIB  # other programs on the card count too


def test_a_refused_call_is_an_error_with_cudas_name(seam: Open) -> None:
    from toolkit.runtime.cuda import CudaError

    there = seam.pinned(64)

    def copy() -> None:
        seam.cuda.copy_in(64, there, 64, seam.stream)
        seam.wait()

    with pytest.raises(CudaError) as raised:
        copy()
    print(raised.value)
    assert "CUDA_ERROR_" in str(raised.value)
