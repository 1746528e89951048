"""Claims about the stand-in TensorRT: it has no name that the real one lacks, and sees what the runner must not do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.runtime import standin_tensorrt
from tests.runtime.cuda.inside.conftest import TINY, Stub
from toolkit.runtime.cuda import open_cuda

ONLY_BEFORE_11 = {"device_memory_size", "create_execution_context_without_device_memory"}


def test_every_name_of_the_standin_is_one_of_the_real_tensorrt_rtx() -> None:
    rtx = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    engine = standin_tensorrt._Engine
    standins = {
        "Runtime": standin_tensorrt._Runtime,
        "ICudaEngine": engine,
        "IExecutionContext": standin_tensorrt.module("1.7.1").IExecutionContext,
        "IRuntimeConfig": standin_tensorrt._RuntimeConfig,
    }
    own = {"full_shape", "strategy"}
    for name, standin in standins.items():
        public = {member for member in dir(standin) if not member.startswith("_")} - own
        assert public - set(dir(getattr(rtx, name))) - ONLY_BEFORE_11 == set(), name
    for name in ("ExecutionContextAllocationStrategy", "CudaGraphStrategy"):
        members = set(vars(getattr(standin_tensorrt.module("1.7.1"), name)))
        assert members <= set(getattr(rtx, name).__members__)
    assert set(standin_tensorrt.NUMPY) <= set(rtx.DataType.__members__)


@pytest.fixture
def context(stub: Stub) -> Any:
    """An execution context of the tiny net, set for two images, with a stream and its CUDA."""
    cuda = open_cuda("cuda-python")
    entered, stream = cuda.enter(), None
    runtime = standin_tensorrt.module().Runtime(None)
    plan = standin_tensorrt.plan_from_onnx((TINY / "model.onnx").read_bytes())
    made = runtime.deserialize_cuda_engine(plan).create_execution_context()
    addresses = [cuda.allocate(8192), cuda.allocate(8192)]
    stream = cuda.stream()
    made.set_input_shape("images", (2, 16, 16, 3))
    for name, address in zip(made.engine.names, addresses, strict=True):
        made.set_tensor_address(name, address)
    yield made, cuda, stream
    for address in addresses:
        cuda.release(address)
    cuda.release_stream(stream)
    cuda.leave(entered)
    cuda.close()


def _seen() -> list[str]:
    seen = list(standin_tensorrt.violations)
    standin_tensorrt.violations.clear()
    return seen


def test_it_sees_a_capture_without_a_first_call(context: Any) -> None:
    made, cuda, stream = context
    cuda.begin_capture(stream)
    made.execute_async_v3(stream.handle)
    cuda.release_graph(cuda.end_capture(stream))
    assert _seen() == ["captured before a first call with the new shape and addresses"]


def test_it_sees_a_replay_after_the_context_was_changed(context: Any) -> None:
    made, cuda, stream = context
    made.execute_async_v3(stream.handle)
    cuda.begin_capture(stream)
    made.execute_async_v3(stream.handle)
    graph = cuda.end_capture(stream)
    made.set_input_shape("images", (1, 16, 16, 3))
    cuda.launch(graph, stream)
    cuda.synchronize(stream)
    cuda.release_graph(graph)
    assert _seen() == ["a graph was replayed whose context had been changed"]


def test_it_sees_addresses_that_are_no_device_memory(context: Any) -> None:
    made, cuda, stream = context
    host = np.zeros(16384, np.uint8)
    made.set_tensor_address("images", (host.ctypes.data + 255) // 256 * 256)
    made.execute_async_v3(stream.handle)
    cuda.synchronize(stream)
    assert _seen() == ["images lies outside device memory"]


def test_the_stub_does_nothing_before_somebody_waits(context: Any) -> None:
    made, cuda, stream = context
    standin_tensorrt.computed.clear()
    made.execute_async_v3(stream.handle)
    assert standin_tensorrt.computed == []
    cuda.synchronize(stream)
    assert standin_tensorrt.computed == [2]


def test_the_stub_refuses_memory_that_was_given_back(stub: Stub) -> None:
    cuda = open_cuda("cuda-python")
    entered = cuda.enter()
    stream, device, pinned = cuda.stream(), cuda.allocate(256), cuda.allocate_pinned(256)
    cuda.copy_in(device, pinned, 256, stream)
    cuda.release(device)  # too early: the copy has not been done
    with pytest.raises(Exception, match="ILLEGAL_ADDRESS"):
        cuda.synchronize(stream)
    stub.library.stub_heal()
    cuda.release_pinned(pinned)
    cuda.release_stream(stream)
    cuda.leave(entered)
    cuda.close()
