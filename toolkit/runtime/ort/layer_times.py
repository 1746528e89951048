"""How long each node of an ONNX file takes in ONNX Runtime on the CPU, read off its profile of calls made for that."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from toolkit.contracts import UInt8
from toolkit.runtime.ort.profile import kernels_in_profile
from toolkit.runtime.ort.runner import OrtRunner
from toolkit.runtime.runner import LayerTime
from toolkit.storage.files import Content

WARM_UP = 3  # calls: the first ones allocate


def layer_times(
    model: Path | Content | bytes, images_nhwc: UInt8, calls: int, *, threads: int = 0, optimize: bool = True
) -> tuple[LayerTime, ...]:
    """Each node's mean time over so many calls, in the order in which they run, as ONNX Runtime fused them.

    A GPU's provider is not asked: its profile says how long kernels took to launch, not to run.

    Args:
        model, threads, optimize: as `OrtRunner` takes them.

    Raises:
        ToolkitError: those of `OrtRunner`.
    """
    with tempfile.TemporaryDirectory(prefix="toolkit-ort-") as folder:
        with OrtRunner(model, threads=threads, optimize=optimize, profile=Path(folder) / "profile") as runner:
            for _ in range(WARM_UP + calls):
                runner.logits(images_nhwc)
            profile = Path(runner.session.end_profiling())
        return times_from_profile(profile, WARM_UP)


def times_from_profile(profile: Path, warm_up: int = 0) -> tuple[LayerTime, ...]:
    """Mean times of a profile's nodes without the first `warm_up` calls of each."""
    found: dict[tuple[str, str, str], list[float]] = {}
    for name, facts, ms in kernels_in_profile(profile):
        if "op_name" in facts:
            found.setdefault((name, facts["op_name"], str(facts.get("node_index"))), []).append(ms)
    return tuple(
        LayerTime(name, kind, statistics.mean(ms[warm_up:])) for (name, kind, _), ms in found.items() if ms[warm_up:]
    )
