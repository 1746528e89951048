"""Which TensorRT is installed here, what it can do, what it says while it works, and whether it can run."""

from __future__ import annotations

import importlib
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from toolkit.errors import BackendUnavailable
from toolkit.runtime.causes import cause_of
from toolkit.runtime.driver import Driver, probe_driver

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
    return "pip install 'trt-edge-toolkit[rtx]' (builds without a GPU) or 'trt-edge-toolkit[trt]' (needs one)"


class Log:
    """Collects what TensorRT says; `logger` is the `trt.ILogger` to hand to it.

    Verbose lines are dropped, except the list of layers: full TensorRT writes one for every tactic it times.
    """

    def __init__(self, trt: Any) -> None:
        self.lines: list[tuple[str, str]] = []
        self.logger = _logger(trt, self.add)

    def add(self, severity: str, message: str) -> None:
        """Keeps a line; `severity` is a name of `ILogger.Severity`."""
        if severity != "VERBOSE" or message.startswith("Layers:"):
            if len(self.lines) == _MOST_LINES:  # a program may run for months
                del self.lines[: _MOST_LINES // 2]
            self.lines.append((severity, message))

    def errors(self) -> tuple[str, ...]:
        """Error messages in order, each once."""
        return tuple(dict.fromkeys(m for severity, m in self.lines if severity in ("ERROR", "INTERNAL_ERROR")))

    def text(self) -> str:
        """All kept lines, one message a paragraph line, with severities."""
        return "\n".join(f"[{severity}] {message}" for severity, message in self.lines)

    def opset(self) -> int | None:
        """The opset of the parsed file, which every parser from 8.4 on logs; None where it did not."""
        found = re.search(r"Opset version:\s*(\d+)", self.text())
        return int(found[1]) if found else None


def _logger(trt: Any, add: Callable[[str, str], None]) -> Any:
    """An ILogger made here, because its base class exists only once TensorRT is imported."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            add(severity.name, message)

    return Logger()


def require_can_run(driver: Driver | None = None) -> TensorRT:
    """The TensorRT that runs engines here. Building needs less: see `toolkit.export.engine_from_onnx`.

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
            fix="use --backend ort here, or copy the bundle to the device",
        )
    return found
