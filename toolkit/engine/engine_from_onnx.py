"""Builds a TensorRT plan from an ONNX file: numpy and TensorRT alone, with RTX also on a machine without a GPU."""

from __future__ import annotations

import contextlib
import hashlib
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.engine.build import Build, BuildSettings
from toolkit.engine.dla import require_dla, why_no_dla
from toolkit.engine.failure import log_path, write_log
from toolkit.engine.monitor import Monitor, Progress, interruptible
from toolkit.engine.requirements import (
    require_arguments,
    require_can_build,
    require_capabilities,
    require_compatible,
)
from toolkit.errors import EngineError
from toolkit.runtime.driver import Driver, probe_driver
from toolkit.runtime.trt.layer_report import LayerReport
from toolkit.runtime.trt.module import NEEDS_NO_GPU, Log, TensorRT, find_tensorrt
from toolkit.runtime.trt.preflight import SIDECAR_FORMAT, sidecar_path
from toolkit.storage.files import sha256_of_file, write_bytes, write_json


@dataclass(frozen=True)
class Engine:
    """A plan on disk, the sidecar beside it (`<path>.json`), its layers, where TensorRT named them, and what to say.

    Attributes:
        notes: sentences for people: layers that the GPU keeps, a timing cache that was no use.
    """

    path: Path
    sidecar: dict[str, Any]
    layer_report: LayerReport | None
    notes: tuple[str, ...] = ()


def engine_from_onnx(
    onnx: Path,
    destination: Path,
    *,
    batch: tuple[int, int, int] = (1, 8, 64),
    settings: BuildSettings = BuildSettings(),  # frozen
    on_progress: Progress | None = None,
    failed_log: Path | None = None,
) -> Engine:
    """Builds a plan and writes it whole, its bytes untouched, with `<destination>.json` and `.log` beside it.

    The sidecar's hash of the model covers the ONNX file itself, not weights kept in files beside it.
    Ctrl-C ends the build at the next step (where TensorRT has a progress monitor) and leaves nothing behind.

    Args:
        batch: the smallest, the best served and the largest batch; inputs of a fixed size ignore it.
        settings: everything else that TensorRT may be told; by default what it does by itself.
        on_progress: called with (phase, steps done, steps) from another thread.
        failed_log: where TensorRT's log goes if the build fails; None puts it where it also goes after a success.

    Raises:
        BackendUnavailable: no TensorRT that builds, or a full TensorRT without a driver.
        EngineError: an argument, the file, or a node of it is refused, or the build failed; with cause and cure, where
            they are known, TensorRT's words, and the path of its log.
    """
    onnx, destination = Path(onnx), Path(destination)
    require_arguments(onnx, batch, settings.workspace_mib, settings.optimization_level)
    if destination.resolve() == onnx.resolve():
        raise EngineError("the engine would overwrite its ONNX file", found=destination, fix="name another file")
    driver = probe_driver()
    tensorrt = require_can_build(find_tensorrt(driver=driver), driver)
    require_capabilities(tensorrt, driver, settings.compute_capabilities)
    require_compatible(tensorrt, settings.compatible)
    if settings.dla is not None and why_no_dla(tensorrt):
        require_dla(tensorrt, None, driver, settings.dla.core, batch)
    log, started, monitor = Log(tensorrt.module), time.perf_counter(), Monitor(on_progress)
    build = Build(tensorrt, driver, log, onnx, batch, settings, failed_log or log_path(destination))
    plan, layer_report, facts = interruptible(lambda: build.run(monitor), monitor)
    sidecar = {
        "format": SIDECAR_FORMAT,
        "tensorrt": {"kind": tensorrt.kind, "version": tensorrt.version},
        "builder": _builder(tensorrt, driver),
        "compute_capabilities": list(settings.compute_capabilities),
        "onnx": {"file": onnx.name, "sha256": sha256_of_file(onnx)},
        "plan": {"sha256": hashlib.sha256(plan).hexdigest(), "bytes": len(plan)},
        **facts,
        "build_seconds": round(time.perf_counter() - started, 3),
        "census": None if layer_report is None else layer_report.as_dict(),
    }
    _write_both(destination, plan, sidecar)
    write_log(log_path(destination), log)
    return Engine(destination, sidecar, layer_report, tuple(build.notes))


def _write_both(destination: Path, plan: bytes, sidecar: dict[str, Any]) -> None:
    """Plan and sidecar, or neither: a plan without its sidecar could not be trusted."""
    write_bytes(destination, plan)
    try:
        write_json(sidecar_path(destination), sidecar)
    except BaseException:
        with contextlib.suppress(OSError):
            destination.unlink()
        raise


def _builder(tensorrt: TensorRT, driver: Driver) -> dict[str, Any]:
    """Where the plan was made: engines of full TensorRT belong to this GPU model."""
    device = driver.devices[0] if driver.devices else None
    portable = "portable, built without a GPU" if device is None else "portable"
    return {
        "device": None if device is None else device.name,
        "compute_capability": None if device is None else device.compute_capability,
        "machine": platform.machine(),
        "note": portable if tensorrt.kind == NEEDS_NO_GPU else "for this GPU model and TensorRT version only",
    }
