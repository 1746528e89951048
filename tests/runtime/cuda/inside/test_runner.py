"""Claims about the TensorRT runner, on a stand-in TensorRT that computes with ONNX Runtime in real streams."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.runtime import standin_tensorrt
from tests.runtime.cuda.inside.conftest import OnDevice, Stub
from toolkit.errors import BackendUnavailable, DataError, EngineError, ToolkitError
from toolkit.runtime.cuda import CudaOutOfMemory
from toolkit.runtime.cuda.errors import CudaFault
from toolkit.runtime.cuda.libcuda import choose_wait
from toolkit.runtime.trt import stream_slot as stream_slot
from toolkit.runtime.trt.engine import ProfileTaken
from toolkit.runtime.trt.module import ONE_AT_A_TIME
from toolkit.runtime.trt.runner import TrtRunner
from toolkit.timing import latency

VERSIONS = ("8.6.1", "10.3.0", "11.4.0")
Plan = Callable[..., Path]
Install = Callable[..., Any]


@pytest.fixture
def runner(plan: Plan, tensorrt: Install, stub: Stub) -> Any:
    """A runner of 10.3 with cuda-python, closed before `stub` looks for what is left alive."""
    tensorrt()
    with TrtRunner(plan()) as opened:
        yield opened


@pytest.mark.parametrize("version", VERSIONS)
def test_every_batch_up_to_the_profile_and_beyond_answers_as_onnx_runtime(
    version: str, implementation: str, plan: Plan, tensorrt: Install, images: Any, expected: Any, stub: Stub
) -> None:
    tensorrt(version, shared_profile=version != "8.6.1")
    with TrtRunner(plan(version), cuda=implementation) as runner:
        for _ in range(3):
            for count in (1, 2, 3, 8, 5, 20, 1):
                assert np.allclose(runner.logits(images[:count]), expected[:count], atol=1e-5), count
        assert runner.graph.startswith("on" if implementation == "cuda-python" else "off, pycuda")
        assert implementation in runner.description
        assert runner.logits(images[:0]).shape == (0, 3)
    runner.close()
    assert stub.alive() == {}


def test_pycuda_and_cuda_python_give_the_same_bits(plan: Plan, tensorrt: Install, images: Any, stub: Stub) -> None:
    pytest.importorskip("pycuda", reason="pycuda is not installed: pip compiles it, with nvcc")
    tensorrt()
    path = plan()
    with TrtRunner(path, cuda="cuda-python") as one, TrtRunner(path, cuda="pycuda") as other:
        for count in (1, 8, 20, 1, 8):
            assert np.array_equal(one.logits(images[:count]), other.logits(images[:count]))


def test_a_batch_size_that_comes_again_is_captured_once_and_replayed(runner: Any, images: Any, stub: Stub) -> None:
    def captured_and_launched(work: Callable[[], object]) -> tuple[int, int]:
        before = [stub.calls(name) for name in ("cuStreamBeginCapture_v2", "cuGraphLaunch")]
        work()
        captured, launched = (stub.calls(name) for name in ("cuStreamBeginCapture_v2", "cuGraphLaunch"))
        return captured - before[0], launched - before[1]

    assert captured_and_launched(lambda: [runner.logits(images[:n]) for n in (1, 2, 3)]) == (0, 0)
    assert captured_and_launched(lambda: [runner.logits(images[:n]) for n in (1, 2, 3)]) == (3, 3)
    assert captured_and_launched(lambda: [runner.logits(images[:n]) for n in (3, 1, 2, 1, 3) * 4]) == (0, 20)


def test_a_replay_is_one_launch_and_one_wait(runner: Any, images: Any, stub: Stub) -> None:
    names = ("cuGraphLaunch", "cuStreamSynchronize", "cuMemcpyHtoDAsync_v2", "cuMemAlloc_v2", "cuMemHostAlloc")
    for _ in range(2):
        runner.logits(images[:1])
    before = [stub.calls(name) for name in names]
    for _ in range(10):
        runner.logits(images[:1])
    assert [stub.calls(name) - count for name, count in zip(names, before, strict=True)] == [10, 10, 0, 0, 0]


@pytest.mark.parametrize("shared", [False, "one context"])
def test_a_profile_that_serves_one_context_is_captured_anew_after_a_change_of_shape(
    shared: bool | str, plan: Plan, tensorrt: Install, images: Any, expected: Any, stub: Stub
) -> None:
    tensorrt("8.6.1", shared_profile=shared)
    with TrtRunner(plan("8.6.1")) as runner:
        for count in (1, 1, 1, 8, 8, 8, 1, 1, 1):
            assert np.allclose(runner.logits(images[:count]), expected[:count], atol=1e-5)
        assert stub.alive()["graph executables"] == 1
        assert runner.graph.startswith("on, for one batch size at a time")
        before = stub.calls("cuStreamBeginCapture_v2")
        for count in (8, 1) * 5:  # nothing comes twice in a row: a capture each time would only cost
            assert np.allclose(runner.logits(images[:count]), expected[:count], atol=1e-5)
        assert stub.calls("cuStreamBeginCapture_v2") == before
        with runner.without_graph() as plain:
            assert np.allclose(plain.logits(images[:3]), expected[:3], atol=1e-5)
    assert stub.alive() == {}


def test_more_batch_sizes_than_graphs_are_answered_and_said(
    runner: Any, images: Any, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_slot, "MOST_GRAPHS", 3)
    for _ in range(3):
        for count in range(1, 9):
            assert np.allclose(runner.logits(images[:count]), expected[:count], atol=1e-5)
    assert runner.graph == "on, for the first 3 batch sizes"


def test_buffers_that_grow_take_the_place_of_the_old_ones(
    runner: Any, images: Any, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.runtime.trt.buffers._AT_ONCE_BYTES", 0)
    for count in (1, 1, 1, 2, 2, 5, 5, 1, 1, 8, 8, 1):
        assert np.allclose(runner.logits(images[:count]), expected[:count], atol=1e-5)


def test_a_capture_that_fails_is_said_and_calls_go_on_without(
    runner: Any, images: Any, expected: Any, stub: Stub
) -> None:
    stub.fail("cuGraphInstantiateWithFlags", 2, times=2)
    for _ in range(4):
        assert np.allclose(runner.logits(images[:2]), expected[:2], atol=1e-5)
    assert runner.graph.startswith("off, the capture failed: The GPU has no memory left")
    assert "CUDA graphs off" in runner.description


@pytest.mark.parametrize("call", ["cuGraphInstantiateWithFlags", "cuStreamBeginCapture_v2"])
def test_a_capture_that_fails_once_is_tried_again_without_the_garbage_collector(
    call: str, runner: Any, images: Any, expected: Any, stub: Stub
) -> None:
    stub.fail(call, 901)
    for _ in range(4):
        assert np.allclose(runner.logits(images[:2]), expected[:2], atol=1e-5)
    assert runner.graph == "on"
    assert gc.isenabled()
    assert stub.alive()["graph executables"] == 1


@pytest.mark.parametrize("version", ["8.6.1", "11.4.0"])
def test_a_taken_profile_is_an_error_of_its_own_and_8_6_is_not_asked(
    version: str, plan: Plan, tensorrt: Install, stub: Stub
) -> None:
    tensorrt(version, shared_profile=False)
    with TrtRunner(plan(version)) as runner, pytest.raises(ProfileTaken, match="serves one execution context"):
        runner._engine.new_context(0, 0, False)


@pytest.mark.parametrize("graph", [True, False])
def test_gpu_time_is_the_devices_and_not_the_launches(
    graph: bool, plan: Plan, tensorrt: Install, images: Any, stub: Stub, implementation: str
) -> None:
    tensorrt()
    with TrtRunner(plan(works=False), graph=graph, cuda=implementation) as runner:
        runner.phases(images[:2])
        runner.phases(images[:2])
        stub.model(kernel=40, launch=12, call=150, copy=7)  # a launch takes far longer than the kernel
        try:
            found = [runner.phases(images[:2]) for _ in range(5)]
        finally:
            stub.model(-1)
    for phases in found:
        assert abs(phases.gpu_ms - 0.040) <= 0.001
        assert abs(phases.h2d_ms - 0.007) <= 0.001
        assert abs(phases.d2h_ms - 0.007) <= 0.001
        assert phases.enqueue_ms >= 0.150


def test_an_engine_that_waits_while_it_enqueues_is_an_error_and_no_hang(
    plan: Plan, tensorrt: Install, images: Any, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensorrt()
    monkeypatch.setattr("toolkit.runtime.cuda.libcuda.LONGEST_HOLD_S", 0.05)
    with TrtRunner(plan(), graph=False) as runner:
        runner.logits(images[:2])
        slot = runner._slots[0]
        enqueue = slot._enqueue

        def waiting(execution: Any) -> None:
            enqueue(execution)
            slot.cuda.synchronize(slot._stream)

        monkeypatch.setattr(slot, "_enqueue", waiting)
        with pytest.raises(EngineError, match="waits for the GPU while it enqueues"):
            runner.phases(images[:2])


def test_an_integrated_gpu_works_in_pinned_memory_and_nothing_is_copied(
    implementation: str, plan: Plan, tensorrt: Install, images: Any, expected: Any, stub: Stub
) -> None:
    tensorrt()
    stub.integrated(True)
    try:
        with TrtRunner(plan(), cuda=implementation) as runner:
            before = [stub.calls(name) for name in ("cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2", "cuMemAlloc_v2")]
            for _ in range(3):
                for count in (1, 8, 20):
                    assert np.allclose(runner.logits(images[:count]), expected[:count], atol=1e-5)
            there = OnDevice(stub, images[:3], offset=16)  # not aligned: copied on the device, into what is mapped
            assert np.allclose(runner.logits(there), expected[:3], atol=1e-5)
            assert runner.phases(images[:2]).gpu_ms > 0
            names = ("cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2", "cuMemAlloc_v2")
            assert [stub.calls(name) for name in names] == before
    finally:
        stub.integrated(False)
    assert stub.alive() == {}


@pytest.mark.parametrize("wait", ["spin", "block", "auto"])
def test_how_threads_wait_is_chosen_before_the_context_is_made_and_said(
    wait: str, plan: Plan, tensorrt: Install, images: Any, stub: Stub
) -> None:
    tensorrt()
    before = choose_wait("auto")
    try:
        with TrtRunner(plan(), wait=wait) as runner:
            assert f"wait {wait if wait != 'auto' else before}, " in runner.description
            runner.logits(images[:1])
        assert choose_wait("auto") == (wait if wait != "auto" else before)
    finally:
        stub.library.cuDevicePrimaryCtxSetFlags_v2(0, 0)
    with pytest.raises(ToolkitError, match="unknown way to wait"):
        TrtRunner(plan(), wait="sleep")


def test_a_context_that_cannot_be_changed_is_said(plan: Plan, tensorrt: Install, stub: Stub) -> None:
    tensorrt()
    stub.fail("cuDevicePrimaryCtxSetFlags_v2", 708)
    with pytest.raises(ToolkitError, match="waits for the GPU in another way"):
        TrtRunner(plan(), wait="spin")


def test_after_a_warm_up_nothing_is_made_any_more(
    implementation: str, plan: Plan, tensorrt: Install, images: Any, stub: Stub
) -> None:
    tensorrt()
    made = ("cuStreamCreate", "cuMemAlloc_v2", "cuMemHostAlloc", "cuGraphInstantiateWithFlags")
    with TrtRunner(plan(), cuda=implementation) as runner:
        runner.warm_up((1, 8, 20), streams=3)
        assert (len(runner._slots), len(runner._free)) == (3, 3)
        before = [stub.calls(name) for name in made]
        with ThreadPoolExecutor(3) as pool:
            for count in (1, 8, 20):
                list(pool.map(lambda _, n=count: runner.logits(images[:n]), range(12)))
        assert [stub.calls(name) for name in made] == before


def test_a_warm_up_that_finds_no_memory_has_as_many_slots_as_there_is_room_for(
    runner: Any, images: Any, expected: Any, stub: Stub
) -> None:
    stub.fail("cuMemAlloc_v2", 2)
    runner.warm_up(streams=4)
    assert len(runner._slots) == 1
    assert np.allclose(runner.logits(images[:1]), expected[:1], atol=1e-5)


def test_a_bench_with_many_callers_measures_none_of_what_they_need_first(
    plan: Plan, tensorrt: Install, images: Any, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensorrt()
    made = ("cuStreamCreate", "cuMemAlloc_v2", "cuGraphInstantiateWithFlags")
    counts: list[list[int]] = []
    turn = latency._turn

    def counted(*arguments: Any) -> Any:
        before = [stub.calls(name) for name in made]
        found = turn(*arguments)
        counts.append([stub.calls(name) - count for name, count in zip(made, before, strict=True)])
        return found

    monkeypatch.setattr(latency, "_turn", counted)
    with TrtRunner(plan(works=False)) as runner:
        runner.allow_streams(6)
        latency.bench({"trt": runner}, images, (1, 8), seconds=0.05, load=latency.Load(threads=6))
        assert len(runner._slots) == 6
    assert len(counts) >= 2
    assert not np.any(counts)


@pytest.mark.parametrize("line", ["Error Code 1: Cuda Runtime (out of memory)", "Error Code 4: API Usage Error"])
def test_a_plan_that_finds_no_room_is_not_to_be_built_again(
    line: str, plan: Plan, tensorrt: Install, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensorrt()

    def refuses(self: Any, data: bytes) -> None:
        self.logger.log(SimpleNamespace(name="ERROR"), line)

    monkeypatch.setattr(standin_tensorrt._Runtime, "deserialize_cuda_engine", refuses)
    with pytest.raises(EngineError, match=r"cannot read model\.engine") as caught:
        TrtRunner(plan())
    full = "memory" in line
    assert ("has no memory left for it" in caught.value.what) is full
    assert str(caught.value.fix).startswith("end other programs" if full else "`toolkit.build")


def test_a_thread_that_calls_now_and_then_is_served_among_those_that_call_all_the_time(
    plan: Plan, tensorrt: Install, images: Any, stub: Stub
) -> None:
    tensorrt()
    done = threading.Event()
    with TrtRunner(plan(works=False), contexts=2) as runner:

        def hot() -> None:
            while not done.is_set():
                runner.logits(images[:1])

        threads = [threading.Thread(target=hot) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.05)
        took = []
        for _ in range(50):
            began = time.perf_counter()
            runner.logits(images[:1])
            took.append(time.perf_counter() - began)
        done.set()
        for thread in threads:
            thread.join()
        assert len(runner._free) == len(runner._slots) == 2
    assert max(took) < 5  # without an order it may be for ever


def test_an_engine_that_closes_while_another_thread_builds_waits_outside_of_pythons_lock(
    plan: Plan, tensorrt: Install, images: Any, expected: Any, stub: Stub
) -> None:
    tensorrt()
    runner = TrtRunner(plan())
    runner.logits(images[:1])
    runtime = weakref.ref(runner._engine._runtime)
    closing = threading.Thread(target=runner.close)
    with ONE_AT_A_TIME:  # as a build holds it, whose callbacks need Python's lock
        closing.start()
        time.sleep(0.05)
        assert closing.is_alive()
        assert runtime() is not None  # nothing of TensorRT dies meanwhile
    closing.join(10)
    assert not closing.is_alive()
    assert stub.alive() == {}


def test_a_slot_that_does_not_close_keeps_no_other_open(
    plan: Plan, tensorrt: Install, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensorrt()
    runner = TrtRunner(plan())
    runner.warm_up(streams=3)
    closed = runner._slots[-1].close

    def fails() -> None:
        closed()
        raise EngineError("this slot does not close")

    monkeypatch.setattr(runner._slots[-1], "close", fails)
    with pytest.raises(EngineError, match="does not close"):
        runner.close()
    assert stub.alive() == {}


AT_EXIT = """
import sys, threading, time
import numpy as np, onnxruntime
sys.path.insert(0, {root!r})
from tests.runtime import standin_tensorrt
from tests.runtime.again import again
from toolkit.runtime.cuda import cuda_python, pycuda_
from toolkit.runtime.trt import module as trt
from toolkit.runtime.trt.runner import TrtRunner
again({times})
module = standin_tensorrt.module()
trt._installed = lambda load: ([("tensorrt", module)], [])
runner = TrtRunner({plan!r}, graph={graph})
images = np.zeros((1, 16, 16, 3), np.uint8)

def camera():
    while True:
        runner.logits(images)

for _ in range({threads}):
    threading.Thread(target=camera, daemon=True).start()
runner.logits(images)
time.sleep(0.2)
"""


@pytest.mark.parametrize(("threads", "graph"), [(0, True), (4, True), (4, False)])
def test_a_program_that_forgets_to_close_ends_well_also_under_daemon_threads(
    threads: int, graph: bool, plan: Plan, tmp_path: Path
) -> None:
    root = str(Path(__file__).parents[4])
    times = 4 if threads else 1  # nothing is left to chance without threads
    program = AT_EXIT.format(root=root, plan=str(plan(works=False)), threads=threads, graph=graph, times=times)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_ends_at_once_also_where_a_call_ran_and_a_lock_was_held(plan: Plan, tmp_path: Path) -> None:
    root = str(Path(__file__).parents[4])
    program = AT_EXIT.format(root=root, plan=str(plan(works=False)), threads=0, graph=True, times=1)
    program += """
import atexit, os
slot = runner._take()
held, ready = threading.Event(), threading.Event()

def holds():  # as a thread that is just taking a slot
    with runner._changed:
        ready.set()
        held.wait()

threading.Thread(target=holds).start()
ready.wait()
child = os.fork()
if child == 0:
    atexit._run_exitfuncs()
    os._exit(7)  # ONNX Runtime, which the stand-in computes with, does not end well in a fork
began = time.monotonic()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert time.monotonic() - began < 1.5
held.set()
runner._give(slot)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_fault_of_the_gpu_has_its_name(runner: Any, images: Any, expected: Any, stub: Stub) -> None:
    stub.fail("cuStreamSynchronize", 700)
    with pytest.raises(CudaFault, match="CUDA_ERROR_ILLEGAL_ADDRESS") as caught:
        runner.logits(images[:1])
    assert "start a new one" in str(caught.value.fix)


def test_memory_that_runs_out_while_opening_leaves_nothing_behind(plan: Plan, tensorrt: Install, stub: Stub) -> None:
    tensorrt()
    stub.fail("cuMemAlloc_v2", 2)
    with pytest.raises(CudaOutOfMemory):
        TrtRunner(plan())
    assert stub.alive() == {}


def test_eight_threads_get_the_answers_of_one(
    implementation: str, plan: Plan, tensorrt: Install, images: Any, stub: Stub
) -> None:
    tensorrt()
    runner = TrtRunner(plan(), cuda=implementation)
    alone = {count: [runner.logits(images[:count]) for _ in range(3)][-1] for count in (1, 3, 8)}
    wrong: list[object] = []

    def work(seed: int) -> None:
        try:
            for count in np.random.default_rng(seed).choice([1, 3, 8], 40).tolist():
                if not np.array_equal(runner.logits(images[:count]), alone[count]):
                    wrong.append(count)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert 1 <= len(runner._slots) <= 4
    there = len(runner._slots)
    runner.allow_streams(1)
    assert runner.streams == there  # what is there stays
    runner.allow_streams(9)
    assert runner.streams == 9
    with pytest.raises(ToolkitError, match="needs a stream"):
        runner.allow_streams(0)
    runner.close()


def test_a_second_slot_that_finds_no_memory_is_waited_without(
    runner: Any, images: Any, expected: Any, stub: Stub
) -> None:
    runner.logits(images[:1])
    slot = runner._take()
    stub.fail("cuMemAlloc_v2", 2)
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(runner.logits(images[:1])))
    thread.start()
    time.sleep(0.05)
    assert answers == []
    runner._give(slot)
    thread.join(10)
    assert np.allclose(answers[0], expected[:1], atol=1e-5)
    assert "1 at once: The GPU has no memory left" in runner.description


def test_ten_thousand_calls_leave_memory_as_it_was(
    implementation: str, plan: Plan, tensorrt: Install, images: Any, stub: Stub
) -> None:
    tensorrt()
    with TrtRunner(plan(works=False), cuda=implementation) as runner:
        for count in (1, 1, 8, 8):
            runner.logits(images[:count])
        gc.collect()
        before, objects = stub.alive(), len(gc.get_objects())
        for call in range(10_000):
            runner.logits(images[: 8 if call % 10 == 0 else 1])
        gc.collect()
        assert stub.alive() == before
        assert len(gc.get_objects()) - objects < 50


def test_answers_are_fresh_arrays(runner: Any, images: Any) -> None:
    first = runner.logits(images[:1])
    kept = first.copy()
    for at in range(1, 5):
        runner.logits(images[at : at + 1])
    assert np.array_equal(first, kept)
    assert first.dtype == np.float32
    assert first.flags.owndata
    assert first.flags.writeable


@pytest.mark.parametrize("graph", [True, False])
def test_phases_are_three_times_and_no_graph_is_asked_for_or_not(
    graph: bool, plan: Plan, tensorrt: Install, images: Any, implementation: str, stub: Stub
) -> None:
    tensorrt()
    with TrtRunner(plan(), graph=graph, cuda=implementation) as runner:
        for _ in range(3):
            phases = runner.phases(images[:2])
            assert phases.gpu_ms > 0.005  # ONNX Runtime computes in it
            assert min(phases.h2d_ms, phases.d2h_ms) >= 0
        assert graph or runner.graph == "off, not asked for"


def test_a_runner_without_graphs_shares_the_engine_and_outlives_the_other(
    plan: Plan, tensorrt: Install, images: Any, expected: Any, stub: Stub
) -> None:
    tensorrt()
    runner = TrtRunner(plan())
    made = list(standin_tensorrt.constructed)
    plain = runner.without_graph()
    assert standin_tensorrt.constructed == made
    before = stub.calls("cuGraphLaunch")
    runner.close()
    for _ in range(3):
        assert np.allclose(plain.logits(images[:8]), expected[:8], atol=1e-5)
    assert stub.calls("cuGraphLaunch") == before
    plain.close()
    assert stub.alive() == {}


@pytest.mark.parametrize("version", VERSIONS)
def test_layers_are_timed_in_a_context_of_their_own_and_never_in_a_graph(
    version: str, plan: Plan, tensorrt: Install, images: Any, expected: Any, stub: Stub
) -> None:
    tensorrt(version, shared_profile=version != "8.6.1")
    with TrtRunner(plan(version)) as runner:
        for _ in range(3):
            runner.logits(images[:2])
        found = runner.layer_times(images[:2], 4)
        assert [(layer.name, layer.ms) for layer in found] == [
            ("stem/conv + stem/relu", 1.0), ("reformat", 0.5), ("fc", 0.5),
        ]  # fmt: skip
        assert np.allclose(runner.logits(images[:2]), expected[:2], atol=1e-5)
        with pytest.raises(DataError, match="does not take these images"):
            runner.layer_times(images[:20], 1)
    assert standin_tensorrt.violations == []
    assert stub.alive() == {}


def test_a_closed_runner_says_so_and_closing_waits_for_calls(runner: Any, images: Any) -> None:
    slot = runner._take()
    closing = threading.Thread(target=runner.close)
    closing.start()
    time.sleep(0.05)
    assert closing.is_alive()
    runner._give(slot)
    closing.join(10)
    for call in (lambda: runner.logits(images[:1]), lambda: runner.phases(images[:1]), runner.without_graph):
        with pytest.raises(ToolkitError, match="closed"):
            call()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_is_one_named_error_and_closing_there_does_nothing(runner: Any, images: Any) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            runner.logits(images[:1])
            said = "answered"
        except BaseException as error:
            said = str(error)
        runner.close()
        os.write(writing, said.encode())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert "before the process forked" in os.read(reading, 1000).decode()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros((1, 16, 16, 3), np.float32), "float32 (1, 16, 16, 3)"),
        (np.zeros((1, 15, 16, 3), np.uint8), "allowed: uint8 (N, 16, 16, 3)"),
        (np.zeros((16, 16, 3), np.uint8), "(16, 16, 3)"),
        (None, "object ()"),
    ],
)
def test_other_images_are_refused_in_words(runner: Any, given: Any, said: str) -> None:
    with pytest.raises(DataError) as caught:
        runner.logits(given)
    assert said in str(caught.value)


def test_any_memory_layout_is_read(runner: Any, images: Any, expected: Any) -> None:
    wide = np.zeros((4, 16, 16, 6), np.uint8)
    wide[..., ::2] = images[:4]
    read_only = images[:4].copy()
    read_only.setflags(write=False)
    for given in (wide[..., ::2], np.asfortranarray(images[:4]), images[3::-1][::-1], read_only, list(images[:4])):
        for _ in range(2):
            assert np.allclose(runner.logits(given), expected[:4], atol=1e-5)


def test_a_batch_below_the_profile_is_refused_and_a_small_rest_is_not_left(
    plan: Plan, tensorrt: Install, images: Any, expected: Any, stub: Stub
) -> None:
    tensorrt()
    with TrtRunner(plan(smallest=3, largest=8)) as runner:
        for count in (3, 8, 9, 17, 20):
            assert np.allclose(runner.logits(images[:count]), expected[:count], atol=1e-5)
        assert min(standin_tensorrt.computed) >= 1
        with pytest.raises(DataError, match="3 to 8 in a call") as caught:
            runner.logits(images[:2])
        assert "toolkit.build" in str(caught.value.fix)


@pytest.mark.parametrize("kind", ["HALF", "BF16", "FLOAT"])
def test_logits_of_other_types_become_float32(
    kind: str, plan: Plan, tensorrt: Install, images: Any, expected: Any, stub: Stub
) -> None:
    tensorrt("11.4.0", output=kind)
    with TrtRunner(plan("11.4.0")) as runner:
        for _ in range(3):
            got = runner.logits(images[:4])
            assert got.dtype == np.float32
            assert np.allclose(got, expected[:4], atol={"FLOAT": 1e-5, "HALF": 1e-3, "BF16": 1e-2}[kind])


def test_an_output_whose_shape_is_told_late_is_asked_for(
    plan: Plan, tensorrt: Install, images: Any, expected: Any, stub: Stub
) -> None:
    tensorrt("8.6.1", shared_profile=False, tells_output=False)
    with TrtRunner(plan("8.6.1", smallest=2)) as runner:
        for _ in range(3):
            assert np.allclose(runner.logits(images[:4]), expected[:4], atol=1e-5)


def test_a_runner_that_nobody_closed_gives_everything_back_with_its_last_reference(
    plan: Plan, tensorrt: Install, images: Any, stub: Stub
) -> None:
    tensorrt()
    runner = TrtRunner(plan())
    for _ in range(3):
        runner.logits(images[:4])
    assert stub.alive() != {}
    del runner
    gc.collect()
    assert stub.alive() == {}


def test_rtx_has_graphs_of_its_own_unless_the_plan_leaves_memory_to_us(
    plan: Plan, tensorrt: Install, images: Any, expected: Any, stub: Stub
) -> None:
    tensorrt("1.7.1")
    for flags, graph in (((), "TensorRT-RTX's own"), (("REQUIRE_USER_ALLOCATION",), "on")):
        with TrtRunner(plan("1.7.1", flags)) as runner:
            before = stub.calls("cuGraphLaunch")
            for count in (1, 1, 1, 8, 8):
                assert np.allclose(runner.logits(images[:count]), expected[:count], atol=1e-5)
            assert runner.graph == graph
            assert (stub.calls("cuGraphLaunch") > before) == (graph == "on")
            strategy = runner._slots[0]._loose.context.config.cuda_graph_strategy
            assert strategy == ("DISABLED" if graph == "on" else "WHOLE_GRAPH_CAPTURE")
            with runner.without_graph() as plain:
                assert plain._slots[0]._loose.context.config.cuda_graph_strategy == "DISABLED"
                assert plain.graph == "off, not asked for"


@pytest.mark.parametrize("kind", ["tensorrt", "lean", "dispatch"])
def test_a_version_compatible_plan_runs_on_a_later_tensorrt_with_host_code_allowed(
    kind: str, plan: Plan, tensorrt: Install, images: Any, expected: Any, stub: Stub
) -> None:
    tensorrt("11.4.0", kind)
    with TrtRunner(plan("10.3.0", ("VERSION_COMPATIBLE",))) as runner:
        assert runner._engine._runtime.engine_host_code_allowed
        assert runner.description.startswith(f"{kind} 11.4.0")
        assert np.allclose(runner.logits(images[:2]), expected[:2], atol=1e-5)


def test_a_plan_that_was_touched_never_reaches_tensorrt_and_that_is_quick(plan: Plan, tensorrt: Install) -> None:
    tensorrt()
    path = plan()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    started = time.perf_counter()
    path.write_bytes(data)
    with pytest.raises(EngineError, match="changed since it was built"):
        TrtRunner(path)
    path.write_bytes(data[:-7])
    with pytest.raises(EngineError, match="cut short"):
        TrtRunner(path)
    assert time.perf_counter() - started < 0.2  # two of them
    assert standin_tensorrt.constructed == []


def test_a_plan_of_another_version_or_machine_never_reaches_tensorrt(plan: Plan, tensorrt: Install) -> None:
    tensorrt("10.3.0")
    with pytest.raises(EngineError, match="do not outlive an upgrade"):
        TrtRunner(plan("10.16.1"))
    assert standin_tensorrt.constructed == []


def test_a_plan_that_tensorrt_cannot_read_gives_tensorrts_words(
    plan: Plan, tensorrt: Install, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensorrt()
    monkeypatch.setattr(standin_tensorrt, "plan_from_onnx", lambda onnx, **_: b"no plan")
    with pytest.raises(EngineError, match="magicTag failed"):
        TrtRunner(plan())
    assert stub.alive() == {}


def test_without_cuda_for_python_the_pip_command_is_named(
    plan: Plan, tensorrt: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensorrt()
    monkeypatch.setattr("toolkit.runtime.cuda.opening._IMPLEMENTATIONS", {})
    with pytest.raises(BackendUnavailable, match="pip install cuda-python"):
        TrtRunner(plan())
    assert standin_tensorrt.constructed == []
