"""What a build needs before it starts: a TensorRT that builds, a driver where it wants one, arguments that it knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toolkit.errors import BackendUnavailable, EngineError
from toolkit.lazy import requirement
from toolkit.runtime.driver import Driver
from toolkit.runtime.trt.module import NEEDS_NO_GPU, TensorRT
from toolkit.storage.files import os_errors
from toolkit.target import COMPATIBLE

MOST_WORKSPACE_MIB = 1 << 20  # TensorRT takes bytes in 64 bits; no GPU has 1 TiB
OPTIMIZATION_LEVELS = range(6)  # builder_optimization_level: 0 builds fastest, 3 is the default, 5 tries most


def require_can_build(tensorrt: TensorRT, driver: Driver) -> TensorRT:
    """The same TensorRT, if it can build here.

    Raises:
        BackendUnavailable: it is a runtime only, or full TensorRT and there is no driver.
    """
    if not tensorrt.can_build:
        raise BackendUnavailable(
            f"{tensorrt.name} runs engines but cannot build them",
            allowed="tensorrt or tensorrt-rtx",
            fix=f"pip install {requirement('trt')}",
        )
    if tensorrt.kind != NEEDS_NO_GPU and not driver.available:  # its Builder may end the process
        raise BackendUnavailable(
            f"{tensorrt.name} builds engines only on a machine with a GPU",
            found=driver.reason,
            allowed="an NVIDIA driver with a GPU, or TensorRT-RTX, which builds without",
            fix=f"pip install {requirement('rtx')}, or run this on the device",
        )
    return tensorrt


def allowed_capabilities(trt: Any, driver: Driver) -> tuple[str, ...]:
    """Names that this TensorRT takes as compute capabilities; none for full TensorRT. CURRENT needs a GPU."""
    members = getattr(getattr(trt, "ComputeCapability", None), "__members__", {})
    unusable = {"NONE"} if driver.available else {"NONE", "CURRENT"}
    return tuple(name for name in members if name not in unusable)


def why_not_compatible(tensorrt: TensorRT, how: str) -> str:
    """Why this TensorRT makes no engine that outlives an upgrade ("version") or moves to another GPU ("hardware").

    Empty where it does. Read off its names, but for TensorRT-RTX, which has them without what they promise: a
    VERSION_COMPATIBLE build fails for want of libnvinfer_lean.so.1, and the hardware level is ignored (seen on 1.7.1).
    """
    if tensorrt.kind == NEEDS_NO_GPU:
        return {
            "version": f"{tensorrt.name} has no lean runtime to put into the plan",
            "hardware": f"{tensorrt.name} ignores the level: its plans name compute capabilities instead",
        }[how]
    trt = tensorrt.module
    if how == "version" and not hasattr(trt.BuilderFlag, "VERSION_COMPATIBLE"):
        return f"{tensorrt.name} has no VERSION_COMPATIBLE flag: it came with 8.6"
    if how == "hardware" and not hasattr(getattr(trt, "HardwareCompatibilityLevel", None), "AMPERE_PLUS"):
        return f"{tensorrt.name} has no HardwareCompatibilityLevel: it came with 8.6"
    return ""


def require_arguments(
    onnx: Path, batch: tuple[int, int, int], workspace_mib: int | None, optimization_level: int | None
) -> None:
    """What can be judged before TensorRT is imported.

    Raises:
        EngineError: the file is empty, or a number is out of range. ToolkitError: the file cannot be read.
    """
    with os_errors(onnx, "read"), onnx.open("rb") as stream:
        empty = not stream.read(1)
    if empty:
        raise EngineError(f"{onnx} is empty", found="0 bytes", allowed="an ONNX file", fix="export it again")
    if len(batch) != 3 or not 1 <= batch[0] <= batch[1] <= batch[2]:
        raise EngineError(
            "the batch range is not one", found=batch, allowed="1 <= min <= opt <= max, such as (1, 8, 64)"
        )
    if workspace_mib is not None and workspace_mib < 1:
        raise EngineError("workspace_mib is too small", found=workspace_mib, allowed="at least 1 MiB, or None")
    if workspace_mib is not None and workspace_mib > MOST_WORKSPACE_MIB:
        raise EngineError("workspace_mib is too large", found=workspace_mib, allowed=f"{MOST_WORKSPACE_MIB}, 1 TiB")
    if optimization_level is not None and optimization_level not in OPTIMIZATION_LEVELS:
        raise EngineError(
            "there is no such optimization level", found=optimization_level, allowed="0 (builds fastest) to 5, or None"
        )


def require_capabilities(tensorrt: TensorRT, driver: Driver, names: tuple[str, ...]) -> None:
    """Compute capabilities that this TensorRT builds for, each once.

    Raises:
        EngineError: another one; with those that are.
    """
    allowed = allowed_capabilities(tensorrt.module, driver)
    unknown = [name for name in names if name not in allowed]
    if not unknown and len(set(names)) == len(names):
        return
    raise EngineError(
        f"{tensorrt.name} cannot build for these compute capabilities",
        found=", ".join(unknown or names),
        allowed=f"each once: {', '.join(allowed)}" if allowed else "none: it builds for the GPU that it runs on",
    )


def require_compatible(tensorrt: TensorRT, how: str | None) -> None:
    """A kind of compatibility that this TensorRT has, or None.

    Raises:
        EngineError: there is no such kind, or this TensorRT lacks it; with the reason.
    """
    if how is None:
        return
    if how not in COMPATIBLE:
        raise EngineError("there is no such compatibility", found=how, allowed=", ".join(COMPATIBLE))
    reason = why_not_compatible(tensorrt, how)
    if reason:
        raise EngineError(
            f"{tensorrt.name} builds no {how}-compatible engine",
            found=reason,
            allowed="full TensorRT from 8.6 on",
            fix="leave `compatible=` out, and build again after an upgrade or on another GPU",
        )
