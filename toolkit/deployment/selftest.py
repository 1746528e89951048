"""Is this bundle still the same model on this device? Golden vectors, engines, speed; no torch, no onnx, seconds.

It is the guard after an upgrade of the driver, JetPack or ONNX Runtime: what answered before must answer again, an
engine that does not outlive the upgrade is named with what rebuilds it, and what became slower is seen.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from toolkit.bundle.manifest import SAVED, VARIANTS
from toolkit.bundle.reading import ALL, Bundle, names_of, opened_bundle
from toolkit.compare.parity import parity_from_logits
from toolkit.conditions.device import Device, device_fingerprint
from toolkit.contracts import LabeledImages, UInt8
from toolkit.deployment.openers import plan_of_bundle
from toolkit.deployment.runners import BACKENDS, Opened, open_runners, require_backends
from toolkit.errors import BackendUnavailable, EngineError, ToolkitError
from toolkit.runtime.driver import Driver, probe_driver
from toolkit.runtime.runner import Runner
from toolkit.runtime.runner_id import RunnerId
from toolkit.runtime.trt.module import MODULES
from toolkit.runtime.trt.preflight import obstacle_to_running, tensorrt_for_plan
from toolkit.storage.documents import Document
from toolkit.storage.files import read_json, write_json
from toolkit.storage.hints import Positive, Sha256
from toolkit.timing.latency import Latency, bench
from toolkit.version import __version__

Verdict = Literal["ok", "failed", "not run"]
OK: Final = "ok"
FAILED: Final = "failed"
NOT_RUN: Final = "not run"
UNKNOWN = "unknown"  # the version of a module that does not say
MOST_TRIES = 5  # to find this machine calm before its speed is saved
SLOWER = 1.5  # times the saved median: shared machines drift by less, a lost power mode costs more


@dataclass(frozen=True)
class Check(Document):
    """One thing that was looked at.

    Attributes:
        found: in words.
        fix: what to type or do where it failed; else empty.
    """

    what: str
    verdict: Verdict
    found: str
    fix: str = ""


@dataclass(frozen=True)
class Selftest(Document):
    """What toolkit selftest prints and toolkit.selftest(...) returns.

    Attributes:
        ok: nothing failed.
        bundle: its folder.
        manifest_sha256: of manifest.json's bytes.
        tool: version.
        recorded: this device's versions and medians were saved for later runs.
        not_run: the checks that could not be made here.
    """

    SCHEMA = "toolkit/selftest/1"
    ok: bool
    bundle: Path
    model: str
    manifest_sha256: Sha256
    tool: str
    recorded: bool
    checks: tuple[Check, ...]
    not_run: tuple[str, ...]


@dataclass(frozen=True)
class SavedSpeed(Document):
    """What a device did when it was saved: versions by name, median milliseconds at batch 1 by runner."""

    format: Literal[1]
    device: Device
    versions: dict[str, str]
    p50_ms: dict[str, Positive]


def versions_here() -> dict[str, str]:
    """What an upgrade changes: Python, numpy, and the engines that were imported.

    Bindings that are installed alone count as the front module that would wrap them: `tensorrt_rtx_bindings` is
    `tensorrt_rtx`, so that what was saved stays comparable when the front comes or goes.
    """
    found: dict[str, str] = {"python": platform.python_version(), "numpy": np.__version__}
    fronts: dict[str, str] = {}
    for module, kind in {"onnxruntime": "onnxruntime", **MODULES}.items():
        front = fronts.setdefault(kind, module)
        if module in sys.modules and found.get(front, UNKNOWN) == UNKNOWN:
            found[front] = str(getattr(sys.modules[module], "__version__", UNKNOWN))
    return found


def saved_file(bundle: Bundle, device: Device) -> Path:
    """One file a device, beside the manifest and not in it: a bundle that moves on takes them along."""
    digest = hashlib.sha256(json.dumps(device.as_dict(), sort_keys=True).encode()).hexdigest()
    return bundle.folder / f"{SAVED}{digest[:12]}.json"


def selftest(
    bundle: str | os.PathLike[str] | Bundle | None = None,
    *,
    backends: str | Sequence[str] = "all",
    seconds: float = 0.3,
    max_slowdown: float = SLOWER,
    save: bool = False,
) -> Selftest:
    """Every check that this device can make of a bundle: hashes, golden vectors, engines, and speed since it was saved.

    Args:
        bundle: the folder or tar, or an opened bundle; the newest of the workspace where there is none.
        backends: "all" that are here, or of "ort", "trt", "ort-cuda" and "ort-trt", in a list or with commas; one that
            is named must run.
        seconds: measuring time of each runner.
        max_slowdown: times the saved median that a median may reach.
        save: keep this device's versions and medians for later runs, if nothing failed. A runner that does not settle
            is measured again, and has failed where it never does: later runs would pass beside noise.

    Raises:
        BundleError: not a bundle, or changed. ToolkitError: an unknown backend, or what this device saved cannot be
            read or written.
    """
    here = tuple(name for name in BACKENDS if name != "torch")  # a device has none
    names, must_run = require_backends(backends, here), names_of(backends) != ALL
    bundle = opened_bundle(bundle)
    checks = _checks(bundle, names, seconds, max_slowdown, save, must_run)
    ok = not any(check.verdict == FAILED for check in checks)
    return Selftest(
        ok=ok,
        bundle=bundle.folder.resolve(),
        model=bundle.model,
        manifest_sha256=bundle.manifest_sha256,
        tool=__version__,
        recorded=save and ok,
        checks=tuple(checks),
        not_run=tuple(check.what for check in checks if check.verdict == NOT_RUN),
    )


def _checks(
    bundle: Bundle, backends: tuple[str, ...], seconds: float, max_slowdown: float, save: bool, must_run: bool
) -> list[Check]:
    driver = probe_driver()
    checks = [Check("files", OK, f"{len(bundle.manifest['files'])} files have the hashes of the manifest")]
    checks += _engines(bundle, driver)
    try:
        opened = open_runners(bundle, backends, bundle.precisions, by_name=False)
    except BackendUnavailable as error:
        return [*checks, Check("backends", FAILED, error.what, error.fix or "")]
    try:
        images, golden = bundle.golden()
        checks += [_golden(one, opened, images, golden) for one in opened.runners]
        runners = {str(name): runner for name, runner in opened.runners.items()}
        measured = _measured(runners, images.images_nhwc, seconds, MOST_TRIES if save else 1)
        medians = {latency.runner: latency.p50_ms for latency in measured}
        versions = versions_here()
    finally:
        opened.close()
    absent: Verdict = FAILED if must_run else NOT_RUN
    checks += [Check(str(name), absent, reason) for name, reason in opened.unavailable.items()]
    device = device_fingerprint(driver)
    path = saved_file(bundle, device)
    checks += _unsettled(measured) if save else _against_saved(path, versions, medians, max_slowdown)
    if save and not any(check.verdict == FAILED for check in checks):
        write_json(path, SavedSpeed(1, device, versions, medians).as_dict())
    return checks


def _measured(runners: dict[str, Runner], images_nhwc: UInt8, seconds: float, tries: int) -> list[Latency]:
    """A latency of each runner at batch 1; one that has not settled is measured again, so many times in all."""
    found: dict[str, Latency] = {}
    for _ in range(tries):
        left = {name: one for name, one in runners.items() if name not in found or why_not_settled(found[name])}
        for latency in bench(left, images_nhwc, (1,), seconds=seconds) if left else ():
            best = found.get(latency.runner, latency)
            found[latency.runner] = min(best, latency, key=lambda one: one.p50_ms)
    return [found[name] for name in runners]


def why_not_settled(latency: Latency) -> str:
    """Why a median is no figure to hold later ones against; empty where it is one."""
    if latency.p50_ms > SLOWER * latency.min_ms:
        return f"half of its calls took {latency.p50_ms:.3f} ms and more, one took {latency.min_ms:.3f}"
    if not latency.converged and not latency.stable:
        return "the medians of its rounds lie more than 10 % apart"
    return ""


def _unsettled(measured: list[Latency]) -> list[Check]:
    """What may be saved, and each runner that may not."""
    fix = "end what else runs on this machine, then save again; `seconds=5` measures for longer"
    found = {latency.runner: why_not_settled(latency) for latency in measured}
    checks = [Check(f"speed of {name}", FAILED, f"did not settle: {why}", fix) for name, why in found.items() if why]
    return checks or [Check("speed", OK, "saved now")]


def _golden(one: RunnerId, opened: Opened, images: LabeledImages, golden: dict[str, Any]) -> Check:
    name, variant, expected = str(one), VARIANTS[one.variant], golden.get(one.variant)
    if expected is None:
        again = "copy the bundle again, or export again"
        return Check(name, FAILED, f"nothing to compare with: the bundle has no golden logits of {variant.name}", again)
    got = opened.runners[one].logits(images.images_nhwc)
    parity = parity_from_logits("golden", one, expected, got, images.labels)
    most, part = variant.golden_distance, variant.golden_flips
    top1 = parity.candidate_score
    found = (
        f"{parity.relative_l2:.1e} from the golden logits, {parity.flips} of {len(images)} answers differ, "
        f"{top1.correct} right"
    )
    if parity.nonfinite:
        return Check(
            name, FAILED, f"{parity.nonfinite} logits are NaN or infinite", "look at what works on this machine"
        )
    # `not <=`, so that a distance that is no number fails too.
    if not parity.relative_l2 <= most or parity.flips > part * len(images):
        fix = "update or downgrade this backend, or build the engine again; `toolkit.verify` says more"
        return Check(name, FAILED, f"{found}; allowed {most:.0e} and {int(part * len(images))}", fix)
    return Check(name, OK, found)


def _engines(bundle: Bundle, driver: Driver) -> list[Check]:
    """Whether each plan is whole, and whether this machine's TensorRT and GPU can run it."""
    checks = []
    for entry in bundle.engines():
        name, rebuild = str(entry["file"]), f"`toolkit.build({str(bundle.folder)!r})`"
        try:
            sidecar = plan_of_bundle(bundle, entry, rebuild).sidecar
            if not driver.available:
                checks.append(Check(name, NOT_RUN, f"whole; {driver.reason}"))
                continue
            obstacle = obstacle_to_running(sidecar, tensorrt_for_plan(sidecar, driver), driver)
        except EngineError as error:
            checks.append(Check(name, FAILED, error.what, error.fix or rebuild))
            continue
        except BackendUnavailable as error:
            checks.append(Check(name, NOT_RUN, error.what, error.fix or ""))
            continue
        if obstacle:
            checks.append(Check(name, FAILED, f"must be built again: {obstacle}", rebuild))
        else:
            checks.append(Check(name, OK, "whole, and built for this TensorRT and GPU"))
    return checks


def _against_saved(path: Path, versions: dict[str, str], medians: dict[str, float], max_slowdown: float) -> list[Check]:
    """Versions that changed and runners slower than what was saved; one that is far faster doubts that."""
    if not path.is_file():
        return [Check("speed", NOT_RUN, "no figures of this device yet", "`toolkit.selftest(save=True)`")]
    before = _read_saved(path)
    changed = [
        f"{name} {before.versions.get(name, 'absent')} to {versions.get(name, 'absent')}"
        for name in {**before.versions, **versions}
        if before.versions.get(name) != versions.get(name)
    ]
    checks = [
        Check("versions", OK, "changed since the speed was saved: " + ", ".join(changed) if changed else "unchanged")
    ]
    for name, median in medians.items():
        if name not in before.p50_ms:
            continue
        ratio = median / before.p50_ms[name]
        found = f"{median:.3f} ms, {ratio:.2f} times the saved {before.p50_ms[name]:.3f} ms"
        fix = "check power mode, clocks and load; `toolkit.selftest(save=True)` accepts it"
        slow, doubtful = ratio > max_slowdown, ratio * max_slowdown < 1
        if doubtful:
            found += ": far faster, so what was saved is of a busy machine and no slowdown will be seen"
            fix = "`toolkit.selftest(save=True)` once nothing else runs"
        checks.append(Check(f"speed of {name}", FAILED if slow else OK, found, fix if slow or doubtful else ""))
    gone = [name for name in before.p50_ms if name not in medians]
    checks += [
        Check(
            name,
            FAILED,
            "ran when this device's speed was saved, and does not now",
            "look at what works on this machine",
        )
        for name in gone
    ]
    return checks


def _read_saved(path: Path) -> SavedSpeed:
    fix = f"remove it, then `toolkit.selftest({str(path.parent)!r}, save=True)`"
    return SavedSpeed.from_dict(read_json(path, ToolkitError), f"{path} is no speed that selftest saved: it", fix=fix)
