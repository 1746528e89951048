"""Whether there is an NVIDIA driver and which GPUs it has, asked of libcuda itself and never with a crash."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

LIBRARY = "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of cuda.h

# What cuda.h's codes mean for somebody who wants to run an engine.
_MEANINGS = {
    3: "the driver cannot be initialized (in a process that was forked after CUDA was used, start it with 'spawn')",
    34: "this libcuda is the toolkit's stub, not a driver",
    100: "the driver finds no GPU",
    101: "the driver refuses the device number",
    802: "the GPUs are not ready yet",
    803: "the driver's kernel module and its libcuda are of different versions (reboot after an update)",
    804: "this GPU does not take the forward-compatibility libcuda that is first in the library path",
    999: "the driver reports an unknown fault (/dev/nvidia* may be missing in this container)",
}


@dataclass(frozen=True)
class Device:
    """A GPU: its marketing name, its compute capability such as "SM87", and its memory in MiB."""

    name: str
    compute_capability: str
    memory_mib: int


@dataclass(frozen=True)
class Driver:
    """What libcuda answered.

    Attributes:
        available: there is a driver and at least one GPU.
        reason: why not, as a clause; empty when available.
        driver_version: the newest CUDA that the driver speaks, such as "12.6" (cuDriverGetVersion); None when
            there was nobody to ask.
        devices: in the order of CUDA_VISIBLE_DEVICES.
    """

    available: bool
    reason: str
    driver_version: str | None = None
    devices: tuple[Device, ...] = ()


class _Refused(Exception):
    """A call of libcuda returned a code other than 0; the text says what that means."""


def probe_driver(load: Callable[[str], Any] | None = None) -> Driver:
    """Asks the driver, once a process: creates no context, needs nothing but ctypes and never raises.

    Full TensorRT's Runtime and Builder may end the process where there is no driver, so this goes first.

    Args:
        load: stands in for `ctypes.CDLL`; an answer got through it is not remembered.
    """
    return _remembered() if load is None else _ask(load)


@lru_cache(maxsize=1)
def _remembered() -> Driver:
    return _ask(ctypes.CDLL)


def _ask(load: Callable[[str], Any]) -> Driver:
    try:
        library = load(LIBRARY)
    except OSError as error:
        return Driver(False, f"there is no NVIDIA driver: {error}")
    version = None
    try:
        _call(library, "cuInit", 0)
        version = _version(library)
        count = _int(library, "cuDeviceGetCount")
        devices = tuple(_device(library, ordinal) for ordinal in range(count))
    except _Refused as refused:
        return Driver(False, f"{refused}{_hidden()}", version)
    except (AttributeError, ctypes.ArgumentError, ValueError) as error:
        return Driver(False, f"{LIBRARY} is not a driver that can be asked: {error}", version)
    reason = "" if devices else f"the driver finds no GPU{_hidden()}"
    return Driver(bool(devices), reason, version, devices)


def _hidden() -> str:
    """Names the variable that hides GPUs, where it is set."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "" if visible is None else f" (CUDA_VISIBLE_DEVICES is {visible!r})"


def _call(library: Any, name: str, *arguments: Any) -> None:
    code = getattr(library, name)(*arguments)
    if code != 0:
        raise _Refused(f"{_MEANINGS.get(code, 'the driver refuses')} ({name} returned {code})")


def _int(library: Any, name: str, *arguments: Any) -> int:
    answer = ctypes.c_int(0)
    _call(library, name, ctypes.byref(answer), *arguments)
    return answer.value


def _version(library: Any) -> str:
    number = _int(library, "cuDriverGetVersion")  # 1000 * major + 10 * minor
    return f"{number // 1000}.{number % 1000 // 10}"


def _device(library: Any, ordinal: int) -> Device:
    handle = _int(library, "cuDeviceGet", ordinal)
    name = ctypes.create_string_buffer(256)
    _call(library, "cuDeviceGetName", name, len(name), handle)
    memory = ctypes.c_size_t(0)
    _call(library, "cuDeviceTotalMem_v2", ctypes.byref(memory), handle)
    major, minor = (_int(library, "cuDeviceGetAttribute", which, handle) for which in (_MAJOR, _MINOR))
    return Device(name.value.decode(errors="replace"), f"SM{major}{minor}", memory.value >> 20)
