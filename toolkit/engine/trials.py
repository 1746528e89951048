"""Building is a lottery: a network built twice is not equally fast, nor always right. Draw, judge, keep the best.

TensorRT times kernels on a device that does other things too, so that two builds choose differently (NVIDIA/TensorRT
4730, 3316, 4798). Each draw is held against the bundle's golden logits and timed; the fastest that passes stays, and
its sidecar says what all of them were.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.bundle.manifest import VARIANTS
from toolkit.bundle.reading import Bundle
from toolkit.compare.parity import parity_from_logits
from toolkit.engine.engine_from_onnx import Engine
from toolkit.engine.failure import log_path
from toolkit.errors import BackendUnavailable, EngineError
from toolkit.runtime.driver import probe_driver
from toolkit.runtime.runner import Runner
from toolkit.runtime.trt.module import TensorRT
from toolkit.runtime.trt.preflight import sidecar_path
from toolkit.runtime.trt.runner import TrtRunner
from toolkit.storage.files import os_errors, write_json
from toolkit.timing.latency import bench

MOST_REPEATS = 50


@dataclass(frozen=True)
class Trials:
    """How often to build, and how to judge.

    Attributes:
        repeats: builds of each engine, 1 to `MOST_REPEATS`.
        seconds: measuring time of each engine, at the best-served batch.
        open_engine: a plan's runner on this machine's GPU.
    """

    repeats: int = 1
    seconds: float = 0.5
    open_engine: Callable[[Path], Runner] = TrtRunner

    def require_can_run(self, tensorrt: TensorRT) -> None:
        """Engines can run here, so that judging them makes sense; asked before anything is built.

        Raises:
            BackendUnavailable: there is no driver. EngineError: the number of builds is out of range.
        """
        if not 1 <= self.repeats <= MOST_REPEATS:
            raise EngineError("`repeats=` is out of range", found=self.repeats, allowed=f"1 to {MOST_REPEATS}")
        driver = probe_driver()
        if not driver.available:
            raise BackendUnavailable(
                f"`check=True` runs what it built, and {tensorrt.name} cannot run an engine here",
                found=driver.reason,
                allowed="a machine with an NVIDIA GPU and its driver",
                fix="build without `check=True` here, or build on the device",
            )


@dataclass(frozen=True)
class Trial:
    """One build: how long it took, how fast the engine is, how far from the golden logits, and whether that passes.

    Attributes:
        p50_ms: median of whole calls at `batch`; None where the engine did not pass and was not timed.
        relative_l2: of the logits, from the golden ones of the same file; None where they are not finite.
        flips: golden images that it answers otherwise.
        reason: why it does not pass; empty if it does.
    """

    build_seconds: float
    batch: int
    p50_ms: float | None
    relative_l2: float | None
    flips: int | None
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """For the sidecar."""
        return asdict(self)


def fastest_that_passes(
    build: Callable[[Path], Engine], plan: Path, bundle: Bundle, precision: str, trials: Trials
) -> Engine:
    """Builds `plan` several times and keeps the fastest that passes, with all trials in its sidecar.

    Args:
        build: builds to the path that it is given.
        precision: of the golden logits that the engine must reproduce as nearly as `VARIANTS` says.

    Raises:
        EngineError: none passes; with what each was. Whatever `build` raises.
    """
    with os_errors(plan):
        plan.parent.mkdir(parents=True, exist_ok=True)
    drawn: list[tuple[Engine, Trial]] = []
    with tempfile.TemporaryDirectory(dir=plan.parent, prefix=f".{plan.name}.") as folder:
        for index in range(trials.repeats):
            engine = build(Path(folder) / str(index) / plan.name)
            drawn.append((engine, judged(engine, bundle, precision, trials)))
        passed = [draw for draw in drawn if not draw[1].reason]
        if not passed:
            found = [f"build {index + 1}: {trial.reason}" for index, (_, trial) in enumerate(drawn)]
            raise EngineError(
                f"none of {trials.repeats} builds of {plan.name} answers as its ONNX file does"
                if trials.repeats > 1
                else f"{plan.name} does not answer as its ONNX file does",
                found="\n           ".join(found),
                fix="build another precision, or leave the layers that suffer in float: measure what each layer costs",
            )
        best, chosen = min(passed, key=lambda draw: draw[1].p50_ms or 0.0)
        trial_rows = [trial.as_dict() for _, trial in drawn]
        sidecar = {**best.sidecar, "trials": trial_rows, "trials_kept": [t for _, t in drawn].index(chosen)}
        write_json(sidecar_path(best.path), sidecar)
        for path in (best.path, sidecar_path(best.path), log_path(best.path)):
            if path.is_file():
                shutil.move(path, plan.with_name(path.name))
    return replace(best, path=plan, sidecar=sidecar, notes=(*best.notes, _spread(plan, drawn, chosen)))


def judged(engine: Engine, bundle: Bundle, precision: str, trials: Trials) -> Trial:
    """Holds one engine against the golden logits and, if they agree, times it.

    Raises:
        EngineError: the bundle has no golden logits of the precision.
    """
    images, golden = bundle.golden()
    if precision not in golden:
        raise EngineError(f"the bundle has no golden logits of {precision}", found=", ".join(golden))
    batch = _best_served_batch(engine)
    seconds = engine.sidecar["build_seconds"]
    with trials.open_engine(engine.path) as runner:
        got = runner.logits(images.images_nhwc)
        parity = parity_from_logits("golden", "trt", golden[precision], got, images.labels)
        most, part = VARIANTS[precision].golden_distance, VARIANTS[precision].golden_flips
        if parity.nonfinite:
            return Trial(seconds, batch, None, None, None, f"{parity.nonfinite} logits are NaN or infinite")
        far = float(parity.relative_l2)
        if not far <= most or parity.flips > part * len(images):
            reason = f"relative L2 {far:.1e}, {parity.flips} of {len(images)} answers differ; allowed {most:.0e} and "
            return Trial(seconds, batch, None, far, parity.flips, reason + f"{int(part * len(images))}")
        (latency,) = bench({"trt": runner}, images.images_nhwc, (batch,), seconds=trials.seconds)
    return Trial(seconds, batch, float(latency.p50_ms), far, parity.flips, "")


def _best_served_batch(engine: Engine) -> int:
    """The optimum of the profile's first input."""
    (_, best, _), *_ = engine.sidecar["profile"].values()
    return int(best[0])


def _spread(plan: Path, drawn: list[tuple[Engine, Trial]], chosen: Trial) -> str:
    """One sentence for people."""
    times = np.array([trial.p50_ms for _, trial in drawn if trial.p50_ms is not None])
    return (
        f"{plan.name}: {len(times)} of {len(drawn)} builds pass; kept {chosen.p50_ms:.3f} ms at batch {chosen.batch}, "
        f"they span {times.min():.3f} to {times.max():.3f} ms"
    )
