"""Claims about calls of an engine on a GPU: graphs, shapes, threads, memory, device arrays and timings."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.gpu.conftest import LARGEST_BATCH, MODELS, PRECISIONS, Engine, Inputs, child, in_batches, top1_percent
from toolkit.contracts import UInt8
from toolkit.errors import BackendUnavailable

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]  # foreign libraries warn as they like
CALLS = 100_000
GROWTH_MIB = 8  # of the process and of the device over so many calls; one leaked kilobyte a call would be 98
SHARE = (0.2, 1.25)  # of a call that its parts on the device may take
LOGITS_OF = """
import sys
from pathlib import Path
import numpy as np
from toolkit.errors import BackendUnavailable
from toolkit.runtime.trt_runner import TrtRunner
engine, images, out, cuda = sys.argv[1:]
try:
    runner = TrtRunner(Path(engine), graph=False, cuda=cuda)
except BackendUnavailable as error:
    sys.exit(f"not here: {error.what} {error.found}")
pixels = np.load(images)
np.save(out, np.concatenate([runner.logits(pixels[:n]) for n in (1, 8, 64)]))
runner.close()
"""


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("model", MODELS)
def test_a_replayed_graph_equals_enqueueing_bit_for_bit(
    model: str, precision: str, runner: Callable[..., Any], inputs: Inputs
) -> None:
    one = runner(model, precision)
    if one.graph.startswith("off"):
        pytest.skip(f"CUDA graphs are {one.graph}")
    with one.without_graph() as plain:
        for batch in (1, 8, 64, 1, LARGEST_BATCH):
            images = inputs.images[:batch]
            expected = plain.logits(images)
            for _ in range(4):  # the first call has no graph, the second captures, the others replay
                assert np.array_equal(one.logits(images), expected)
    assert not one.graph.startswith("off"), one.graph  # a capture that fails turns graphs off


def test_shapes_may_change_from_call_to_call(runner: Callable[..., Any], inputs: Inputs) -> None:
    one = runner(MODELS[0], "fp32")
    first: dict[int, Any] = {}
    for batch in (1, 64, 3, LARGEST_BATCH, 1, 7, 64, 3, 1, LARGEST_BATCH, 7):
        logits = one.logits(inputs.images[:batch])
        assert len(logits) == batch
        assert np.array_equal(logits, first.setdefault(batch, logits))
        largest = np.abs(first[1]).max()  # TF32 has 10 bits of mantissa, and batches may run other kernels
        assert np.abs(logits[0] - first[1][0]).max() <= 5e-3 * largest


def test_images_above_the_profile_are_split(runner: Callable[..., Any], inputs: Inputs) -> None:
    one = runner(MODELS[0], "fp32")
    images = inputs.images[: 2 * LARGEST_BATCH + 5]
    parts = in_batches(one.logits, images)
    logits = one.logits(images)
    assert logits.shape == parts.shape
    assert top1_percent(logits, parts.argmax(axis=1)) == 100


def test_an_answer_is_a_fresh_array(runner: Callable[..., Any], inputs: Inputs) -> None:
    one = runner(MODELS[0], "fp32")
    first = one.logits(inputs.images[:4])
    kept = first.copy()
    one.logits(inputs.images[4:8])
    assert np.array_equal(first, kept)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_eight_threads_answer_as_one_does(precision: str, runner: Callable[..., Any], inputs: Inputs) -> None:
    one = runner(MODELS[0], precision)
    parts = [inputs.images[start : start + 1 + start % 9] for start in range(0, 400, 5)]
    alone = [one.logits(part) for part in parts]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            together = list(pool.map(one.logits, parts))
            assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_a_hundred_thousand_calls_leave_the_memory_of_host_and_device_flat(
    runner: Callable[..., Any], inputs: Inputs
) -> None:
    one = runner(MODELS[0], "fp32")
    batches = [inputs.images[:1], inputs.images[1:9]]
    for _ in range(1000):
        for images in batches:
            one.logits(images)
    host, device = _resident_mib(), _device_used_mib()
    for _ in range(CALLS // 2):
        for images in batches:
            one.logits(images)
    grown = _resident_mib() - host, _device_used_mib() - device
    print(f"grown after {CALLS:,} calls: host {grown[0]:.2f} MiB, device {grown[1]:.2f} MiB")
    assert grown[0] <= GROWTH_MIB
    assert grown[1] <= GROWTH_MIB


def test_a_runner_that_is_opened_and_closed_gives_its_memory_back(
    runner: Callable[..., Any], engine: Callable[[str, str], Engine], inputs: Inputs
) -> None:
    from toolkit.runtime.trt_runner import TrtRunner

    runner(MODELS[0], "fp32").logits(inputs.images[:8])  # keeps CUDA and TensorRT loaded
    path, used = engine(MODELS[0], "fp32").path, []
    for _ in range(6):
        with TrtRunner(path) as one:
            one.logits(inputs.images[:8])
        used.append(_device_used_mib())
    assert used[-1] - used[1] <= GROWTH_MIB


def _resident_mib() -> float:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _device_used_mib() -> float:
    """Of the whole device, asked of libcuda in the primary context; other programs on it count too."""
    from toolkit.runtime.cuda import open_cuda

    cuda = open_cuda()
    entered = cuda.enter()
    try:
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        code = ctypes.CDLL("libcuda.so.1").cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
        assert code == 0, f"cuMemGetInfo returned {code}"
    finally:
        cuda.leave(entered)
        cuda.close()
    return (total.value - free.value) / 2**20


@pytest.mark.parametrize("precision", PRECISIONS)
def test_pycuda_and_cuda_python_answer_alike_bit_for_bit(
    precision: str, engine: Callable[[str, str], Engine], inputs: Inputs, tmp_path: Path
) -> None:
    plan = engine(MODELS[0], precision).path
    np.save(tmp_path / "images.npy", inputs.images[:64])
    for cuda in ("cuda-python", "pycuda"):  # each in its own process, as a program would use one of them
        out = tmp_path / f"{cuda}.npy"
        done = child("-c", LOGITS_OF, str(plan), str(tmp_path / "images.npy"), str(out), cuda)
        if "not here: " in done.stderr:
            pytest.skip(f"{cuda} {done.stderr.strip().splitlines()[-1]}")
        assert done.returncode == 0, done.stderr
    assert np.array_equal(np.load(tmp_path / "cuda-python.npy"), np.load(tmp_path / "pycuda.npy"))


class OnDevice:
    """Images in device memory with `__cuda_array_interface__`, and nothing else."""

    def __init__(self, images: UInt8) -> None:
        from toolkit.runtime.cuda import open_cuda

        self.cuda = open_cuda()
        entered = self.cuda.enter()
        stream = self.cuda.stream()
        pinned = self.cuda.allocate_pinned(images.nbytes)
        pinned.bytes[: images.nbytes] = images.reshape(-1)
        self.address = self.cuda.allocate(images.nbytes)
        self.cuda.copy_in(self.address, pinned, images.nbytes, stream)
        self.cuda.synchronize(stream)
        self.cuda.release_pinned(pinned)
        self.cuda.release_stream(stream)
        self.cuda.leave(entered)
        self.shape = images.shape
        self.__cuda_array_interface__ = {
            "shape": images.shape, "typestr": "|u1", "data": (self.address, False), "version": 3, "strides": None,
        }  # fmt: skip

    def close(self) -> None:
        """Gives the memory back."""
        entered = self.cuda.enter()
        self.cuda.release(self.address)
        self.cuda.leave(entered)
        self.cuda.close()


@pytest.mark.parametrize("batch", [1, 8, 64])
def test_images_in_device_memory_answer_as_numpy_does(batch: int, runner: Callable[..., Any], inputs: Inputs) -> None:
    one = runner(MODELS[0], "fp32")
    images = np.ascontiguousarray(inputs.images[:batch])
    try:
        there = OnDevice(images)
    except BackendUnavailable as error:
        pytest.skip(f"{error.what} {error.found}")
    expected = one.logits(images)
    for _ in range(3):
        assert np.array_equal(one.logits(there), expected)
    there.close()


@pytest.mark.parametrize("way", ["__cuda_array_interface__", "DLPack"])
@pytest.mark.parametrize("batch", [1, 64])
def test_torch_tensors_on_the_gpu_answer_as_numpy_does(
    batch: int, way: str, runner: Callable[..., Any], inputs: Inputs
) -> None:
    torch = pytest.importorskip("torch", reason="this Python has no torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")

    class OnlyDLPack:
        def __init__(self, tensor: Any) -> None:
            self.shape, self.__dlpack__, self.__dlpack_device__ = (
                tensor.shape,
                tensor.__dlpack__,
                tensor.__dlpack_device__,
            )

    one = runner(MODELS[0], "fp32")
    images = np.ascontiguousarray(inputs.images[:batch])
    expected = one.logits(images)
    tensor = torch.from_numpy(images).cuda()
    assert np.array_equal(one.logits(OnlyDLPack(tensor) if way == "DLPack" else tensor), expected)


@pytest.mark.parametrize("batch", [1, 8, 64, LARGEST_BATCH])
def test_the_phases_of_a_call_add_up_to_a_call(batch: int, runner: Callable[..., Any], inputs: Inputs) -> None:
    one = runner(MODELS[0], "fp32")
    images = np.ascontiguousarray(inputs.images[:batch])
    for _ in range(20):
        one.phases(images)
        one.logits(images)
    sums, calls = [], []
    for _ in range(100):
        parts = one.phases(images)
        assert parts.gpu_ms > 0
        assert min(parts.h2d_ms, parts.d2h_ms) >= 0
        sums.append(parts.h2d_ms + parts.gpu_ms + parts.d2h_ms)
        began = time.perf_counter()
        one.logits(images)
        calls.append(1000 * (time.perf_counter() - began))
    device_ms, call_ms = float(np.median(sums)), float(np.median(calls))
    print(f"batch {batch}: {device_ms:.4f} ms between the events, {call_ms:.4f} ms a call")
    # A call is the parts and Python around them; events and launches between the parts cost some microseconds.
    least, most = SHARE
    assert least * call_ms <= device_ms <= most * call_ms + 0.03


def test_more_images_take_the_gpu_longer(runner: Callable[..., Any], inputs: Inputs) -> None:
    one = runner(MODELS[0], "fp32")
    medians = []
    for batch in (1, LARGEST_BATCH):
        images = np.ascontiguousarray(inputs.images[:batch])
        medians.append(float(np.median([one.phases(images).gpu_ms for _ in range(50)])))
    assert medians[1] > 1.5 * medians[0]
