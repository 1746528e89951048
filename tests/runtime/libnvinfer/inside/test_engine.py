"""Claims about engines that NVIDIA's real bindings load and run, over a libnvinfer and a libcuda of our own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.runtime.libnvinfer.inside.conftest import OLD, RTX, VERSION, Stub
from toolkit.engine.engine_from_onnx import Engine
from toolkit.errors import EngineError
from toolkit.runtime.trt.module import Log, TensorRT
from toolkit.runtime.trt.runner import TrtRunner

Build = Callable[..., Engine]


def test_the_bindings_are_nvidias(tensorrt: TensorRT) -> None:
    assert tensorrt.version.startswith(f"{VERSION}.")
    assert tensorrt.kind == ("tensorrt-rtx" if RTX else "tensorrt")
    assert type(tensorrt.module.Runtime).__name__ == "pybind11_type"


def test_every_batch_up_to_the_profile_and_beyond_answers_as_onnx_runtime(
    build: Build, images: Any, expected: Any, stub: Stub
) -> None:
    with TrtRunner(build().path) as runner:
        for _ in range(3):
            for count in (1, 2, 3, 8, 5, 20, 1):
                assert np.allclose(runner.logits(images[:count]), expected[:count], atol=1e-5), count
        assert runner.graph == ("TensorRT-RTX's own" if RTX else "on")
        assert runner.logits(images[:0]).shape == (0, 3)
    assert stub.alive() == {}


@pytest.mark.skipif(RTX, reason="TensorRT-RTX captures by itself")
def test_a_batch_that_comes_again_is_replayed_and_gives_the_same_bits(build: Build, images: Any, stub: Stub) -> None:
    with TrtRunner(build().path) as runner, runner.without_graph() as plain:
        plainly = [plain.logits(images[:count]) for count in (1, 4, 8)]
        for _ in range(2):
            for count in (1, 4, 8):
                runner.logits(images[:count])
        names = ("cuGraphLaunch", "stub_kernel")
        before = [stub.calls(name) for name in names]
        replayed = [runner.logits(images[:count]) for count in (1, 4, 8)]
        launched = [stub.calls(name) - count for name, count in zip(names, before, strict=True)]
        assert launched == [3, 0]
        assert all(np.array_equal(one, other) for one, other in zip(plainly, replayed, strict=True))


def test_eight_threads_at_once_get_each_its_own_answers(build: Build, images: Any, expected: Any, stub: Stub) -> None:
    wrong: list[object] = []

    def calls(number: int) -> None:
        try:
            for i in range(25):
                count = 1 + (number + i) % 8
                if not np.allclose(runner.logits(images[:count]), expected[:count], atol=1e-5):
                    wrong.append((number, count))
        except Exception as error:
            wrong.append(error)

    with TrtRunner(build().path, contexts=8) as runner:
        threads = [threading.Thread(target=calls, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
    assert stub.alive() == {}


def test_a_plan_that_is_none_is_refused_in_tensorrts_words(build: Build, tensorrt: TensorRT, stub: Stub) -> None:
    plan, log = build().path.read_bytes(), Log(tensorrt.module)
    runtime = tensorrt.module.Runtime(log.logger)
    flipped = bytearray(plan)
    flipped[len(plan) // 2] ^= 1
    assert runtime.deserialize_cuda_engine(bytes(flipped)) is None
    assert "Serialization assertion" in log.errors()[-1]
    other = plan.replace(b"version\t", b"version\t9", 1)
    assert runtime.deserialize_cuda_engine(other) is None
    assert runtime.deserialize_cuda_engine(plan) is not None


@pytest.mark.skipif(OLD, reason="up to 10.12 it raises without Python's lock: see test_faults")
def test_the_binding_raises_where_a_profile_is_taken(
    build: Build, tensorrt: TensorRT, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_PROFILE_TAKEN", "1")
    runtime = tensorrt.module.Runtime(Log(tensorrt.module).logger)
    engine = runtime.deserialize_cuda_engine(build().path.read_bytes())
    first, second = engine.create_execution_context(), engine.create_execution_context()
    assert (first.active_optimization_profile, second.active_optimization_profile) == (0, -1)
    with pytest.raises(RuntimeError):
        second.set_optimization_profile_async(0, 0)
    del first
    assert second.set_optimization_profile_async(0, 0)
    assert second.active_optimization_profile == 0


def test_a_taken_profile_costs_threads_and_graphs_and_no_answer(
    build: Build, images: Any, expected: Any, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_PROFILE_TAKEN", "1")
    with TrtRunner(build().path, contexts=4) as runner:
        threads = [threading.Thread(target=runner.logits, args=(images[:3],)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for count in (1, 1, 1, 8, 8, 8, 1, 20):
            assert np.allclose(runner.logits(images[:count]), expected[:count], atol=1e-5)
        assert RTX or runner.graph.startswith("on, for one batch size at a time")
        with runner.without_graph() as plain:
            assert np.allclose(plain.logits(images[:3]), expected[:3], atol=1e-5)
    assert stub.alive() == {}


def test_a_profiler_of_the_bindings_hears_every_layer(build: Build, images: Any, expected: Any, stub: Stub) -> None:
    with TrtRunner(build().path) as runner:
        found = {layer.name: layer.ms for layer in runner.layer_times(images[:2], 5)}
        assert found == {"stem/conv + stem/relu": 1.0, "fc": 0.5}
        assert np.allclose(runner.logits(images[:2]), expected[:2], atol=1e-5)
    assert stub.alive() == {}


def test_gpu_time_is_the_kernels_whatever_the_launch_costs(
    build: Build, images: Any, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_KERNELS", "5")
    with TrtRunner(build().path) as runner, runner.without_graph() as plain:
        stub.model(kernel=8.0, launch=7.0, call=30.0, copy=4.0)
        try:
            found = [one.phases(images[:4]) for one in (runner, plain)]
        finally:
            stub.model(-1)
    for phases in found:
        assert 1000 * phases.gpu_ms == pytest.approx(40.0, abs=1.0)
        assert 1000 * phases.h2d_ms == pytest.approx(4.0, abs=1.0)
    assert 1000 * found[1].enqueue_ms > 5 * 30.0


def test_an_engine_of_another_version_is_refused_before_tensorrt_sees_it(build: Build, stub: Stub) -> None:
    import json

    from toolkit.runtime.trt.preflight import sidecar_path

    path = build().path
    sidecar = json.loads(sidecar_path(path).read_text())
    sidecar["tensorrt"]["version"] = "10.0.1"
    sidecar_path(path).write_text(json.dumps(sidecar))
    with pytest.raises(EngineError, match="is not for this machine"):
        TrtRunner(path)
