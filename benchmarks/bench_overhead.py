"""What `toolkit bench` adds to a call, and whether its median is that of a bare loop: ONNX Runtime, in paired rounds.

    python -m benchmarks.bench_overhead [BUNDLE] [--rounds 40]

Two questions, each with one thread of ONNX Runtime and the arms in turn, forwards and backwards:

1. Overhead, on a graph of one Relu whose call takes microseconds: time a call in the toolkit's loop, its two readings
   of the clock, `OrtRunner.logits` and all, less that in a loop of nothing but `session.run(names, feed)`. The bar is
   3 us. Rounds last 4 ms, less than the system lets a program run before another has its turn.
2. The median that the toolkit reports for a bundle's model at batch 1, over the median that a loop of `session.run`
   with a clock around it finds, as onnxruntime_perf_test does. The bar is 2 %.

Prints a table on stderr and one JSON document on stdout; exits 1 where a bar is not held.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.bundle.reading import bundle_from_folder
from toolkit.runtime.ort.runner import OrtRunner
from toolkit.timing.calls import back_to_back
from toolkit.timing.rank_tests import Ratio, ratio_from_pairs

MOST_US, MOST_PART = 3.0, 0.02
WORDS = {True: "held", False: "NOT held", None: "undecided, the machine is too busy"}


def one_relu() -> bytes:
    """An ONNX file of one Relu over float32 (1, 16)."""
    from onnx import TensorProto, helper

    shape = [1, 16]
    graph = helper.make_graph(
        [helper.make_node("Relu", ["images"], ["logits"])],
        "relu",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data


def bare(run: Callable[..., Any], names: list[str], feed: dict[str, Any], length_ns: int) -> float:
    """Microseconds a call of a loop that does nothing else; the clock is read once in 50 calls."""
    calls, began = 0, time.perf_counter_ns()
    end = began + length_ns
    while True:
        for _ in range(50):
            run(names, feed)
        calls += 50
        now = time.perf_counter_ns()
        if now >= end:
            return (now - began) / calls / 1000


def timed(run: Callable[..., Any], names: list[str], feed: dict[str, Any], length_ns: int) -> float:
    """Median microseconds of a call with a clock around it."""
    taken, end = [], time.perf_counter_ns() + length_ns
    while True:
        started = time.perf_counter_ns()
        run(names, feed)
        ended = time.perf_counter_ns()
        taken.append(ended - started)
        if ended >= end:
            return statistics.median(taken) / 1000


def in_turn(ours: Callable[[], float], theirs: Callable[[], float], rounds: int) -> tuple[list[float], list[float]]:
    """Both arms in every round, in turn first."""
    found: tuple[list[float], list[float]] = ([], [])
    ours(), theirs()
    for number in range(rounds):
        for arm in (0, 1) if number % 2 == 0 else (1, 0):
            found[arm].append((ours, theirs)[arm]())
    return found


def overhead(rounds: int, length_ns: int) -> dict[str, Any]:
    """Microseconds that the toolkit adds to a call of one Relu: the median round, and the middle half of them."""
    with OrtRunner(one_relu(), threads=1) as runner:
        images: Any = np.zeros((1, 16), np.float32)
        feed = {runner.input: images}

        def ours() -> float:
            turn = back_to_back(runner.logits, images, length_ns)
            return turn.elapsed_ns / len(turn.taken_ns) / 1000

        mine, theirs = in_turn(ours, lambda: bare(runner.session.run, runner.outputs[:1], feed, length_ns), rounds)
    added = [a - b for a, b in zip(mine, theirs, strict=True)]
    low, middle, high = statistics.quantiles(added, n=4)
    return {
        "bare_us": round(statistics.median(theirs), 2),
        "added_us": round(middle, 2),
        "added_us_middle_half": [round(low, 2), round(high, 2)],
        "held": middle <= MOST_US,
    }


def agreement(model: Path, images: Any, rounds: int, length_ns: int) -> dict[str, Any]:
    """The toolkit's median of a real model over a bare loop's, with its interval at 99.8 %."""
    with OrtRunner(model, threads=1) as runner:
        feed = {runner.input: images}

        def ours() -> float:
            return float(np.median(back_to_back(runner.logits, images, length_ns).taken_ns)) / 1000

        mine, theirs = in_turn(ours, lambda: timed(runner.session.run, runner.outputs[:1], feed, length_ns), rounds)
    found = ratio_from_pairs(theirs, mine)
    assert found.low is not None
    assert found.high is not None
    return {
        "file": model.name,
        "bare_ms": round(statistics.median(theirs) / 1000, 4),
        "toolkit_ms": round(statistics.median(mine) / 1000, 4),
        "ratio": round(found.ratio, 4),
        "interval": [round(found.low, 4), round(found.high, 4)],
        "held": held(found),
    }


def held(found: Ratio) -> bool | None:
    """True: the interval lies within the bar; False: outside; None: the machine was too busy to say."""
    assert found.low is not None
    assert found.high is not None
    if found.low > 1 + MOST_PART or found.high < 1 - MOST_PART:
        return False
    return True if found.low >= 1 - MOST_PART and found.high <= 1 + MOST_PART else None


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="What toolkit bench adds to a call of ONNX Runtime.")
    parser.add_argument("bundle", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    bundle = bundle_from_folder(options.bundle)
    image = np.ascontiguousarray(bundle.golden()[0].images_nhwc[:1])
    answer = {
        "overhead": overhead(10 * options.rounds, 4_000_000),
        "medians": [
            agreement(bundle.onnx_file(p), image, 5 * options.rounds, 6_000_000)
            for p in bundle.precisions
            if p in ("fp32", "int8-cpu")
        ],
        "rounds": options.rounds,
    }
    found = answer["overhead"]
    print(f"one Relu, bare loop      {found['bare_us']:8.2f} us a call", file=sys.stderr)
    print(f"toolkit bench adds       {found['added_us']:8.2f} us a call (bar {MOST_US:g})", file=sys.stderr)
    for row in answer["medians"]:
        line = f"{row['file']:24} {row['bare_ms']:8.4f} ms bare, {row['toolkit_ms']:.4f} ms toolkit"
        low, high = row["interval"]
        print(f"{line}, ratio {row['ratio']:.4f} ({low:.4f} to {high:.4f}): {WORDS[row['held']]}", file=sys.stderr)
    ok = found["held"] and all(row["held"] is not False for row in answer["medians"])
    print(json.dumps({"ok": ok, **answer}))
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
