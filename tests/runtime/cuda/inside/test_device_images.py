"""Claims about images that lie in the GPU's memory: read in place, after their stream, or refused in words."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runtime.cuda.inside.conftest import OnDevice, Stub
from toolkit.errors import DataError
from toolkit.runtime.cuda.device_images import _Tensor, device_images
from toolkit.runtime.trt.runner import TrtRunner
from toolkit.runtime.trt.stream_slot import MOST_ADDRESSES


@pytest.fixture
def runner(plan: Callable[..., Path], tensorrt: Callable[..., Any], implementation: str, stub: Stub) -> Iterator[Any]:
    """A runner of 10.3 with each package."""
    tensorrt()
    with TrtRunner(plan(), cuda=implementation) as opened:
        yield opened


class ByDlpack:
    """Images that speak DLPack alone, as torch's do in effect; `deleted` counts what the consumer gave back."""

    def __init__(self, stub: Stub, images: Any, kind: int = 2, bits: int = 8) -> None:
        self.memory = OnDevice(stub, images).memory
        self.shape = (ctypes.c_int64 * images.ndim)(*images.shape)
        self.kind, self.bits, self.asked = kind, bits, []  # type: tuple[int, int, list[Any]]

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.kind, 0

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        self.asked.append(stream)
        self.tensor = _Tensor(
            data=self.memory, device_type=self.kind, ndim=len(self.shape), code=1, bits=self.bits, lanes=1
        )
        self.tensor.shape = ctypes.cast(self.shape, ctypes.POINTER(ctypes.c_int64))
        make = ctypes.pythonapi.PyCapsule_New
        make.restype, make.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
        return make(ctypes.addressof(self.tensor), b"dltensor", None)


def test_device_memory_is_read_where_it_lies(runner: Any, images: Any, expected: Any, stub: Stub) -> None:
    given = [OnDevice(stub, images[:4]), OnDevice(stub, images[4:8])]
    before = [stub.calls(name) for name in ("cuMemcpyHtoDAsync_v2", "cuMemcpyDtoDAsync_v2")]
    for _ in range(4):
        for at, one in enumerate(given):
            assert np.allclose(runner.logits(one), expected[4 * at : 4 * at + 4], atol=1e-5)
    assert [stub.calls(name) for name in ("cuMemcpyHtoDAsync_v2", "cuMemcpyDtoDAsync_v2")] == before
    assert stub.alive().get("graph executables", 0) == (2 if runner.graph == "on" else 0)


def test_host_and_device_memory_take_turns(runner: Any, images: Any, expected: Any, stub: Stub) -> None:
    given = OnDevice(stub, images[:4])
    for at in range(6):
        assert np.allclose(runner.logits(given), expected[:4], atol=1e-5)
        assert np.allclose(runner.logits(images[at : at + 4]), expected[at : at + 4], atol=1e-5)


def test_new_addresses_without_end_are_copied_on_the_device(
    runner: Any, images: Any, expected: Any, stub: Stub
) -> None:
    for _ in range(3 * MOST_ADDRESSES):
        given = OnDevice(stub, images[:3])
        for _ in range(2):
            assert np.allclose(runner.logits(given), expected[:3], atol=1e-5)
    assert stub.alive().get("graph executables", 0) <= MOST_ADDRESSES + 1


def test_an_address_that_tensorrt_refuses_is_copied_from(runner: Any, images: Any, expected: Any, stub: Stub) -> None:
    given = OnDevice(stub, images[:3], offset=16)
    for _ in range(4):
        assert np.allclose(runner.logits(given), expected[:3], atol=1e-5)
        assert np.allclose(runner.logits(images[3:6]), expected[3:6], atol=1e-5)


def test_large_batches_are_split_in_place(runner: Any, images: Any, expected: Any, stub: Stub) -> None:
    assert np.allclose(runner.logits(OnDevice(stub, images)), expected, atol=1e-5)
    assert np.allclose(runner.logits(OnDevice(stub, images[0])), expected[:1], atol=1e-5)
    none = OnDevice(stub, images[:1], shape=(0, 16, 16, 3), data=(0, True))
    assert runner.logits(none).shape == (0, 3)


@pytest.mark.parametrize("version", [3, 2])
def test_work_of_the_owners_stream_is_waited_for(
    runner: Any, images: Any, expected: Any, stub: Stub, version: int
) -> None:
    cuda = runner._engine.cuda
    entered = cuda.enter()
    theirs = cuda.stream() if version == 3 else None
    handle = theirs.handle if theirs else 1  # what says nothing of streams has written in the legacy default one
    given = OnDevice(stub, np.zeros_like(images[:3]), version=version, stream=handle)
    pinned = cuda.allocate_pinned(images[:3].nbytes)
    for at in range(5):
        pinned.bytes[:] = images[at : at + 3].reshape(-1)
        copy = stub.library.cuMemcpyHtoDAsync_v2
        size = ctypes.c_size_t(images[:3].nbytes)
        copy(ctypes.c_void_p(given.memory), ctypes.c_void_p(pinned.address), size, ctypes.c_void_p(handle))
        assert np.allclose(runner.logits(given), expected[at : at + 3], atol=1e-5)
    cuda.release_pinned(pinned)
    if theirs:
        cuda.release_stream(theirs)
    cuda.leave(entered)


def test_dlpack_is_read_on_the_legacy_stream_and_left_with_its_owner(
    runner: Any, images: Any, expected: Any, stub: Stub
) -> None:
    for kind in (2, 13):
        given = ByDlpack(stub, images[:4], kind)
        for _ in range(3):
            assert np.allclose(runner.logits(given), expected[:4], atol=1e-5)
        assert set(given.asked) == {1}
    with pytest.raises(DataError, match="16 bits"):
        runner.logits(ByDlpack(stub, images[:4], bits=16))


def test_memory_of_another_gpu_or_of_nobody_is_refused(runner: Any, images: Any, stub: Stub) -> None:
    with pytest.raises(DataError, match="GPU 1") as caught:
        runner.logits(OnDevice(stub, images[:1], ordinal=1))
    assert "CUDA_VISIBLE_DEVICES" in str(caught.value.fix)
    with pytest.raises(DataError, match="CUDA does not know"):
        runner.logits(OnDevice(stub, images[:1], data=(images.ctypes.data, True)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"typestr": "<f4"}, "type <f4"),
        ({"strides": (768, 48, 3, 16)}, "make it contiguous"),
        ({"strides": (2 * 768, 48, 3, 1)}, "make it contiguous"),
        ({"shape": (2, 16, 16)}, "(2, 16, 16)"),
        ({"shape": (2, 3, 16, 16)}, "(2, 3, 16, 16)"),
        ({"mask": object()}, "type |u1"),
    ],
)
def test_another_form_is_refused_in_words(
    runner: Any, images: Any, stub: Stub, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(DataError) as caught:
        runner.logits(OnDevice(stub, images[:2], **changes))
    assert said in str(caught.value)


def test_strides_of_c_order_are_taken_whatever_an_axis_of_one_says(
    runner: Any, images: Any, expected: Any, stub: Stub
) -> None:
    assert np.allclose(runner.logits(OnDevice(stub, images[:2], strides=(768, 48, 3, 1))), expected[:2], atol=1e-5)
    assert np.allclose(runner.logits(OnDevice(stub, images[:1], strides=(5, 48, 3, 1))), expected[:1], atol=1e-5)


def test_phases_of_device_memory_have_nothing_to_copy_in(runner: Any, images: Any, stub: Stub) -> None:
    before = stub.calls("cuMemcpyHtoDAsync_v2")
    assert runner.phases(OnDevice(stub, images[:2])).gpu_ms > 0
    assert stub.calls("cuMemcpyHtoDAsync_v2") == before


def test_what_lies_in_host_memory_is_no_device_image(images: Any) -> None:
    assert device_images(images) is None
    assert device_images([1, 2]) is None
    assert device_images("frame.png") is None


def test_arrays_of_pycuda_are_read_and_its_context_goes_on(runner: Any, images: Any, expected: Any) -> None:
    driver = pytest.importorskip("pycuda.driver", reason="pycuda is not installed: pip compiles it, with nvcc")
    from pycuda import gpuarray

    from toolkit.runtime.cuda.libcuda import pop_if_current

    driver.init()
    context = driver.Device(0).retain_primary_context()
    context.push()
    given = gpuarray.to_gpu(images[:4])
    for _ in range(3):
        assert np.allclose(runner.logits(given), expected[:4], atol=1e-5)
        assert driver.Context.get_current() == context
    assert np.array_equal(gpuarray.to_gpu(images[:1]).get(), images[:1])
    handle = int(context.handle)
    del given
    context.detach()
    pop_if_current(handle)
