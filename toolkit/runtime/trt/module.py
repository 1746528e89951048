"""Which TensorRT is installed here, what it can do, what it says while it works, and whether it can run."""

from __future__ import annotations

import ctypes
import importlib
import platform
import re
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from toolkit.errors import BackendUnavailable
from toolkit.lazy import requirement
from toolkit.runtime.driver import Driver, probe_driver
from toolkit.runtime.trt.causes import cause_of

# The front module of each distribution first, then the bindings that it wraps (they also install alone).
MODULES = {
    "tensorrt": "tensorrt",
    "tensorrt_bindings": "tensorrt",
    "tensorrt_rtx": "tensorrt-rtx",
    "tensorrt_rtx_bindings": "tensorrt-rtx",
    "tensorrt_lean": "lean",
    "tensorrt_lean_bindings": "lean",
    "tensorrt_dispatch": "dispatch",
    "tensorrt_dispatch_bindings": "dispatch",
}
_MOST_LINES = 20_000
NEEDS_NO_GPU = "tensorrt-rtx"  # the one kind whose Builder works without a driver
_FAILED = "CUDA initialization failure"  # in what TensorRT 8.6 to 11.2 log where they cannot start CUDA
_OLD_DRIVER = (35, 36)  # cudaErrorInsufficientDriver and cudaErrorCallRequiresNewerDriver of driver_types.h
_NO_MEMORY = 2  # cudaErrorMemoryAllocation

# Held while TensorRT builds and while its objects are made or die: a build holds locks of TensorRT's own and its
# callbacks need Python's, so a thread that waited for the one with the other in hand would wait for ever.
ONE_AT_A_TIME = threading.RLock()


@dataclass(frozen=True)
class TensorRT:
    """A TensorRT that imports here.

    Attributes:
        module: the Python module.
        kind: "tensorrt", "tensorrt-rtx", "lean" or "dispatch".
        version: as the module says.
        can_build: it has a Builder and an ONNX parser (lean and dispatch have neither).
        strongly_typed_only: precision is in the ONNX file, there are no FP16 and INT8 flags (11 and RTX).
        reasons: why this one and not another, a sentence each.
    """

    module: Any
    kind: str
    version: str
    can_build: bool
    strongly_typed_only: bool
    reasons: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For people: "tensorrt-rtx 1.7.1.116"."""
        return f"{self.kind} {self.version}"

    @property
    def release(self) -> tuple[int, ...]:
        """The first two numbers of the version: (10, 6)."""
        return tuple(int(part) for part in self.version.split(".")[:2])


def find_tensorrt(load: Callable[[str], Any] = importlib.import_module, driver: Driver | None = None) -> TensorRT:
    """The TensorRT that gets furthest on this machine: full before RTX before lean, RTX first without a driver.

    Args:
        load: stands in for `importlib.import_module`.
        driver: stands in for `probe_driver()`.

    Raises:
        BackendUnavailable: none imports, with what each said and the pip command.
    """
    driver = probe_driver() if driver is None else driver
    found, reasons = _installed(load)
    if not found:
        cause = cause_of(reasons)
        fix = cause.cure if cause else _install()
        raise BackendUnavailable("no TensorRT can be imported here", found="; ".join(reasons), fix=fix)
    if not driver.available and found[0][0] != NEEDS_NO_GPU and NEEDS_NO_GPU in dict(found):
        found.sort(key=lambda entry: entry[0] != NEEDS_NO_GPU)
        reasons.append(f"{NEEDS_NO_GPU} is preferred, because it builds without a GPU and {driver.reason}")
    kind, module = found[0]
    return described(module, kind, tuple(reasons))


def described(module: Any, kind: str, reasons: tuple[str, ...] = ()) -> TensorRT:
    """What a module can do, read off its names."""
    return TensorRT(
        module=module,
        kind=kind,
        version=str(module.__version__),
        can_build=hasattr(module, "Builder") and hasattr(module, "OnnxParser"),
        strongly_typed_only=not hasattr(module.BuilderFlag, "FP16"),
        reasons=reasons,
    )


def installed_tensorrts() -> list[TensorRT]:
    """Every kind that imports here, in the order of `MODULES`."""
    return [described(module, kind) for kind, module in _installed(importlib.import_module)[0]]


def _installed(load: Callable[[str], Any]) -> tuple[list[tuple[str, Any]], list[str]]:
    """(kind, module) of each kind that imports, and a sentence about each that does not."""
    found: dict[str, Any] = {}
    broken: list[tuple[str, str]] = []
    for name, kind in MODULES.items():
        if kind in found:
            continue
        try:
            found[kind] = load(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                broken.append((kind, f"{name} is installed but lacks {error.name}"))
        except Exception as error:  # the wheels raise OSError, RuntimeError and more where a library is missing
            broken.append((kind, f"{name} is installed but does not load: {type(error).__name__}: {error}"))
    seen = found.keys() | {kind for kind, _ in broken}
    absent = [kind for kind in dict.fromkeys(MODULES.values()) if kind not in seen]
    reasons = [reason for _, reason in broken]
    return list(found.items()), reasons + ([f"not installed: {', '.join(absent)}"] if absent else [])


def _install() -> str:
    if platform.machine() == "aarch64":
        return "sudo apt install python3-libnvinfer, and make the venv with --system-site-packages"
    return f"pip install {requirement('rtx')} (builds without a GPU) or {requirement('trt')} (needs one)"


class Log:
    """Collects what TensorRT says while this object lives; `logger` is the `trt.ILogger` to hand to it.

    TensorRT takes one logger a process and ignores those of later builders and runtimes, so there is one for each
    module: it lives as long as the process and tells every `Log`. Verbose lines are dropped, except the list of
    layers: full TensorRT writes one for every tactic it times.
    """

    def __init__(self, trt: Any) -> None:
        self.lines: list[tuple[str, str]] = []
        self.logger, listeners = _logger_of(trt)
        with _LISTENING:
            listeners.add(self)

    def add(self, severity: str, message: str) -> None:
        """Keeps a line; `severity` is a name of `ILogger.Severity`."""
        if severity != "VERBOSE" or message.startswith("Layers:"):
            if len(self.lines) == _MOST_LINES:  # a program may run for months
                del self.lines[: _MOST_LINES // 2]
            self.lines.append((severity, message))

    def errors(self) -> tuple[str, ...]:
        """Error messages in order, each once."""
        return tuple(dict.fromkeys(m for severity, m in self.lines if severity in ("ERROR", "INTERNAL_ERROR")))

    def last(self) -> str:
        """The newest message above INFO, or ""."""
        return next((message for severity, message in reversed(self.lines) if severity != "INFO"), "")

    def text(self) -> str:
        """All kept lines, one message a paragraph line, with severities."""
        return "\n".join(f"[{severity}] {message}" for severity, message in self.lines)

    def opset(self) -> int | None:
        """The opset of the parsed file, which every parser from 8.4 on logs; None where it did not."""
        found = re.search(r"Opset version:\s*(\d+)", self.text())
        return int(found[1]) if found else None


_LISTENING = threading.Lock()
_loggers: list[tuple[Any, Any, weakref.WeakSet[Log]]] = []  # a module, its logger, and who listens


def _logger_of(trt: Any) -> tuple[Any, weakref.WeakSet[Log]]:
    """The ILogger of a module, made here because its base class exists only once TensorRT is imported."""
    for module, logger, listeners in _loggers:
        if module is trt:
            return logger, listeners
    listeners = weakref.WeakSet[Log]()

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            with _LISTENING:
                logs = list(listeners)
            for log in logs:
                log.add(severity.name, message)

    _loggers.append((trt, Logger(), listeners))
    return _loggers[-1][1], listeners


def require_can_run(driver: Driver | None = None) -> TensorRT:
    """The TensorRT that runs engines here. Building needs less: see `toolkit.engine.engine_from_onnx`.

    Raises:
        BackendUnavailable: no TensorRT, or no driver.
    """
    driver = probe_driver() if driver is None else driver
    found = find_tensorrt(driver=driver)
    if not driver.available:
        raise BackendUnavailable(
            f"{found.name} cannot run an engine here",
            found=driver.reason,
            allowed="a machine with an NVIDIA GPU and its driver",
            fix="use `backend='ort'` here, or copy the bundle to the device",
        )
    return found


_started: list[tuple[Any, str]] = []  # a module, and what it said where it could not start CUDA, else ""


class CudaDoesNotStart(BackendUnavailable):
    """A driver answers, and TensorRT's CUDA does not start on it."""


def require_cuda_starts(tensorrt: TensorRT, driver: Driver) -> None:
    """Asks TensorRT, once a process and before anything else is asked of it, whether it can start CUDA.

    A driver may answer while TensorRT's CUDA runtime is too new for it, or finds no memory. What TensorRT gives then
    ends the process: a Runtime of 10 and 11 at its first use and when it is freed, that of 8.6 at once, the Builder of
    10.6 too. So later ones are asked for a Runtime that is never freed if it is no good, and 8.x in a process of its
    own (its Builder would tell as well, and takes 9 s on an H200).

    Raises:
        CudaDoesNotStart: with TensorRT's words and what to do.
    """
    with ONE_AT_A_TIME:
        words = next((said for module, said in _started if module is tensorrt.module), None)
        if words is None:
            apart = tensorrt.kind != NEEDS_NO_GPU and tensorrt.release < (9,)
            words = (_words_of_child if apart else _words_of_failed_start)(tensorrt)
            _started.append((tensorrt.module, words))
    if words:
        raise cuda_does_not_start(tensorrt, driver, words)


def cuda_does_not_start(tensorrt: TensorRT, driver: Driver, words: str) -> CudaDoesNotStart:
    """The error, with what TensorRT said."""
    found = f"{words} (the driver speaks CUDA {driver.driver_version})"
    return CudaDoesNotStart(f"{tensorrt.name} cannot start CUDA here", found=found, fix=_cure_of_failed_start(words))


def _words_of_failed_start(tensorrt: TensorRT) -> str:
    """What TensorRT logged or its binding raised, or ""."""
    log = Log(tensorrt.module)
    try:
        runtime = tensorrt.module.Runtime(log.logger)
    except (TypeError, RuntimeError) as error:  # TypeError is the binding's word for a null pointer
        return log.last() or str(error)
    failed = [message for _, message in log.lines if _FAILED in message]
    if failed:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(runtime))
    return failed[-1] if failed else ""


_ASK = """import importlib, sys
sys.path[:] = {path!r}
trt = importlib.import_module({name!r})
trt.Runtime(trt.Logger())
"""
_LONGEST_ASK_S = 60


def _words_of_child(tensorrt: TensorRT) -> str:
    """What TensorRT 8 said in a process of its own before that crashed; "" where it did not, or nobody can be asked."""
    name = getattr(tensorrt.module, "__name__", "")
    if sys.modules.get(name) is not tensorrt.module or not sys.executable:
        return ""
    program = _ASK.format(path=sys.path, name=name)
    try:
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, errors="replace", timeout=_LONGEST_ASK_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    failed = [line.strip() for line in (done.stdout + done.stderr).splitlines() if _FAILED in line]
    if failed or done.returncode >= 0:
        return failed[-1] if failed else ""
    return f"its Runtime ended a process with {signal.Signals(-done.returncode).name}"


def _cure_of_failed_start(words: str) -> str:
    found = re.search(r"error:? (\d+)", words)
    code = int(found[1]) if found else None
    if code in _OLD_DRIVER:
        return (
            "update the NVIDIA driver, or install a TensorRT of an older CUDA: 8.6 to 10.6 and wheels named cu12 need "
            "a driver of CUDA 12, wheels named cu13 one of CUDA 13"
        )
    if code == _NO_MEMORY:
        return "free memory of the GPU: end what else uses it (nvidia-smi lists it; on a Jetson it shares the RAM)"
    return "look at nvidia-smi and dmesg for what is wrong with the GPU, and restart it after an update of the driver"
