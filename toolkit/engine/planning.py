"""Which engines a bundle gets and why, from the manifest, the target and TensorRT's names: nothing of it is started.

A machine without a GPU can answer: importing TensorRT needs no driver, its Builder and Runtime do (without one they may
end the process). For a target that names its version not even TensorRT is needed.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, Literal

from toolkit.bundle.manifest import VARIANTS
from toolkit.bundle.reading import Bundle
from toolkit.engine.dla import Dla
from toolkit.engine.requirements import require_can_build
from toolkit.engine.resolver import Resolved, resolve, resolve_for_dla
from toolkit.errors import BackendUnavailable, CalibrationError, EngineError
from toolkit.runtime.driver import Driver, probe_driver
from toolkit.runtime.trt.module import TensorRT, described, find_tensorrt, installed_tensorrts
from toolkit.storage.documents import Document
from toolkit.storage.files import Content
from toolkit.storage.hints import Apart
from toolkit.target import Target, require_batch

CALIB_CACHE = "calib.cache"  # as `toolkit.quantization.calib_cache` names it, which a device need not import


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What engines are built with instead of what their target says; None leaves that as it is.

    Attributes:
        batch: smallest, best served and largest batch.
        dla_core: put layers on this core of a Jetson's DLA; the GPU takes the rest.
        workspace_mib: scratch memory that a layer may use.
        optimization_level: 0 builds fastest, 5 tries most kernels.
        compatible: "version" (the plan also loads in later TensorRTs) or "hardware" (also on other GPUs).
        check: run each engine on the golden images; one that answers otherwise is not kept.
        repeats: with `check`: build so often and keep the fastest that passes.

    Raises:
        EngineError: `repeats` without `check`, or sizes of a batch that do not rise.
    """

    batch: tuple[int, int, int] | None = None
    dla_core: int | None = None
    workspace_mib: int | None = None
    optimization_level: int | None = None
    compatible: str | None = None
    check: bool = False
    repeats: int = 1

    def __post_init__(self) -> None:
        if self.repeats != 1 and not self.check:
            raise EngineError("which of several builds is best shows only when they run", fix="`repeats=N, check=True`")
        if self.batch is not None:
            require_batch(*self.batch)

    def applied_to(self, target: Target) -> tuple[Target, tuple[str, ...]]:
        """The target as it is built for, and what there is to say: a DLA takes one batch size."""
        names = ("batch", "dla_core", "workspace_mib", "optimization_level", "compatible")
        chosen = replace(target, **{name: getattr(self, name) for name in names if getattr(self, name) is not None})
        if chosen.dla_core is None or self.batch is not None:
            return chosen, ()
        size = chosen.batch[1]
        note = f"the DLA takes one batch size: {size}, which the target serves best; `batch=(8, 8, 8)` says another"
        return replace(chosen, batch=(size, size, size)), (note,)


@dataclass(frozen=True)
class BuildRequest:
    """One engine to build.

    Attributes:
        source: the precision of its ONNX file, a key of `VARIANTS`.
        precision: its own; INT8 for a DLA may come from the fp32 file and `calib.cache`.
        name: of the plan in `engines/`.
    """

    source: str
    precision: str
    name: str
    dla: Dla | None = None


def resolved_for(
    bundle: Bundle, precisions: tuple[str, ...], tensorrt: TensorRT, target: Target
) -> tuple[Resolved, ...]:
    """What each precision means for this TensorRT and target, each engine once."""
    answers = []
    for precision in precisions:
        if target.dla_core is None:
            answers.append(resolve(tensorrt, precision, bundle.precisions))
        else:
            has_cache = CALIB_CACHE in bundle.files
            answers.append(resolve_for_dla(tensorrt, precision, bundle.precisions, has_cache))
    return tuple({(answer.source, answer.flags): answer for answer in answers}.values())


def request_of_file(source: str) -> BuildRequest:
    """The engine of an ONNX file as it stands."""
    return BuildRequest(source, source, VARIANTS[source].engine_file)


def request_from_resolved(bundle: Bundle, answer: Resolved, target: Target, tensorrt: TensorRT) -> BuildRequest:
    """The engine that an answer of the resolver asks for.

    Raises:
        CalibrationError: the bundle's `calib.cache` is none.
    """
    if target.dla_core is None:
        return request_of_file(answer.source)
    cache = _calib_cache(bundle.files.content(CALIB_CACHE), tensorrt) if answer.calib_cache else None
    precision = answer.precision if answer.source == "fp32" else answer.source
    name = f"model.{answer.precision}.dla{target.dla_core}.engine"
    return BuildRequest(answer.source, precision, name, Dla(target.dla_core, answer.flags, cache))


def _calib_cache(content: Content, tensorrt: TensorRT) -> bytes:
    """The bundle's ranges under the header of this TensorRT, which refuses any other version's."""
    from toolkit.quantization.calib_cache import header, scales_from_cache

    try:
        text = content.data.decode()
    except UnicodeDecodeError as error:
        raise CalibrationError(f"{content.path} is no calibration cache", found=error) from error
    scales_from_cache(text)
    version = tuple(int(part) for part in tensorrt.version.split(".")[:3])
    return "\n".join([header(version), *text.splitlines()[1:], ""]).encode()


@dataclass(frozen=True)
class Plan(Document):
    """What toolkit build would do, which toolkit build --explain prints.

    Attributes:
        tensorrt: the one that is here, or, where that is not the target's, the target's own.
        resolved: which file each engine comes from, and why.
        builds_here: on this machine.
        obstacle: why not; null where it does.
        described: what that TensorRT can do; in memory only.
    """

    SCHEMA = "toolkit/build-plan/1"
    ok: Literal[True]
    tensorrt: str
    resolved: tuple[Resolved, ...]
    builds_here: bool
    obstacle: str | None
    described: Apart[TensorRT | None] = None


def plan_of_build(bundle: Bundle, precisions: tuple[str, ...], target: Target) -> Plan:
    """Says what `build_engines` would build with the same arguments, here or on the target's own device.

    Args:
        precisions: of "fp32", "fp16", "int8" and "best".

    Raises:
        EngineError: nothing is built for this target at all, or it names no version and another kind is here.
        BackendUnavailable: there is no TensorRT, and the target names no version.
    """
    if target.refused:
        raise EngineError(f"no engine is built for {target.name}", found=target.refused)
    tensorrt, obstacle = _tensorrt_of_target(target, probe_driver())
    resolved = resolved_for(bundle, precisions, tensorrt, target)
    return Plan(True, tensorrt.name, resolved, not obstacle, obstacle or None, tensorrt)


def _tensorrt_of_target(target: Target, driver: Driver) -> tuple[TensorRT, str]:
    """The TensorRT that would build for a target, and why it cannot here."""
    try:
        first = find_tensorrt(driver=driver)
    except BackendUnavailable as error:
        if not target.tensorrt_version:
            raise
        return expected_tensorrt(target), error.in_one_line()
    found = next((here for here in (first, *installed_tensorrts()) if _serves(here, target)), None)
    obstacle = _obstacle(found or first, target, driver)
    if found is not None:
        return found, obstacle
    if not target.tensorrt_version:
        what = f"what {target.name} gets cannot be said here"
        raise EngineError(what, found=obstacle, fix="name a target that has a version, such as jetpack61")
    return expected_tensorrt(target), obstacle


def _serves(here: TensorRT, target: Target) -> bool:
    """Whether this TensorRT would build for a target on the target's own machine and GPU."""
    machine, gpu = target.machine or platform.machine(), next(iter(target.gpus), None)
    return here.can_build and not target.obstacle(here.kind, here.version, machine, gpu)


def _obstacle(here: TensorRT, target: Target, driver: Driver) -> str:
    """Why this machine builds nothing for a target; empty where it does."""
    gpu = driver.devices[0].compute_capability if driver.devices else None
    other = target.obstacle(here.kind, here.version, platform.machine(), gpu)
    if other:
        return other
    try:
        require_can_build(here, driver)
    except BackendUnavailable as error:
        return error.in_one_line()
    return ""


def expected_tensorrt(target: Target) -> TensorRT:
    """A description of the TensorRT of a target that names its version, with the names that decide what it builds.

    They are as read off the wheels of 8.6 to 11.4: strong typing came with 10; calibrators and the flags for FP16 and
    INT8 went with 11.
    """
    major = target.tensorrt_version[0]
    flags = {"EXPLICIT_BATCH": 0} if major < 10 else {"STRONGLY_TYPED": 1}
    names: dict[str, Any] = {
        "__version__": ".".join(map(str, target.tensorrt_version)),
        "Builder": object,
        "OnnxParser": object,
        "NetworkDefinitionCreationFlag": SimpleNamespace(**flags),
        "BuilderFlag": SimpleNamespace(**({"FP16": 0, "INT8": 1} if major < 11 else {})),
        **({"IInt8EntropyCalibrator2": object} if major < 11 else {}),
    }
    tensorrt = described(SimpleNamespace(**names), target.tensorrt[0])
    return replace(tensorrt, reasons=(f"{tensorrt.name} is not here: what it does is known from its version",))
