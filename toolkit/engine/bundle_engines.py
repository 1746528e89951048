"""Engines in a bundle: with the TensorRT that is here, numpy alone beside it, and all of them or none."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from toolkit.bundle.manifest import SAVED, VARIANTS
from toolkit.bundle.reading import Bundle, bundle_from_folder, names_of, opened_bundle
from toolkit.bundle.sealing import manifest_text
from toolkit.engine.build import BuildSettings
from toolkit.engine.engine_from_onnx import Engine, engine_from_onnx
from toolkit.engine.failure import log_path
from toolkit.engine.monitor import WHOLE, overall
from toolkit.engine.planning import BuildOptions, BuildRequest, request_from_resolved, request_of_file, resolved_for
from toolkit.engine.requirements import require_can_build
from toolkit.engine.resolver import Resolved
from toolkit.engine.trials import Trials, fastest_that_passes
from toolkit.errors import EngineError
from toolkit.runtime.driver import probe_driver
from toolkit.runtime.trt.module import NEEDS_NO_GPU, TensorRT, find_tensorrt
from toolkit.storage.cache import private_folder
from toolkit.storage.documents import Document
from toolkit.storage.files import os_errors, sha256_of_file
from toolkit.storage.folders import folder_replaced, locked
from toolkit.storage.hints import Apart
from toolkit.target import DEFAULT_TARGET, Target, target_from_name
from toolkit.workspace import MANIFEST

Step = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Built(Document):
    """What `toolkit.build` returns, and toolkit build prints: engines that lie in a bundle.

    Attributes:
        bundle: its folder.
        engines: the manifest's entries of those that were built now.
        resolved: which file each is of, and why.
        notes: sentences for people.
        tensorrt: what built them; in memory only.
    """

    SCHEMA = "toolkit/build/1"
    ok: Literal[True]
    bundle: Path
    engines: tuple[dict[str, Any], ...]
    resolved: tuple[Resolved, ...]
    notes: tuple[str, ...]
    tensorrt: Apart[TensorRT | None] = None


def tensorrt_for_target(target: Target) -> TensorRT:
    """The TensorRT that is here, if it builds engines for a target.

    Raises:
        BackendUnavailable: none builds here. EngineError: it is of another kind, version, machine or GPU than the
            target's.
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


def build(
    bundle: str | os.PathLike[str] | Bundle | None = None,
    precisions: str | Sequence[str] = "best",
    target: str | Target = DEFAULT_TARGET,
    options: BuildOptions = BuildOptions(),
    *,
    on_step: Step = lambda what, done, total: None,
) -> Built:
    """Builds engines into BUNDLE/engines/ with the TensorRT that is here, each with a JSON sidecar and TensorRT's log.

    Args:
        bundle: the folder, or an opened bundle; the newest of the workspace where there is none.
        precisions: of "fp32", "fp16", "int8" and "best" for this TensorRT, in a list or with commas.
        target: what for: a file in export/, such as "jetpack61", or a value.
        on_step: called with (what is being done, done, total); a total of 0 is not known.

    Raises:
        ToolkitError: not a bundle, no TensorRT that serves the target, or an engine that was not built. Nothing has
            changed then.
    """
    opened = opened_bundle(bundle, packed=False)
    chosen, notes = options.applied_to(target if isinstance(target, Target) else target_from_name(target))
    trials = Trials(options.repeats) if options.check else None
    built = build_engines(opened, names_of(precisions), chosen, on_step, trials)
    return replace(built, notes=(*notes, *built.notes))


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
        trials: run each engine, build it several times, keep the fastest that passes; None builds once and runs none.

    Raises:
        BackendUnavailable, EngineError: see `tensorrt_for_target`, `resolve`, `engine_from_onnx`, `Trials`.
    """
    tensorrt = tensorrt_for_target(target)
    resolved = resolved_for(bundle, precisions, tensorrt, target)
    if trials is not None:
        trials.require_can_run(tensorrt)
    requests = [request_from_resolved(bundle, answer, target, tensorrt) for answer in resolved]
    with _alone_with(bundle) as bundle, folder_replaced(bundle.folder, owned_by=MANIFEST) as fresh:
        _copy(bundle, fresh)
        maker = _Maker(fresh, target, tensorrt, on_step, bundle.folder / "engines")
        made = [maker.built(one) if trials is None else maker.drawn(one, bundle, trials) for one in requests]
        entries = [_entry(engine, request, target) for engine, request in zip(made, requests, strict=True)]
        files = {entry["file"] for entry in entries}
        kept = [entry for entry in bundle.engines() if entry["file"] not in files]
        own = bundle.manifest["files"].keys() | files | {f"{file}.json" for file in files}
        hashes = {name: entry for name, entry in files_of_folder(fresh).items() if name in own}
        manifest = {**bundle.manifest, "engines": kept + entries, "files": hashes}
        (fresh / MANIFEST).write_text(manifest_text(manifest))
    return Built(True, bundle.folder.resolve(), tuple(entries), resolved, _notes(made), tensorrt)


def _copy(bundle: Bundle, fresh: Path) -> None:
    """Everything that lies in a bundle's folder; its own files with the bytes that were hashed when it was opened."""
    shutil.copytree(bundle.folder, fresh, dirs_exist_ok=True)
    for name in bundle.manifest["files"]:
        (fresh / name).unlink(missing_ok=True)
        (fresh / name).write_bytes(bundle.files.content(name).data)


@contextmanager
def _alone_with(bundle: Bundle) -> Iterator[Bundle]:
    """The bundle as it is once no other process builds into it: the second of two keeps what the first built."""
    lock = Path(os.path.realpath(bundle.folder))
    with ExitStack() as stack:
        with os_errors(bundle.folder):
            stack.enter_context(locked(lock.with_name(f".{lock.name}.build.lock")))
        yield bundle_from_folder(bundle.folder, wanted=bundle.wanted)


def engines_of_files(
    folder: Path, sources: tuple[str, ...], target: Target, tensorrt: TensorRT, on_step: Step
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """An engine of each ONNX file of a bundle's folder, in `engines/`: the manifest's entries, sentences for people."""
    maker = _Maker(folder, target, tensorrt, on_step, folder / "engines")
    requests = [request_of_file(source) for source in sources]
    made = [maker.built(request) for request in requests]
    return [_entry(engine, request, target) for engine, request in zip(made, requests, strict=True)], _notes(made)


@dataclass(frozen=True)
class _Maker:
    """Builds engines into a bundle's folder; `failed_logs` outlives the folder if a build fails."""

    folder: Path
    target: Target
    tensorrt: TensorRT
    on_step: Step
    failed_logs: Path

    def built(self, request: BuildRequest) -> Engine:
        """One engine, with the timings that earlier builds left."""
        return self.build(request, self.plan(request), keep_timings=True)

    def drawn(self, request: BuildRequest, bundle: Bundle, trials: Trials) -> Engine:
        """The fastest of several that passes. No timing cache: with it the second build would be the first again."""

        def build(destination: Path) -> Engine:
            return self.build(request, destination, keep_timings=False)

        return fastest_that_passes(build, self.plan(request), bundle, request.precision, trials)

    def plan(self, request: BuildRequest) -> Path:
        """Where the engine goes."""
        return self.folder / "engines" / request.name

    def build(self, request: BuildRequest, destination: Path, keep_timings: bool) -> Engine:
        """One build, shown as a bar where TensorRT says how far it is, else as something that spins."""
        what = f"build {request.name} with {self.tensorrt.name}"
        watched = hasattr(self.tensorrt.module, "IProgressMonitor")
        self.on_step(what, 0, WHOLE if watched else 0)
        engine = engine_from_onnx(
            self.folder / VARIANTS[request.source].file,
            destination,
            batch=self.target.batch,
            settings=self.settings(request, keep_timings),
            on_progress=overall(lambda done: self.on_step(what, done, WHOLE)) if watched else None,
            failed_log=log_path(self.failed_logs / request.name),
        )
        self.on_step(what, WHOLE, WHOLE)
        return engine

    def settings(self, request: BuildRequest, keep_timings: bool) -> BuildSettings:
        """What the target says, as the builder takes it."""
        rtx = self.tensorrt.kind == NEEDS_NO_GPU
        return BuildSettings(
            compute_capabilities=self.target.compute_capabilities if rtx else (),
            workspace_mib=self.target.workspace_mib,
            optimization_level=self.target.optimization_level,
            compatible=self.target.compatible,
            dla=request.dla,
            timing_cache=private_folder("timing") if keep_timings else None,
        )


def _notes(made: list[Engine]) -> tuple[str, ...]:
    """What the builds have to say, each sentence once."""
    return tuple(dict.fromkeys(note for engine in made for note in engine.notes))


def _entry(engine: Engine, request: BuildRequest, target: Target) -> dict[str, Any]:
    """An engine's entry in the manifest, without the long list of what was fused."""
    layer_report = engine.sidecar["census"]
    return {
        "file": f"engines/{engine.path.name}",
        "precision": request.precision,
        "target": target.name,
        "tensorrt": engine.sidecar["tensorrt"],
        "onnx_sha256": engine.sidecar["onnx"]["sha256"],
        "dla_core": engine.sidecar["dla_core"],
        "census": layer_report and {key: value for key, value in layer_report.items() if key != "fused"},
        "census_reason": engine.sidecar["census_reason"],
        "build_seconds": engine.sidecar["build_seconds"],
    }


def files_of_folder(folder: Path) -> dict[str, dict[str, Any]]:
    """sha256 and size of every file in a bundle, by its path inside, but of what is one machine's alone."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not _is_apart(path.relative_to(folder)))
    return {
        path.relative_to(folder).as_posix(): {"sha256": sha256_of_file(path), "bytes": path.stat().st_size}
        for path in paths
    }


def _is_apart(path: Path) -> bool:
    """The manifest itself, logs of engine builds, what selftest saved: a bundle is whole with and without them."""
    logs, saved = path.match("engines/*.log"), path.match(f"{SAVED}*.json") and len(path.parts) == 1
    return path == Path(MANIFEST) or logs or saved
