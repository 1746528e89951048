"""Claims about the stand-in libcuda's timeline: events lie where the device's work lies, whatever the host does."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.runtime.cuda.inside.conftest import Stub
from toolkit.runtime.cuda import open_cuda

KERNEL_US, LAUNCH_US, CALL_US, COPY_US, WAKE_US = 40.0, 7.0, 15.0, 6.0, 3000.0
DEVICE_MAP, SPIN, BLOCK = 2, 1, 4


class Device:
    """The stand-in with the model on: a stream, two events, and what is put into it by hand."""

    def __init__(self, stub: Stub, cuda: Any) -> None:
        self.library, self.cuda = stub.library, cuda
        self.stream, self.before, self.after = cuda.stream(), cuda.event(), cuda.event()
        self.handle = ctypes.c_void_p(self.stream.handle)

    def kernel(self) -> None:
        assert self.library.stub_kernel(self.handle, self.library.stub_nothing, None) == 0

    def elapsed_us(self) -> float:
        self.cuda.synchronize(self.stream)
        return float(1e3 * self.cuda.elapsed_ms(self.before, self.after))


@pytest.fixture
def device(stub: Stub) -> Iterator[Device]:
    cuda = open_cuda("cuda-python")
    entered = cuda.enter()
    made = Device(stub, cuda)
    stub.library.stub_model(*map(ctypes.c_double, (KERNEL_US, LAUNCH_US, CALL_US, COPY_US, WAKE_US)))
    yield made
    stub.library.stub_model(*map(ctypes.c_double, (-1, 0, 0, 0, 0)))
    assert stub.library.cuDevicePrimaryCtxSetFlags_v2(0, 0) == 0
    cuda.release_event(made.before)
    cuda.release_event(made.after)
    cuda.release_stream(made.stream)
    cuda.leave(entered)
    cuda.close()


def test_on_an_idle_device_the_events_hold_the_launch_too(device: Device) -> None:
    device.cuda.record(device.before, device.stream)
    device.kernel()
    device.cuda.record(device.after, device.stream)
    assert device.elapsed_us() > KERNEL_US + CALL_US


@pytest.mark.parametrize("kernels", [1, 25])
def test_behind_a_gate_the_events_hold_the_work_alone(device: Device, kernels: int) -> None:
    gate = ctypes.c_void_p()
    assert device.library.cuMemHostAlloc(ctypes.byref(gate), ctypes.c_size_t(4), DEVICE_MAP) == 0
    flag = ctypes.c_uint32.from_address(gate.value or 0)
    flag.value = 0
    address = ctypes.c_void_p()
    assert device.library.cuMemHostGetDevicePointer_v2(ctypes.byref(address), gate, 0) == 0
    assert device.library.cuStreamWaitValue32_v2(device.handle, address, 1, 0) == 0
    device.cuda.record(device.before, device.stream)
    for _ in range(kernels):
        device.kernel()
    device.cuda.record(device.after, device.stream)
    time.sleep(0.001)  # the device has heard of the last launch before the gate opens
    flag.value = 1
    assert device.elapsed_us() == pytest.approx(kernels * KERNEL_US, abs=1.0)
    assert device.library.cuMemFreeHost(gate) == 0


def _behind_two_milliseconds_of_work(device: Device, put: Callable[[], None]) -> list[float]:
    """Twenty tries, in microseconds: a host that was held up for longer comes too late in some of them."""
    found = []
    for _ in range(20):
        for _ in range(50):
            device.kernel()
        device.cuda.record(device.before, device.stream)
        put()
        device.cuda.record(device.after, device.stream)
        found.append(device.elapsed_us())
    return found


def test_behind_other_work_the_events_hold_the_work_alone(device: Device) -> None:
    found = _behind_two_milliseconds_of_work(device, device.kernel)
    assert min(found) == pytest.approx(KERNEL_US, abs=1.0)


def test_a_graph_is_one_launch_and_its_kernels_follow_each_other(device: Device) -> None:
    device.cuda.begin_capture(device.stream)
    for _ in range(10):
        device.kernel()
    graph = device.cuda.end_capture(device.stream)
    found = _behind_two_milliseconds_of_work(device, lambda: device.cuda.launch(graph, device.stream))
    assert min(found) == pytest.approx(10 * KERNEL_US, abs=1.0)
    began = time.monotonic()
    device.cuda.launch(graph, device.stream)
    device.cuda.synchronize(device.stream)
    assert time.monotonic() - began >= 1e-6 * (CALL_US + LAUNCH_US + 10 * KERNEL_US)
    device.cuda.release_graph(graph)


def test_who_waits_blocked_wakes_late_and_who_spins_does_not(device: Device) -> None:
    def waited_us(flags: int) -> float:
        assert device.library.cuDevicePrimaryCtxSetFlags_v2(0, flags) == 0
        found = []
        for _ in range(5):
            device.kernel()
            began = time.monotonic()
            device.cuda.synchronize(device.stream)
            found.append(1e6 * (time.monotonic() - began))
        return min(found)

    assert waited_us(SPIN) < WAKE_US < waited_us(BLOCK)
    device.library.stub_integrated(1)
    assert waited_us(0) > WAKE_US, "on an integrated GPU the driver's own choice is to block"
    device.library.stub_integrated(0)
    assert waited_us(0) < WAKE_US


def test_memory_that_was_not_mapped_has_no_address_on_the_device(device: Device) -> None:
    pinned, address = ctypes.c_void_p(), ctypes.c_void_p()
    assert device.library.cuMemHostAlloc(ctypes.byref(pinned), ctypes.c_size_t(64), 0) == 0
    assert device.library.cuMemHostGetDevicePointer_v2(ctypes.byref(address), pinned, 0) == 1
    assert device.library.stub_is_device(pinned, ctypes.c_size_t(64)) == 0
    assert device.library.cuMemFreeHost(pinned) == 0
