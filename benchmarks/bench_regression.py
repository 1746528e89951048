"""Whether `toolkit bench --against` accuses the innocent and catches 2 %, on this machine as it is now.

    python -m benchmarks.bench_regression [BUNDLE] [--times 100] [--seconds 0.5]

Each time, one session of ONNX Runtime is measured against itself, and against itself with 2 % of each call's time added
by waiting awake. "slower" is what the command would say with --max-regression 0%. Prints a table on stderr and one JSON
document on stdout; exits 1 where the identical one was called slower more than once in 100.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from toolkit.benchmarking.baseline import SLOWER, Change, compare_in_rounds
from toolkit.bundle.reading import bundle_from_folder
from toolkit.conditions.host import host_conditions
from toolkit.contracts import Float32, UInt8
from toolkit.runtime.ort.runner import OrtRunner
from toolkit.runtime.runner import ClosesItself, Runner
from toolkit.timing.latency import bench

ADDED = 0.02


class Delayed(ClosesItself):
    """A runner that takes a part of its own time longer for each call."""

    def __init__(self, runner: Runner, part: float) -> None:
        self.name, self.description, self._runner, self._part = "delayed", runner.description, runner, part

    def logits(self, images_nhwc: UInt8) -> Float32:
        """The runner's answer, later."""
        began = time.perf_counter_ns()
        answer = self._runner.logits(images_nhwc)
        ended = time.perf_counter_ns()
        until = ended + int(self._part * (ended - began))
        while time.perf_counter_ns() < until:
            pass
        return answer


def compared(old: Runner, new: Runner, images: UInt8, seconds: float) -> Change:
    """One run of both."""
    rows = bench({"old": old, "new": new}, images, (1,), seconds=seconds, paired=True)
    (change,) = compare_in_rounds("old", [(rows[0], rows[1])], 0.0).changes
    return change


def summary(changes: list[Change]) -> dict[str, Any]:
    """How often "slower" was said, and the middle and the ends of the ratios."""
    ratios = [change.ratio for change in changes]
    return {
        "times": len(changes),
        "called_slower": sum(change.verdict == SLOWER for change in changes),
        "ratio": round(statistics.median(ratios), 4),
        "least_and_most": [round(min(ratios), 4), round(max(ratios), 4)],
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="False alarms and catches of toolkit bench --against.")
    parser.add_argument("bundle", nargs="?", type=Path)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=0.5)
    options = parser.parse_args()
    bundle = bundle_from_folder(options.bundle)
    images = bundle.golden()[0].images_nhwc
    precision = "int8-cpu" if "int8-cpu" in bundle.precisions else "fp32"
    found: dict[str, list[Change]] = {"identical": [], f"{100 * ADDED:g} % slower": []}
    with OrtRunner(bundle.onnx_file(precision), threads=1) as runner:
        arms = {"identical": Delayed(runner, 0.0), f"{100 * ADDED:g} % slower": Delayed(runner, ADDED)}
        for _ in range(options.times):
            for name, arm in arms.items():
                found[name].append(compared(Delayed(runner, 0.0), arm, images, options.seconds))
    answer = {name: summary(changes) for name, changes in found.items()}
    for name, row in answer.items():
        line = f"{name:14} called slower {row['called_slower']} of {row['times']}, ratio {row['ratio']:.4f}"
        print(f"{line} ({row['least_and_most'][0]:.4f} to {row['least_and_most'][1]:.4f})", file=sys.stderr)
    ok = answer["identical"]["called_slower"] <= options.times / 100
    print(json.dumps({"ok": ok, "seconds": options.seconds, "host": host_conditions(), **answer}))
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
