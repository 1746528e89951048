"""Engines in a bundle: with the TensorRT that is here, numpy alone beside it, and all of them or none."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.bundle.reading import ONNX_FILES, Bundle
from toolkit.errors import EngineError
from toolkit.export.engine_from_onnx import engine_from_onnx
from toolkit.export.requirements import require_can_build
from toolkit.export.resolver import Resolved, resolve
from toolkit.export.target import Target
from toolkit.files import folder_replaced, json_text, sha256_of_file
from toolkit.runtime.driver import probe_driver
from toolkit.runtime.trt import NEEDS_NO_GPU, TensorRT, find_tensorrt
from toolkit.workspace import MANIFEST

Step = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Built:
    """What `build_engines` left in a bundle: the manifest's entries, what each is of, and why."""

    engines: tuple[dict[str, Any], ...]
    resolved: tuple[Resolved, ...]
    tensorrt: TensorRT


def tensorrt_for_target(target: Target) -> TensorRT:
    """The TensorRT that is here, if it builds engines for a target.

    Raises:
        BackendUnavailable: none builds here. EngineError: it is of another kind, version or machine than the target's.
    """
    driver = probe_driver()
    tensorrt = require_can_build(find_tensorrt(driver=driver), driver)
    obstacle = target.obstacle(tensorrt.kind, tensorrt.version, platform.machine())
    if obstacle:
        raise EngineError(f"no engine for {target.name} is built here", found=obstacle)
    return tensorrt


def resolved_for(bundle: Bundle, precisions: tuple[str, ...], tensorrt: TensorRT) -> tuple[Resolved, ...]:
    """What each precision means for this TensorRT, each file once."""
    answers = (resolve(tensorrt, precision, bundle.precisions) for precision in precisions)
    return tuple({answer.source: answer for answer in answers}.values())


def build_engines(
    bundle: Bundle,
    precisions: tuple[str, ...],
    target: Target,
    on_step: Step = lambda what, done, total: None,
) -> Built:
    """Builds into a copy of the bundle that takes its place when every engine is there; others stay as they were.

    Args:
        precisions: of "fp32", "fp16", "int8" and "best".

    Raises:
        BackendUnavailable, EngineError: see `tensorrt_for_target`, `resolve` and `engine_from_onnx`.
    """
    tensorrt = tensorrt_for_target(target)
    resolved = resolved_for(bundle, precisions, tensorrt)
    with folder_replaced(bundle.folder, owned_by=MANIFEST) as fresh:
        shutil.copytree(bundle.folder, fresh, dirs_exist_ok=True)
        made = engines_of_files(fresh, tuple(answer.source for answer in resolved), target, tensorrt, on_step)
        files = {entry["file"] for entry in made}
        kept = [entry for entry in bundle.engines() if entry["file"] not in files]
        manifest = {**bundle.manifest, "engines": kept + made, "files": files_of_folder(fresh)}
        (fresh / MANIFEST).write_text(json_text(manifest))
    return Built(tuple(made), resolved, tensorrt)


def engines_of_files(
    folder: Path, sources: tuple[str, ...], target: Target, tensorrt: TensorRT, on_step: Step
) -> list[dict[str, Any]]:
    """An engine of each ONNX file of a bundle's folder, in `engines/`; returns the manifest's entries."""
    entries = []
    for index, precision in enumerate(sources):
        on_step(f"build engines with {tensorrt.name}", index, len(sources))
        source = folder / ONNX_FILES[precision]
        engine = engine_from_onnx(
            source,
            folder / "engines" / f"{source.stem}.engine",
            batch=target.batch,
            compute_capabilities=target.compute_capabilities if tensorrt.kind == NEEDS_NO_GPU else (),
            workspace_mib=target.workspace_mib,
        )
        entries.append(
            {
                "file": f"engines/{engine.path.name}",
                "precision": precision,
                "target": target.name,
                "tensorrt": engine.sidecar["tensorrt"],
                "onnx_sha256": engine.sidecar["onnx"]["sha256"],
                "census": engine.sidecar["census"],
                "build_seconds": engine.sidecar["build_seconds"],
            }
        )
    on_step(f"build engines with {tensorrt.name}", len(sources), len(sources))
    return entries


def files_of_folder(folder: Path) -> dict[str, dict[str, Any]]:
    """sha256 and size of every file in a bundle but its manifest, by its path inside."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    return {
        path.relative_to(folder).as_posix(): {"sha256": sha256_of_file(path), "bytes": path.stat().st_size}
        for path in paths
    }
