"""How much faster the int8-cpu file is than fp32 in ONNX Runtime and than PyTorch eager, in paired rounds.

    python -m benchmarks.int8_cpu [--models resnet20-cifar10,resnet32x32-cifar10] [--batches 1,64] [--threads 0]

In a round all take turns over the same images, each for `--seconds`, five times (`toolkit.timing.latency`). The ratio
of the median calls is taken round by round, so that a noisy machine hits all; the median of the ratios counts, and
their range is beside it. `--threads 1` gives all one thread and reads the processor's clock instead of the wall's: on
a machine of one's own these are the same, and on one that others use too it leaves them out.

PyTorch runs as it comes, and in channels_last, which is its faster form. The cost does not depend on how the ranges
were measured, so 64 images do. Prints a table on stderr and one JSON document on stdout.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
from typing import Any

from benchmarks.calibration import images_like_photographs
from toolkit.calibration.ranges import ranges_from_images
from toolkit.conditions.host import host_conditions
from toolkit.contracts import UInt8
from toolkit.quantization.ort_cpu import cpu_from_ranges
from toolkit.runtime.ort.runner import OrtRunner
from toolkit.runtime.pytorch import TorchRunner
from toolkit.runtime.runner import Runner
from toolkit.timing.latency import bench

INT8, FP32, EAGER, LAST = "int8-cpu", "onnxruntime fp32", "pytorch eager", "pytorch channels_last"


def runners_of_model(name: str, threads: int) -> tuple[dict[str, Runner], UInt8]:
    """All four, and images of the model's size: uint8 (64, H, W, C)."""
    import torch

    from toolkit.exporting.artifacts import fp32_graph_of_model
    from toolkit.models.checkpoint import folder_of_model, load_model

    if threads:
        torch.set_num_threads(threads)
    loaded = load_model(folder_of_model(name))
    graph, preprocessing = fp32_graph_of_model(loaded), loaded.card.preprocessing
    images = images_like_photographs(64, preprocessing.channels)
    plain = copy.deepcopy(loaded.classifier)
    plain.contiguous = True  # type: ignore[assignment]
    int8 = cpu_from_ranges(graph, ranges_from_images(graph, images, preprocessing))
    return {
        INT8: OrtRunner(int8.SerializeToString(), threads=threads, label=INT8),
        FP32: OrtRunner(graph.SerializeToString(), threads=threads, label=FP32),
        EAGER: TorchRunner(plain),
        LAST: TorchRunner(loaded.classifier),
    }, images


def rows_of_model(
    name: str, batches: tuple[int, ...], threads: int, rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """A row a batch: the medians of each round, and how many times faster INT8 is."""
    runners, images = runners_of_model(name, threads)
    clock = time.process_time_ns if threads == 1 else time.perf_counter_ns
    rows = []
    for batch in batches:
        medians: dict[str, list[float]] = {runner: [] for runner in runners}
        for _ in range(rounds):
            for latency in bench(runners, images, (batch,), seconds=seconds, clock=clock):
                medians[latency.runner].append(latency.p50_ms)
        row: dict[str, Any] = {"model": name, "threads": threads or "all", "batch": batch}
        row |= {f"{runner} ms": round(min(values), 3) for runner, values in medians.items()}
        for other in (FP32, EAGER, LAST):
            ratios = [theirs / ours for theirs, ours in zip(medians[other], medians[INT8], strict=True)]
            row[f"faster than {other}"] = [round(f(ratios), 2) for f in (statistics.median, min, max)]
        rows.append(row)
        print("  ".join(f"{value!s:>20}" for value in row.values()), file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="The int8-cpu file against fp32 ONNX Runtime and PyTorch eager.")
    parser.add_argument("--models", default="resnet20-cifar10,resnet32x32-cifar10")
    parser.add_argument("--batches", default="1,64")
    parser.add_argument("--threads", type=int, default=0, help="of each call; 0: every core")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    batches = tuple(int(batch) for batch in options.batches.split(","))
    rows = [
        row
        for name in options.models.split(",")
        for row in rows_of_model(name, batches, options.threads, options.rounds, options.seconds)
    ]
    print(json.dumps({"host": host_conditions(), "rows": rows}))


if __name__ == "__main__":
    main()
