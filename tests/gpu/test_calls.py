"""Claims about calls of an engine on a GPU: graphs, shapes, threads, contexts, images in device memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from tests.gpu.conftest import LARGEST_BATCH, PRECISIONS, Inputs, in_batches, keep, quick, top1_percent
from toolkit.contracts import UInt8

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]  # foreign libraries warn as they like


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_replayed_graph_equals_enqueueing_bit_for_bit(
    precision: str, model: str, runner: Callable[..., Any], inputs: Inputs
) -> None:
    one = runner(model, precision)
    if one.graph.startswith("off"):
        pytest.skip(f"CUDA graphs are {one.graph}")
    with one.without_graph() as plain:
        for batch in (1, 8, 64, 1, LARGEST_BATCH):
            images = inputs.images[:batch]
            expected = plain.logits(images)
            for _ in range(4):  # the first call has no graph, the second captures, the others replay
                assert np.array_equal(one.logits(images), expected), batch
    assert not one.graph.startswith("off"), one.graph  # a capture that fails turns graphs off
    keep("calls", {"model": model, "precision": precision, "description": one.description})


def test_shapes_may_change_from_call_to_call(model: str, runner: Callable[..., Any], inputs: Inputs) -> None:
    one = runner(model, "fp32")
    first: dict[int, Any] = {}
    for batch in (1, 64, 3, LARGEST_BATCH, 1, 7, 64, 3, 1, LARGEST_BATCH, 7):
        logits = one.logits(inputs.images[:batch])
        assert len(logits) == batch
        assert np.array_equal(logits, first.setdefault(batch, logits))
        largest = np.abs(first[1]).max()  # TF32 has 10 bits of mantissa, and batches may run other kernels
        assert np.abs(logits[0] - first[1][0]).max() <= 5e-3 * largest


def test_images_above_the_profile_are_split(model: str, runner: Callable[..., Any], inputs: Inputs) -> None:
    one = runner(model, "fp32")
    images = inputs.images[: 2 * LARGEST_BATCH + 5]
    parts = in_batches(one.logits, images)
    logits = one.logits(images)
    assert logits.shape == parts.shape
    assert top1_percent(logits, parts.argmax(axis=1)) == 100


def test_an_answer_is_a_fresh_array(model: str, runner: Callable[..., Any], inputs: Inputs) -> None:
    one = runner(model, "fp32")
    first = one.logits(inputs.images[:4])
    kept = first.copy()
    one.logits(inputs.images[4:8])
    assert np.array_equal(first, kept)


@pytest.mark.parametrize("threads", [4, 8])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_many_threads_answer_as_one_does(
    precision: str, threads: int, model: str, runner: Callable[..., Any], inputs: Inputs
) -> None:
    one = runner(model, precision)
    parts = [inputs.images[start : start + 1 + start % 9] for start in range(0, 400, 5)]
    alone = [one.logits(part) for part in parts]
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(quick(5, 1)):
            together = list(pool.map(one.logits, parts))
            assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_two_runners_of_one_plan_answer_alike_and_close_in_any_order(
    model: str, runner: Callable[..., Any], inputs: Inputs
) -> None:
    first, second = runner(model, "fp32"), runner(model, "fp32")
    third = first.without_graph()
    images = inputs.images[:8]
    expected = first.logits(images)
    first.close()
    assert np.array_equal(second.logits(images), expected)
    second.close()
    assert np.array_equal(third.logits(images), expected)
    third.close()


def test_a_second_caller_gets_a_context_of_its_own(model: str, runner: Callable[..., Any], inputs: Inputs) -> None:
    one = runner(model, "fp32", contexts=2)
    images, together, found = np.ascontiguousarray(inputs.images[:64]), threading.Barrier(2), []

    def call() -> None:
        together.wait(10)
        for _ in range(quick(50, 5)):
            found.append(one.logits(images))

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(25)
    assert all(np.array_equal(found[0], logits) for logits in found)
    assert len(found) == 2 * quick(50, 5)
    assert "at once" not in one.description, one.description  # the plan had no room for a second context


def test_warmed_up_streams_capture_nothing_later(model: str, runner: Callable[..., Any], inputs: Inputs) -> None:
    one = runner(model, "fp32")
    if not hasattr(one, "warm_up"):
        pytest.skip("this version's runner has no warm_up")
    one.warm_up((1, 8), streams=2)
    images = [np.ascontiguousarray(inputs.images[:1]), np.ascontiguousarray(inputs.images[:8])]
    expected = [one.logits(part) for part in images]
    with ThreadPoolExecutor(2) as pool:
        for part, logits in zip(images, expected, strict=True):
            for found in pool.map(one.logits, [part] * 8):
                assert np.array_equal(found, logits)


class OnDevice:
    """Images in device memory with `__cuda_array_interface__`, and nothing else.

    Args:
        late: the copy waits in a stream behind so many copies of 64 MiB, and the interface names that stream.
    """

    def __init__(self, images: UInt8, late: int = 0) -> None:
        from toolkit.runtime.cuda import open_cuda

        self.cuda = open_cuda()
        entered, self.blocks = self.cuda.enter(), []
        self.stream = self.cuda.stream()
        self.pinned = self.cuda.allocate_pinned(images.nbytes)
        self.pinned.bytes[: images.nbytes] = 0
        self.address = self.cuda.allocate(images.nbytes)
        self.cuda.copy_in(self.address, self.pinned, images.nbytes, self.stream)
        self.cuda.synchronize(self.stream)
        self.pinned.bytes[: images.nbytes] = images.reshape(-1)
        if late:
            size = quick(64 << 20, 1 << 16)
            self.blocks = [self.cuda.allocate(size), self.cuda.allocate(size)]
            for _ in range(late):
                self.cuda.copy_across(self.blocks[0], self.blocks[1], size, self.stream)
        self.cuda.copy_in(self.address, self.pinned, images.nbytes, self.stream)
        if not late:
            self.cuda.synchronize(self.stream)
        self.cuda.leave(entered)
        self.__cuda_array_interface__ = {
            "shape": images.shape, "typestr": "|u1", "data": (self.address, False), "version": 3, "strides": None,
        }  # fmt: skip
        if late:
            self.__cuda_array_interface__["stream"] = self.stream.handle

    def close(self) -> None:
        """Gives the memory back."""
        entered = self.cuda.enter()
        self.cuda.synchronize(self.stream)
        for block in (self.address, *self.blocks):
            self.cuda.release(block)
        self.cuda.release_pinned(self.pinned)
        self.cuda.release_stream(self.stream)
        self.cuda.leave(entered)
        self.cuda.close()


@pytest.fixture
def on_device() -> Iterator[Callable[..., OnDevice]]:
    """Makes images in device memory, given back at the end."""
    made: list[OnDevice] = []

    def make(images: UInt8, late: int = 0) -> OnDevice:
        made.append(OnDevice(images, late))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("batch", [1, 8, 64])
def test_images_in_device_memory_answer_as_numpy_does(
    batch: int, model: str, runner: Callable[..., Any], inputs: Inputs, on_device: Callable[..., OnDevice]
) -> None:
    one = runner(model, "fp32")
    images = np.ascontiguousarray(inputs.images[:batch])
    expected = one.logits(images)
    there = on_device(images)
    for _ in range(3):
        assert np.array_equal(one.logits(there), expected)


def test_images_that_a_callers_stream_still_writes_are_waited_for(
    model: str, runner: Callable[..., Any], inputs: Inputs, on_device: Callable[..., OnDevice]
) -> None:
    one = runner(model, "fp32")
    images = np.ascontiguousarray(inputs.images[:8])
    expected = one.logits(images)
    for _ in range(3):
        assert np.array_equal(one.logits(on_device(images, late=300)), expected)


@pytest.mark.parametrize("way", ["__cuda_array_interface__", "DLPack"])
@pytest.mark.parametrize("batch", [1, 64])
def test_torch_tensors_on_the_gpu_answer_as_numpy_does(
    batch: int, way: str, model: str, runner: Callable[..., Any], inputs: Inputs
) -> None:
    torch = pytest.importorskip("torch", reason="this Python has no torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    one = runner(model, "fp32")
    images = np.ascontiguousarray(inputs.images[:batch])
    expected = one.logits(images)
    for _ in range(3):
        tensor = torch.from_numpy(images).cuda()
        assert np.array_equal(one.logits(OnlyDLPack(tensor) if way == "DLPack" else tensor), expected)


class OnlyDLPack:
    """A tensor without `__cuda_array_interface__`."""

    def __init__(self, tensor: Any) -> None:
        self.shape, self.__dlpack__, self.__dlpack_device__ = tensor.shape, tensor.__dlpack__, tensor.__dlpack_device__


def test_a_torch_stream_that_still_writes_is_waited_for(model: str, runner: Callable[..., Any], inputs: Inputs) -> None:
    torch = pytest.importorskip("torch", reason="this Python has no torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    one, images = runner(model, "fp32"), np.ascontiguousarray(inputs.images[:8])
    expected, source = one.logits(images), torch.from_numpy(images).pin_memory()
    tensor, stream = torch.zeros(images.shape, dtype=torch.uint8, device="cuda"), torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(40_000_000)  # clock ticks: some 20 ms
        tensor.copy_(source, non_blocking=True)
        assert np.array_equal(one.logits(tensor), expected)
    torch.cuda.synchronize()


@pytest.mark.parametrize("batch", [1, 64])
def test_cupy_arrays_answer_as_numpy_does(batch: int, model: str, runner: Callable[..., Any], inputs: Inputs) -> None:
    cupy = pytest.importorskip("cupy", reason="this Python has no CuPy")
    one, images = runner(model, "fp32"), np.ascontiguousarray(inputs.images[:batch])
    expected, stream = one.logits(images), cupy.cuda.Stream(non_blocking=True)
    for _ in range(3):
        assert np.array_equal(one.logits(cupy.asarray(images)), expected)
    with stream:
        there = cupy.asarray(images)
        assert np.array_equal(one.logits(there), expected)


def test_images_of_another_form_on_the_gpu_are_refused_in_words(
    model: str, runner: Callable[..., Any], inputs: Inputs, on_device: Callable[..., OnDevice]
) -> None:
    from toolkit.errors import DataError

    one = runner(model, "fp32")
    there = on_device(np.ascontiguousarray(inputs.images[:8]))
    there.__cuda_array_interface__ = dict(there.__cuda_array_interface__, typestr="<f4")
    with pytest.raises(DataError):
        one.logits(there)
    there.__cuda_array_interface__ = dict(there.__cuda_array_interface__, typestr="|u1", data=(1 << 44, False))
    with pytest.raises(DataError):
        one.logits(there)
