"""What the TensorRT runner adds to a call, on the stand-in libcuda of the tests: no GPU, an engine that takes no time.

    python benchmarks/runner_overhead.py        (needs gcc, cuda-python or pycuda, onnxruntime)

The stand-in's own work (a copy in, a copy out, one lock) is measured as the same launch and wait with nothing around
them, and taken off. What a GPU's driver takes for these calls is not in the figures.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
STUB = ROOT / "tests" / "runtime" / "cuda" / "stub" / "libcuda.c"


def main() -> None:
    """Compiles the stand-in, starts again with it as libcuda.so.1, and prints one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000, help="calls a turn")
    parser.add_argument("--turns", type=int, default=25)
    arguments = parser.parse_args()
    if os.environ.get("TOOLKIT_STANDIN"):
        print(json.dumps(measured(arguments.calls, arguments.turns)))
        return
    with tempfile.TemporaryDirectory() as folder:
        library = str(Path(folder) / "libcuda.so.1")
        options = ["-shared", "-fPIC", "-O2", "-w", "-Wl,-soname,libcuda.so.1", "-o", library, str(STUB)]
        subprocess.run(["gcc", *options, "-lpthread", "-ldl"], check=True)
        environment = {**os.environ, "TOOLKIT_STANDIN": folder, "LD_LIBRARY_PATH": folder, "PYTHONPATH": str(ROOT)}
        sys.exit(subprocess.run([sys.executable, *sys.argv], env=environment).returncode)


def measured(calls: int, turns: int) -> dict[str, Any]:
    """Microseconds a call."""
    from toolkit.runtime.trt.runner import TrtRunner

    images = np.zeros((1, 16, 16, 3), np.uint8)
    answers: dict[str, Any] = {"calls": calls, "turns": turns, "batch": 1}
    with tempfile.TemporaryDirectory() as folder:
        plan = plan_in(Path(folder))
        for name, how in (("graph", {}), ("without graph", {"graph": False}), ("pycuda", {"cuda": "pycuda"})):
            if name == "pycuda" and importlib.util.find_spec("pycuda") is None:
                continue
            with TrtRunner(plan, **how) as runner:  # type: ignore[arg-type]
                whole = lambda runner=runner: runner.logits(images)  # noqa: E731
                found = in_turns({"whole": whole}, calls, turns)
                if name == "graph":
                    found |= in_turns({"bare": bare_replay(runner)}, calls, turns)
                    found["added"] = found["whole"] - found["bare"]
                answers[name] = {f"{key}_us": round(value, 2) for key, value in found.items()}
    return answers


def bare_replay(runner: Any) -> Callable[[], object]:
    """The same launch and wait with nothing around it."""
    slot, driver = runner._slots[0], runner._engine.cuda._driver
    (replay,) = slot._replays.values()
    stream = slot._stream.raw
    runner._engine.cuda.enter()
    return lambda: (driver.cuGraphLaunch(replay.whole, stream), driver.cuStreamSynchronize(stream))


def in_turns(work: dict[str, Callable[[], object]], calls: int, turns: int) -> dict[str, float]:
    """Microseconds a call of the fastest turn of each, in CPU time: all of it happens in this thread."""
    taken: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(turns):
        for name, call in work.items():
            started = time.thread_time()
            for _ in range(calls):
                call()
            taken[name].append((time.thread_time() - started) / calls * 1e6)
    return {name: min(values) for name, values in taken.items()}


def plan_in(folder: Path) -> Path:
    """A plan that takes no time, with its sidecar, and the stand-in TensorRT put where the toolkit looks for one."""
    from tests.runtime import standin_tensorrt
    from tests.runtime.cuda.inside.conftest import TINY, sidecar
    from toolkit.runtime.trt.module import module as trt
    from toolkit.runtime.trt.preflight import sidecar_path

    module, plan = standin_tensorrt.module(), folder / "model.engine"
    trt._installed = lambda load: ([("tensorrt", module)], [])
    plan.write_bytes(standin_tensorrt.plan_from_onnx((TINY / "model.onnx").read_bytes(), works=False))
    sidecar_path(plan).write_text(json.dumps(sidecar(plan.read_bytes(), module.__version__)))
    return plan


if __name__ == "__main__":
    main()
