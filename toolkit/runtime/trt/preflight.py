"""Is this plan what its sidecar says, and can it run here? Asked before TensorRT sees a byte of it.

A plan is code: TensorRT's guide says to load only plans that one trusts. One that another TensorRT or GPU built ends in
an error of TensorRT's own, or in a crash where there is no driver; here it ends in one sentence. numpy is not needed.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import BackendUnavailable, EngineError
from toolkit.runtime.driver import Driver
from toolkit.runtime.trt.module import NEEDS_NO_GPU, TensorRT, find_tensorrt, installed_tensorrts
from toolkit.runtime.trt.sidecar import Sidecar
from toolkit.storage.files import Content, content_of, json_object, os_errors
from toolkit.storage.limits import DOCUMENT_BYTES, FILE_BYTES

SIDECAR_FORMAT = 1
# Of the ComputeCapability enum of TensorRT-RTX 1.7.1; Jetsons and data-center GPUs have others.
RTX_CAPABILITIES = ("SM75", "SM80", "SM86", "SM89", "SM120", "SM121")


def sidecar_path(plan: Path) -> Path:
    """`model.engine` has `model.engine.json`."""
    return plan.with_name(f"{plan.name}.json")


@dataclass(frozen=True)
class Plan:
    """A plan's bytes, where they lay, and the sidecar whose hash they have."""

    path: Path
    sidecar: dict[str, Any]
    data: bytes


def plan_of_file(path: Path, rebuild: str = "`toolkit.build(BUNDLE)`") -> Plan:
    """A plan and the sidecar beside it.

    Args:
        rebuild: what to do where the plan cannot be used.

    Raises:
        EngineError: there is no plan or no sidecar, it is of a newer format, or the plan was cut short or changed.
    """
    with os_errors(path, "read"):
        there = path.exists()
    if not there:
        raise EngineError(f"there is no engine {path}", fix=rebuild)
    if path.is_dir():
        inside = ", ".join(sorted(str(engine) for engine in (path / "engines").glob("*.engine")))
        raise EngineError(f"{path} is a folder, not an engine", found=inside or "no engines in it", fix=rebuild)
    beside = sidecar_path(path)
    if not beside.exists():
        raise EngineError(
            f"{path} has no sidecar, so nothing says what built it for which GPU",
            found=f"no {beside.name} beside it",
            fix=rebuild,
        )
    sidecar = content_of(beside, DOCUMENT_BYTES, EngineError)
    return checked_plan(content_of(path, FILE_BYTES, EngineError), sidecar, rebuild)


def sidecar_of_plan(plan: Path, rebuild: str = "`toolkit.build(BUNDLE)`") -> dict[str, Any]:
    """The sidecar, whose hash is that of the plan's bytes; see `plan_of_file`."""
    return plan_of_file(plan, rebuild).sidecar


def checked_plan(plan: Content, sidecar: Content, rebuild: str) -> Plan:
    """A plan that is the one of its sidecar.

    Raises:
        EngineError: the sidecar is none, or of a newer format; or the plan was cut short or changed.
    """
    found = _sidecar(sidecar, rebuild)
    size, wanted = len(plan.data), found["plan"]
    if size != wanted["bytes"]:
        raise EngineError(
            f"{plan.path} was cut short or replaced",
            found=f"{size:,} bytes",
            allowed=f"{wanted['bytes']:,} bytes, as its sidecar says",
            fix=f"copy it again, or {rebuild}",
        )
    if plan.sha256 != wanted["sha256"]:
        raise EngineError(
            f"{plan.path} changed since it was built",
            found=f"sha256 {plan.sha256[:16]}...",
            allowed=f"{wanted['sha256'][:16]}..., as its sidecar says",
            fix=f"copy it again, or {rebuild}",
        )
    return Plan(plan.path, found, plan.data)


def _sidecar(content: Content, rebuild: str) -> dict[str, Any]:
    sidecar, path = json_object(content, EngineError), content.path
    if sidecar.get("format") != SIDECAR_FORMAT:
        raise EngineError(
            f"{path} has a format that this version cannot read", found=sidecar.get("format"), allowed=SIDECAR_FORMAT
        )
    Sidecar.from_dict(sidecar, str(path), error=EngineError, fix=rebuild)
    return sidecar


def obstacle_to_running(sidecar: dict[str, Any], tensorrt: TensorRT, driver: Driver) -> str:
    """Why a plan cannot run here, in one clause; empty where nothing speaks against it.

    Full TensorRT's plans belong to one version and one GPU model, unless they were built VERSION_COMPATIBLE (then also
    to later versions, the lean and the dispatch runtime) or hardware compatible; TensorRT-RTX's to one version and
    the compute capabilities they were built for (NVIDIA's support policies).
    """
    built, maker = sidecar["tensorrt"], sidecar["builder"]
    if maker.get("machine") != platform.machine():
        return f"it was built on {maker.get('machine')}, and this is {platform.machine()}"
    if not driver.available:
        return driver.reason
    compatible = "VERSION_COMPATIBLE" in sidecar["flags"]
    serves = {"tensorrt": ("tensorrt", "lean", "dispatch") if compatible else ("tensorrt",)}
    if tensorrt.kind not in serves.get(built["kind"], (built["kind"],)):
        return f"{built['kind']} {built['version']} built it, and {tensorrt.name} is here"
    if not _version_fits(built["version"], tensorrt.version, compatible):
        return f"TensorRT {built['version']} built it, and {tensorrt.version} is here: plans do not outlive an upgrade"
    here = driver.devices[0].compute_capability
    if built["kind"] == NEEDS_NO_GPU:
        targets = tuple(sidecar["compute_capabilities"]) or RTX_CAPABILITIES
        return (
            "" if here in targets else f"it was built for {', '.join(targets)}, and {driver.devices[0].name} is {here}"
        )
    if sidecar.get("compatible") == "hardware" and _is_ampere_or_later(here):
        return ""
    if maker.get("compute_capability") != here or maker.get("device") != driver.devices[0].name:
        return (
            f"it was built for {maker.get('device')} ({maker.get('compute_capability')}), "
            f"and {driver.devices[0].name} ({here}) is here"
        )
    return ""


def _is_ampere_or_later(compute_capability: str) -> bool:
    """HardwareCompatibilityLevel.AMPERE_PLUS: SM80 and up."""
    number = compute_capability.removeprefix("SM")
    return number.isdecimal() and int(number) >= 80


def _version_fits(built: str, here: str, compatible: bool) -> bool:
    """The same version; with version compatibility also a later one of the same or the next major number."""
    if built == here:
        return True
    before, now = (tuple(int(part) for part in text.split(".")[:3] if part.isdecimal()) for text in (built, here))
    # 8 -> 10 (there was no 9 for the desktop and Jetson) and 10 -> 11 are the only pairs that the guide names.
    pairs = {(8, 10), (10, 11)}
    return compatible and now >= before and (before[:1] == now[:1] or (before[0], now[0]) in pairs)


def require_runs_here(plan: Path, sidecar: dict[str, Any], tensorrt: TensorRT, driver: Driver, rebuild: str) -> None:
    """Refuses a plan that another machine, version or GPU built.

    Raises:
        BackendUnavailable: there is no driver. EngineError: the plan is for something else; with what rebuilds it.
    """
    obstacle = obstacle_to_running(sidecar, tensorrt, driver)
    if not obstacle:
        return
    if not driver.available:
        raise BackendUnavailable(
            f"{plan.name} cannot run here", found=obstacle, allowed="a machine with an NVIDIA GPU and its driver"
        )
    raise EngineError(f"{plan.name} is not for this machine", found=obstacle, fix=rebuild)


def tensorrt_for_plan(sidecar: dict[str, Any], driver: Driver) -> TensorRT:
    """Of the TensorRTs that are installed, the one that the plan is for; where none is, the one that gets furthest.

    Raises:
        BackendUnavailable: none imports.
    """
    fitting = (found for found in installed_tensorrts() if not obstacle_to_running(sidecar, found, driver))
    return next(fitting, None) or find_tensorrt(driver=driver)
