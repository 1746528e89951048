"""What `toolkit.load` costs a program: time to the first answer, overhead of a call, memory over many calls.

    python benchmarks/embedding.py BUNDLE [--calls 100000]
    python benchmarks/embedding.py tests/bundle/format-1 --calls 1000000    # a tiny net: a minute

Overhead is the difference of the medians of `net.logits(image)` (or `classify`) and a bare `session.run` over the same
session and image at batch 1; the three take turns call by call, with one thread, and its spread is over rounds. Memory
is the resident set after a tenth of the calls, when caches and arenas are full, and at the end. Load times are of
fresh processes: import onnxruntime, then import toolkit, load and answer once. A table on stderr, JSON on stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import toolkit

FRESH = """
import json, time, numpy
t0 = time.perf_counter(); import onnxruntime
t1 = time.perf_counter(); import toolkit
t2 = time.perf_counter()
net = toolkit.load({bundle!r}, threads=1); net.classify(numpy.zeros((1, *net.preprocessing.shape), numpy.uint8))
t3 = time.perf_counter()
print(json.dumps([1000 * (t1 - t0), 1000 * (t2 - t1), 1000 * (t3 - t2)]))
"""
ROUNDS, CALLS = 30, 300


def milliseconds_of_fresh_processes(bundle: str, times: int) -> dict[str, float]:
    """Medians: import of onnxruntime, import of toolkit above numpy, load to the first answer."""
    code = FRESH.format(bundle=bundle)
    rows = [
        json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        for _ in range(times)
    ]
    names = ("import_onnxruntime_ms", "import_toolkit_ms", "load_and_first_answer_ms")
    return {
        name: round(statistics.median(column), 2) for name, column in zip(names, zip(*rows, strict=True), strict=True)
    }


def overhead_us(net: Any, image: Any) -> dict[str, list[float]]:
    """Median, least and most of the rounds' differences to the bare session."""
    session, names, feed = net._runner.session, net._runner.outputs[:1], {net._runner.input: image}
    calls = (lambda: session.run(names, feed), lambda: net.logits(image), lambda: net.classify(image))
    found: dict[str, list[float]] = {"logits": [], "classify": []}
    for _ in range(ROUNDS):
        times: tuple[list[int], ...] = ([], [], [])
        for _ in range(CALLS):
            for call, taken in zip(calls, times, strict=True):
                began = time.perf_counter_ns()
                call()
                taken.append(time.perf_counter_ns() - began)
        bare, logits, classify = (statistics.median(taken) / 1000 for taken in times)
        found["logits"].append(logits - bare)
        found["classify"].append(classify - bare)
    return {name: [round(f(values), 2) for f in (statistics.median, min, max)] for name, values in found.items()}


def resident_kib() -> int:
    """Memory of this process now; on systems without /proc, its peak."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def memory(net: Any, image: Any, calls: int) -> dict[str, Any]:
    """Resident memory over many calls, and microseconds a call."""
    for _ in range(calls // 10):
        net.classify(image)
    before, began = resident_kib(), time.perf_counter()
    for _ in range(calls - calls // 10):
        net.classify(image)
    seconds, after = time.perf_counter() - began, resident_kib()
    return {
        "calls": calls,
        "us_a_call": round(1e6 * seconds / (calls - calls // 10), 1),
        "resident_kib": after,
        "grown_kib": after - before,
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="What toolkit.load costs a program.")
    parser.add_argument("bundle")
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--processes", type=int, default=9)
    options = parser.parse_args()
    answer: dict[str, Any] = dict(milliseconds_of_fresh_processes(options.bundle, options.processes))
    with toolkit.load(options.bundle, threads=1) as net:
        image = np.zeros((1, *net.preprocessing.shape), np.uint8)
        answer["overhead_us"] = overhead_us(net, image)
        answer |= memory(net, image, options.calls) | {"runner": net.description}
    for name, value in answer.items():
        print(f"{name:28}{value}", file=sys.stderr)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
