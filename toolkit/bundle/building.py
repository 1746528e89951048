"""Engines in a bundle: with the TensorRT that is here, numpy alone beside it, and all of them or none."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from toolkit.bundle.reading import ONNX_FILES, Bundle
from toolkit.bundle.repeating import Trials, fastest_that_passes
from toolkit.errors import EngineError
from toolkit.export.build_failure import log_path
from toolkit.export.build_monitor import WHOLE, overall
from toolkit.export.dla import Dla
from toolkit.export.engine_from_onnx import BuildSettings, Engine, engine_from_onnx
from toolkit.export.requirements import require_can_build
from toolkit.export.resolver import Resolved, resolve, resolve_for_dla
from toolkit.export.target import Target
from toolkit.export.timing_cache import timing_cache_folder
from toolkit.files import folder_replaced, json_text, os_errors, sha256_of_file
from toolkit.runtime.driver import probe_driver
from toolkit.runtime.trt import NEEDS_NO_GPU, TensorRT, find_tensorrt
from toolkit.workspace import MANIFEST

Step = Callable[[str, int, int], None]
CALIB_CACHE = "calib.cache"


@dataclass(frozen=True)
class Built:
    """What `build_engines` left in a bundle: the manifest's entries, what each is of, why, and sentences for people."""

    engines: tuple[dict[str, Any], ...]
    resolved: tuple[Resolved, ...]
    tensorrt: TensorRT
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Order:
    """One engine to build.

    Attributes:
        source: the precision of its ONNX file, a key of `ONNX_FILES`.
        precision: its own; INT8 for a DLA may come from the fp32 file and `calib.cache`.
        name: of the plan in `engines/`.
    """

    source: str
    precision: str
    name: str
    dla: Dla | None = None


def tensorrt_for_target(target: Target) -> TensorRT:
    """The TensorRT that is here, if it builds engines for a target.

    Raises:
        BackendUnavailable: none builds here. EngineError: it is of another kind, version or machine than the target's.
    """
    if target.refused:
        raise EngineError(f"no engine is built for {target.name}", found=target.refused)
    driver = probe_driver()
    tensorrt = require_can_build(find_tensorrt(driver=driver), driver)
    gpu = driver.devices[0].compute_capability if driver.devices else None
    obstacle = target.obstacle(tensorrt.kind, tensorrt.version, platform.machine(), gpu)
    if obstacle:
        raise EngineError(f"no engine for {target.name} is built here", found=obstacle)
    return tensorrt


def resolved_for(
    bundle: Bundle, precisions: tuple[str, ...], tensorrt: TensorRT, target: Target
) -> tuple[Resolved, ...]:
    """What each precision means for this TensorRT and target, each engine once."""
    answers = []
    for precision in precisions:
        if target.dla_core is None:
            answers.append(resolve(tensorrt, precision, bundle.precisions))
        else:
            has_cache = (bundle.folder / CALIB_CACHE).is_file()
            answers.append(resolve_for_dla(tensorrt, precision, bundle.precisions, has_cache))
    return tuple({(answer.source, answer.flags): answer for answer in answers}.values())


def build_engines(
    bundle: Bundle,
    precisions: tuple[str, ...],
    target: Target,
    on_step: Step = lambda what, done, total: None,
    trials: Trials | None = None,
) -> Built:
    """Builds into a copy of the bundle that takes its place when every engine is there; others stay as they were.

    TensorRT's log lies beside each engine, after a failure in the bundle's own `engines/`; no manifest names it.

    Args:
        precisions: of "fp32", "fp16", "int8" and "best".
        trials: build each engine several times and keep the fastest that passes; None builds once and trusts it.

    Raises:
        BackendUnavailable, EngineError: see `tensorrt_for_target`, `resolve`, `engine_from_onnx`, `Trials`.
    """
    tensorrt = tensorrt_for_target(target)
    resolved = resolved_for(bundle, precisions, tensorrt, target)
    if trials is not None:
        trials.require_can_run(tensorrt)
    orders = tuple(_order(bundle, answer, target, tensorrt) for answer in resolved)
    notes: list[str] = []
    with folder_replaced(bundle.folder, owned_by=MANIFEST) as fresh:
        shutil.copytree(bundle.folder, fresh, dirs_exist_ok=True)
        logs = bundle.folder / "engines"
        made = [
            _entry(_engine(fresh, order, target, tensorrt, on_step, logs, trials, bundle), order, target, notes)
            for order in orders
        ]
        files = {entry["file"] for entry in made}
        kept = [entry for entry in bundle.engines() if entry["file"] not in files]
        manifest = {**bundle.manifest, "engines": kept + made, "files": files_of_folder(fresh)}
        (fresh / MANIFEST).write_text(json_text(manifest))
    return Built(tuple(made), resolved, tensorrt, tuple(dict.fromkeys(notes)))


def engines_of_files(
    folder: Path, sources: tuple[str, ...], target: Target, tensorrt: TensorRT, on_step: Step
) -> list[dict[str, Any]]:
    """An engine of each ONNX file of a bundle's folder, in `engines/`; returns the manifest's entries."""
    orders = (Order(source, source, _plan_name(source)) for source in sources)
    return [_entry(_engine(folder, order, target, tensorrt, on_step), order, target, []) for order in orders]


def _order(bundle: Bundle, answer: Resolved, target: Target, tensorrt: TensorRT) -> Order:
    if target.dla_core is None:
        return Order(answer.source, answer.source, _plan_name(answer.source))
    cache = _calib_cache(bundle.folder / CALIB_CACHE, tensorrt) if answer.calib_cache else None
    precision = answer.precision if answer.source == "fp32" else answer.source
    name = f"model.{answer.precision}.dla{target.dla_core}.engine"
    return Order(answer.source, precision, name, Dla(target.dla_core, answer.flags, cache))


def _plan_name(source: str) -> str:
    return f"{Path(ONNX_FILES[source]).stem}.engine"


def _calib_cache(path: Path, tensorrt: TensorRT) -> bytes:
    """The bundle's ranges under the header of this TensorRT, which refuses any other version's."""
    from toolkit.calibration.cache import header, scales_from_cache

    with os_errors(path, "read"):
        text = path.read_text()
    scales_from_cache(text)
    version = tuple(int(part) for part in tensorrt.version.split(".")[:3])
    return "\n".join([header(version), *text.splitlines()[1:], ""]).encode()


def _engine(
    folder: Path,
    order: Order,
    target: Target,
    tensorrt: TensorRT,
    on_step: Step,
    failed_logs: Path | None = None,
    trials: Trials | None = None,
    bundle: Bundle | None = None,
) -> Engine:
    """One engine of a bundle's folder; with `trials` the fastest of several that passes."""
    plan = folder / "engines" / order.name
    what = f"build {order.name} with {tensorrt.name}"
    watched = hasattr(tensorrt.module, "IProgressMonitor")
    on_step(what, 0, WHOLE if watched else 0)

    def build(destination: Path, keep_timings: bool) -> Engine:
        return engine_from_onnx(
            folder / ONNX_FILES[order.source],
            destination,
            batch=target.batch,
            settings=_settings(target, tensorrt, order.dla, keep_timings),
            on_progress=overall(lambda done: on_step(what, done, WHOLE)) if watched else None,
            failed_log=log_path((failed_logs or plan.parent) / order.name),
        )

    if trials is None or bundle is None:
        engine = build(plan, True)
    else:
        # Without the timing cache: a second build with it would be the first one again.
        engine = fastest_that_passes(partial(build, keep_timings=False), plan, bundle, order.precision, trials)
    on_step(what, WHOLE, WHOLE)
    return engine


def _settings(target: Target, tensorrt: TensorRT, dla: Dla | None, keep_timings: bool) -> BuildSettings:
    return BuildSettings(
        compute_capabilities=target.compute_capabilities if tensorrt.kind == NEEDS_NO_GPU else (),
        workspace_mib=target.workspace_mib,
        optimisation_level=target.optimisation_level,
        compatible=target.compatible,
        dla=dla,
        timing_cache=timing_cache_folder() if keep_timings else None,
    )


def _entry(engine: Engine, order: Order, target: Target, notes: list[str]) -> dict[str, Any]:
    """An engine's entry in the manifest, without the long list of what was fused."""
    notes += engine.notes
    census = engine.sidecar["census"]
    return {
        "file": f"engines/{engine.path.name}",
        "precision": order.precision,
        "target": target.name,
        "tensorrt": engine.sidecar["tensorrt"],
        "onnx_sha256": engine.sidecar["onnx"]["sha256"],
        "dla_core": engine.sidecar["dla_core"],
        "census": census and {key: value for key, value in census.items() if key != "fused"},
        "build_seconds": engine.sidecar["build_seconds"],
    }


def files_of_folder(folder: Path) -> dict[str, dict[str, Any]]:
    """sha256 and size of every file in a bundle, by its path inside; but its manifest and the logs of engine builds."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not _is_apart(path.relative_to(folder)))
    return {
        path.relative_to(folder).as_posix(): {"sha256": sha256_of_file(path), "bytes": path.stat().st_size}
        for path in paths
    }


def _is_apart(path: Path) -> bool:
    """A log is of one machine and one day: not part of the model, so a bundle is whole with it, without it, or with
    one that a failed build wrote anew.
    """
    return path == Path(MANIFEST) or (path.parts[0] == "engines" and path.suffix == ".log")
