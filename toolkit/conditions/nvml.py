"""NVIDIA GPUs as NVML sees them: clocks, temperature, throttling, power, memory, who else is there. Only ctypes.

Names and numbers are those of nvml.h (NVIDIA Management Library API reference). A Jetson's GPU is not there: its driver
has no NVML before JetPack 7, and `toolkit.conditions.jetson` reads its own files.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from toolkit.storage.documents import Document
from toolkit.storage.hints import NotNegative

LIBRARY = "libnvidia-ml.so.1"
SM, MEMORY = 1, 2  # nvmlClockType_t
# nvmlClocksEventReasons; idle and the user's own settings slow nothing down that was asked to be fast.
REASONS = {
    0x2: "clocks set by an application",
    0x4: "power limit",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "temperature (software)",
    0x40: "temperature (hardware)",
    0x80: "power brake",
    0x100: "display clocks",
}
_ERRORS = {
    3: "not supported by this GPU",
    4: "no permission",
    9: "the NVIDIA driver is not loaded",
    15: "the GPU is lost",
}


@dataclass(frozen=True)
class GpuState(Document):
    """What a GPU showed at one moment.

    Attributes:
        sm_mhz: the clock of its multiprocessors; `sm_most_mhz` the highest that it can have.
        watts: of the whole board, averaged over up to a second by the GPU itself.
        slowed_by: why the clocks are below what they could be, in words.
        memory_used_mib: by every process together.
        processes: ids of those that compute on it.
        absent: by field, the reason why it is null.
    """

    name: str
    sm_mhz: NotNegative | None
    sm_most_mhz: NotNegative | None
    memory_mhz: NotNegative | None
    celsius: NotNegative | None
    watts: NotNegative | None
    slowed_by: list[str] | None
    memory_used_mib: NotNegative | None
    processes: list[int] | None
    absent: dict[str, str]

    @property
    def hottest_celsius(self) -> float:
        """0 where it is not known."""
        return self.celsius or 0.0


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class _Process(ctypes.Structure):
    _fields_ = (
        ("pid", ctypes.c_uint),
        ("used", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


class Refused(Exception):
    """A call of NVML returned another code than 0; the text says what that means."""


class Gpu:
    """One GPU; closed by `close` or `with`. Made by `gpu_here`."""

    def __init__(self, library: Any, handle: ctypes.c_void_p) -> None:
        self._library, self._handle = library, handle
        self.name = self._text("nvmlDeviceGetName")

    def state(self) -> GpuState:
        """What can be read now."""
        readers: dict[str, Callable[[], Any]] = {
            "sm_mhz": lambda: self._number("nvmlDeviceGetClockInfo", SM),
            "sm_most_mhz": lambda: self._number("nvmlDeviceGetMaxClockInfo", SM),
            "memory_mhz": lambda: self._number("nvmlDeviceGetClockInfo", MEMORY),
            "celsius": lambda: self._number("nvmlDeviceGetTemperature", 0),
            "watts": self.watts,
            "slowed_by": self.slowed_by,
            "memory_used_mib": self.memory_used_mib,
            "processes": lambda: sorted(self.processes()),
        }
        found: dict[str, Any] = {"name": self.name}
        absent = {}
        for key, read in readers.items():
            try:
                found[key] = read()
            except Refused as refused:
                found[key], absent[key] = None, str(refused)
        return GpuState(**found, absent=absent)

    def slowed_by(self) -> list[str]:
        """Why the clocks are below what they could be, in words."""
        mask = self._number("nvmlDeviceGetCurrentClocksThrottleReasons", kind=ctypes.c_ulonglong)
        return [words for bit, words in REASONS.items() if mask & bit]

    def watts(self) -> float:
        """Power now, of the whole board; averaged over up to a second by the GPU itself."""
        return self._number("nvmlDeviceGetPowerUsage") / 1000

    def joules(self) -> float | None:
        """Energy since the driver was loaded (Volta and later), or None."""
        try:
            return self._number("nvmlDeviceGetTotalEnergyConsumption", kind=ctypes.c_ulonglong) / 1000
        except Refused:
            return None

    def processes(self) -> dict[int, int]:
        """MiB of GPU memory by process id; ids are the host's, also in a container."""
        count = ctypes.c_uint(256)
        entries = (_Process * count.value)()
        self._call("nvmlDeviceGetComputeRunningProcesses_v3", ctypes.byref(count), entries)
        unknown = ctypes.c_ulonglong(-1).value
        return {entry.pid: 0 if entry.used == unknown else entry.used >> 20 for entry in entries[: count.value]}

    def close(self) -> None:
        """Lets go of NVML."""
        self._library.nvmlShutdown()

    def __enter__(self) -> Gpu:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def memory_used_mib(self) -> int:
        """In use by every process together."""
        memory = _Memory()
        self._call("nvmlDeviceGetMemoryInfo", ctypes.byref(memory))
        return int(memory.used) >> 20

    def _number(self, name: str, *arguments: int, kind: Any = ctypes.c_uint) -> int:
        answer = kind(0)
        self._call(name, *(ctypes.c_uint(value) for value in arguments), ctypes.byref(answer))
        return int(answer.value)

    def _text(self, name: str) -> str:
        buffer = ctypes.create_string_buffer(96)  # NVML_DEVICE_NAME_V2_BUFFER_SIZE
        self._call(name, buffer, ctypes.c_uint(len(buffer)))
        return buffer.value.decode(errors="replace")

    def _call(self, name: str, *arguments: Any) -> None:
        _check(self._library, name, self._handle, *arguments)


def gpu_here(load: Callable[[str], Any] | None = None, visible: str | None = None) -> tuple[Gpu | None, str]:
    """The GPU that CUDA calls its first, or None and the reason.

    Args:
        load: stands in for `ctypes.CDLL`.
        visible: stands in for CUDA_VISIBLE_DEVICES: its first entry, a number or the start of a UUID, picks the GPU.
            NVML counts by PCI bus; CUDA does too with CUDA_DEVICE_ORDER=PCI_BUS_ID, and where all GPUs are equal.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") if visible is None else visible
    first = (visible or "0").split(",")[0].strip()
    try:
        library = (load or ctypes.CDLL)(LIBRARY)
    except OSError as error:
        return None, f"there is no NVML: {error}"
    try:
        _check(library, "nvmlInit_v2")
        handle = ctypes.c_void_p()
        if first.isdigit():
            _check(library, "nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(int(first)), ctypes.byref(handle))
        else:
            _check(library, "nvmlDeviceGetHandleByUUID", first.encode(), ctypes.byref(handle))
        return Gpu(library, handle), ""
    except (Refused, AttributeError) as error:
        return None, f"NVML finds no GPU: {error}"


def _check(library: Any, name: str, *arguments: Any) -> None:
    try:
        function = getattr(library, name)
    except AttributeError as error:
        raise Refused(f"this driver has no {name}") from error
    code = function(*arguments)
    if code != 0:
        raise Refused(f"{_ERRORS.get(code, 'refused')} ({name} returned {code})")
