"""Claims about the CUDA seam: both packages do the same through it, name their errors, and give everything back."""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.runtime.cuda.inside.conftest import Stub
from toolkit.errors import BackendUnavailable, ToolkitError
from toolkit.runtime.cuda import Cuda, CudaError, CudaOutOfMemory, open_cuda
from toolkit.runtime.cuda.errors import CudaCaptureError, CudaFault, CudaNotInitialized, cuda_error
from toolkit.runtime.cuda.foreign import device_of_address, wait_for_stream
from toolkit.runtime.driver import Driver


@pytest.fixture
def cuda(implementation: str, stub: Stub) -> Iterator[Cuda]:
    """An open seam whose context is current."""
    opened = open_cuda(implementation)
    entered = opened.enter()
    yield opened
    opened.leave(entered)
    opened.close()
    opened.close()
    assert stub.alive().get("retained contexts", 0) == 0


def test_bytes_go_to_the_device_and_back_and_are_there_after_the_wait(cuda: Cuda) -> None:
    stream, device, other = cuda.stream(), cuda.allocate(512), cuda.allocate(512)
    source, target = cuda.allocate_pinned(512), cuda.allocate_pinned(512)
    source.bytes[:], target.bytes[:] = np.arange(512) % 256, 0
    cuda.copy_in(device, source, 512, stream)
    cuda.copy_across(other, device, 512, stream)
    cuda.copy_out(target, other, 300, stream)
    assert not target.bytes.any()
    cuda.synchronize(stream)
    assert np.array_equal(target.bytes[:300], source.bytes[:300])
    assert not target.bytes[300:].any()
    for address in (device, other):
        assert address % 256 == 0
        cuda.release(address)
    for pinned in (source, target):
        cuda.release_pinned(pinned)
    cuda.release_stream(stream)


def test_events_take_the_time_between_them(cuda: Cuda) -> None:
    stream, events = cuda.stream(), [cuda.event(), cuda.event()]
    for event in events:
        cuda.record(event, stream)
    cuda.synchronize(stream)
    assert 0 <= cuda.elapsed_ms(*events) < 1000
    while events:
        cuda.release_event(events.pop())
    del event
    cuda.release_stream(stream)


def test_a_graph_replays_what_was_captured_and_pycuda_says_that_it_has_none(cuda: Cuda) -> None:
    stream, device = cuda.stream(), cuda.allocate(256)
    source, target = cuda.allocate_pinned(256), cuda.allocate_pinned(256)
    if not cuda.has_graphs:
        with pytest.raises(CudaError, match="CUDA graphs, which pycuda does not have"):
            cuda.begin_capture(stream)
    else:
        cuda.begin_capture(stream)
        cuda.copy_in(device, source, 256, stream)
        cuda.copy_out(target, device, 256, stream)
        graph = cuda.end_capture(stream)
        for value in (1, 2):
            source.bytes[:] = value
            cuda.launch(graph, stream)
            cuda.synchronize(stream)
            assert (target.bytes == value).all()
        cuda.release_graph(graph)
    for pinned in (source, target):
        cuda.release_pinned(pinned)
    cuda.release(device)
    cuda.release_stream(stream)


def test_what_breaks_a_capture_is_named_and_the_stream_goes_on(cuda: Cuda) -> None:
    if not cuda.has_graphs:
        pytest.skip("pycuda has no CUDA graphs")
    stream = cuda.stream()
    cuda.begin_capture(stream)
    with pytest.raises(CudaCaptureError) as caught:
        cuda.allocate(256)
    assert caught.value.code == "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"
    cuda.abandon_capture(stream)
    cuda.begin_capture(stream)
    cuda.release_graph(cuda.end_capture(stream))
    cuda.release_stream(stream)


@pytest.mark.parametrize(
    ("function", "code", "kind", "name"),
    [
        ("cuMemAlloc_v2", 2, CudaOutOfMemory, "CUDA_ERROR_OUT_OF_MEMORY"),
        ("cuMemHostAlloc", 2, CudaOutOfMemory, "CUDA_ERROR_OUT_OF_MEMORY"),
        ("cuStreamSynchronize", 719, CudaFault, "CUDA_ERROR_LAUNCH_FAILED"),
        ("cuStreamCreate", 400, CudaError, "CUDA_ERROR_INVALID_HANDLE"),
    ],
)
def test_errors_have_cudas_names_and_say_what_to_do(
    cuda: Cuda, stub: Stub, function: str, code: int, kind: type[CudaError], name: str
) -> None:
    stream = cuda.stream()
    stub.fail(function, code, times=2)  # pycuda collects garbage and tries again where memory runs out
    with pytest.raises(kind) as caught:
        {
            "cuMemAlloc_v2": lambda: cuda.allocate(64),
            "cuMemHostAlloc": lambda: cuda.allocate_pinned(64),
            "cuStreamSynchronize": lambda: cuda.synchronize(stream),
            "cuStreamCreate": cuda.stream,
        }[function]()
    assert (type(caught.value), caught.value.code) == (kind, name)
    assert isinstance(caught.value, ToolkitError)
    assert caught.value.fix or kind is CudaError
    stub.fail(function, 0, times=0)
    cuda.release_stream(stream)


def test_a_code_that_nobody_knows_keeps_its_name() -> None:
    assert "CUDA_ERROR_OF_NEXT_YEAR from cuNew" in str(cuda_error("CUDA_ERROR_OF_NEXT_YEAR", "cuNew"))


def test_every_thread_enters_for_itself_and_leaves_as_it_came(cuda: Cuda) -> None:
    wrong: list[object] = []

    def work() -> None:
        try:
            entered = cuda.enter()
            cuda.release(cuda.allocate(64))
            cuda.leave(entered)
            with pytest.raises(CudaError):
                cuda.allocate(64)  # no context is current any more
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_another_thread_may_close(implementation: str, stub: Stub) -> None:
    opened = open_cuda(implementation)
    thread = threading.Thread(target=opened.close)
    thread.start()
    thread.join()
    assert stub.alive().get("retained contexts", 0) == 0


def test_memory_and_streams_of_others_are_known(cuda: Cuda, stub: Stub) -> None:
    assert device_of_address(stub.memory_of(0, 64)) == 0
    assert device_of_address(stub.memory_of(1, 64)) == 1
    assert device_of_address(np.zeros(1).ctypes.data) is None
    mine, theirs, device = cuda.stream(), cuda.stream(), cuda.allocate(256)
    source, target = cuda.allocate_pinned(256), cuda.allocate_pinned(256)
    source.bytes[:], target.bytes[:] = 5, 0
    cuda.copy_in(device, source, 256, theirs)
    wait_for_stream(mine, theirs.handle)
    cuda.copy_out(target, device, 256, mine)
    cuda.synchronize(mine)
    assert (target.bytes == 5).all()
    for pinned in (source, target):
        cuda.release_pinned(pinned)
    cuda.release(device)
    for stream in (mine, theirs):
        cuda.release_stream(stream)


def test_auto_takes_cuda_python_and_says_why(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_cuda()
    assert opened.name.startswith("cuda-python")
    assert opened.reason == "it has CUDA graphs"
    opened.close()
    with pytest.raises(ToolkitError, match="unknown implementation"):
        open_cuda("numba")
    with pytest.raises(BackendUnavailable, match="CUDA cannot be used here"):
        open_cuda(driver=Driver(False, "there is no NVIDIA driver"))
    for name in ("cuda", "cuda.bindings", "pycuda", "pycuda.driver"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendUnavailable, match="pip install cuda-python") as caught:
        open_cuda()
    assert "pycuda cannot be imported" in str(caught.value)


def test_pycuda_stands_in_where_cuda_python_is_missing(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pycuda", reason="pycuda is not installed: pip compiles it, with nvcc")
    for name in ("cuda", "cuda.bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    opened = open_cuda()
    assert opened.name.startswith("pycuda")
    assert "cuda-python cannot be imported" in opened.reason
    opened.close()


def test_the_older_layout_of_cuda_python_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = importlib.import_module("toolkit.runtime.cuda.cuda_python")
    older: Any = type(sys)("cuda")
    older.cuda = type(sys)("cuda.cuda")
    monkeypatch.setitem(sys.modules, "cuda", older)
    monkeypatch.setitem(sys.modules, "cuda.cuda", older.cuda)
    monkeypatch.delitem(sys.modules, "cuda.bindings", raising=False)
    assert module.bindings()[0] is older.cuda


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_after_use_is_one_named_error(cuda: Cuda) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            cuda.allocate(64)
            said = "nothing"
        except CudaNotInitialized as error:
            said = f"{error.what}; {error.fix}"
        except BaseException as error:
            said = repr(error)
        os.write(writing, said.encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert "forked after CUDA was used; start workers" in os.read(reading, 1000).decode()
