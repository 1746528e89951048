"""Where a call's time goes, layer by layer: each engine's own profiler, in calls that are made for nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np

from toolkit.benchmarking.result import LayerProfile, ProfiledLayer
from toolkit.benchmarking.warnings import Warned
from toolkit.bundle.manifest import VARIANTS
from toolkit.bundle.reading import Bundle
from toolkit.contracts import UInt8
from toolkit.errors import ToolkitError
from toolkit.runtime.runner import LayerTime, Runner, TimesLayers
from toolkit.runtime.runner_id import RunnerId
from toolkit.timing.latency import Latency

FEWEST, MOST = 5, 50  # calls of a profile
WHY_NOT = {
    "torch": "PyTorch runs layer by layer in Python, and torch.profiler tells of it",
    "ort-cuda": "ONNX Runtime times how its GPU kernels are launched, not how they run",
    "ort-trt": "ONNX Runtime sees one node: TensorRT's whole engine",
}


def layer_profiles(
    bundle: Bundle,
    runners: Mapping[RunnerId, Runner],
    rows: list[Latency],
    images_nhwc: UInt8,
    *,
    seconds: float,
    ort_threads: int,
) -> tuple[tuple[LayerProfile, ...], list[Warned]]:
    """A profile of every row whose engine times its layers, and for each of the other runners the reason.

    Args:
        rows: what was measured; the median says how many calls fit into `seconds`.
    """
    named = {str(name): name for name in runners}
    found: list[LayerProfile] = []
    reasons: dict[str, str] = {}
    for row in rows:
        pixels = np.ascontiguousarray(np.resize(images_nhwc, (row.batch, *images_nhwc.shape[1:])))
        calls = int(min(MOST, max(FEWEST, 1000 * seconds / row.p50_ms)))
        try:
            layers = _layers(bundle, named[row.runner], runners[named[row.runner]], pixels, calls, ort_threads)
        except ToolkitError as error:
            reasons[row.runner] = error.in_one_line()
        else:
            found.append(_profile(row, calls, layers))
    return tuple(found), [Warned("no-layer-times", name, f"no layers timed: {why}") for name, why in reasons.items()]


def _layers(
    bundle: Bundle, name: RunnerId, runner: Runner, pixels: UInt8, calls: int, ort_threads: int
) -> tuple[LayerTime, ...]:
    if name.backend == "trt":
        return cast(TimesLayers, runner).layer_times(pixels, calls)
    if name.backend in WHY_NOT or name.side:
        raise ToolkitError(WHY_NOT.get(name.backend, "it is of the bundle that this one is compared with"))
    from toolkit.runtime.ort.layer_times import layer_times

    optimize = VARIANTS[name.variant].optimize
    return layer_times(bundle.onnx(name.variant), pixels, calls, threads=ort_threads, optimize=optimize)


def _profile(row: Latency, calls: int, layers: tuple[LayerTime, ...]) -> LayerProfile:
    total = sum(layer.ms for layer in layers)
    return LayerProfile(
        runner=row.runner,
        batch=row.batch,
        calls=calls,
        sum_ms=total,
        layers=tuple(
            ProfiledLayer(layer.name, layer.kind, layer.ms, layer.ms / total if total else 0.0) for layer in layers
        ),
    )
