"""VGG, SqueezeNet and MobileNetV2 in INT8 on ONNX Runtime's CPU provider: `model.int8-cpu.onnx` beside its quantizer's.

    python -m benchmarks.int8_papers [--data cifar10] [--train 8192] [--epochs 4] [--draws 3] [--test 4000] [--keep DIR]

Each net is trained briefly (`benchmarks/paper_nets.py`), so that its answers are surer than chance and flips mean
something; `--keep` is where trained weights lie for the next run. Every draw takes other calibration images. Ours is
what `toolkit export --int8` writes, `--method auto`; theirs is ONNX Runtime's static quantizer on the same fp32 graph
and images: Q/DQ, uint8 activations, int8 weights per channel, minmax, with and without `reduce_range`. All files run
with ONNX Runtime's optimizations as they are used, and without them, which is what a processor with VNNI computes.
Flips are images whose answer is not fp32's. Prints a table on stderr, JSON on stdout.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.int8_accuracy import graph_of_onnxruntime
from benchmarks.paper_nets import NETS, trained
from toolkit.compare.parity import logits_in_batches, parity_from_logits
from toolkit.contracts import Dataset, Float32, LabeledImages, Preprocessing, UInt8
from toolkit.data import dataset_from_spec, sample
from toolkit.graph.from_torch import onnx_from_torch
from toolkit.models.user_network import classifier_of
from toolkit.quantization.choose_method import ranges_by_parity
from toolkit.quantization.ort_cpu import cpu_from_ranges
from toolkit.runtime.ort.runner import OrtRunner

if TYPE_CHECKING:
    import onnx

OURS, THEIRS = "model.int8-cpu.onnx", {"U8S8": False, "U8S8, reduce_range": True}


@dataclass(frozen=True)
class Row:
    """One file judged: percent of the images, and the distance of the logits."""

    net: str
    draw: int
    file: str
    optimized: bool
    top1_percent: float
    flips_percent: float
    relative_l2: float


def files_of_draw(
    model: onnx.ModelProto, file: Path, preprocessing: Preprocessing, images: UInt8
) -> dict[str, Callable[[], bytes]]:
    """{name: makes the bytes of an INT8 file}."""
    made: dict[str, Callable[[], bytes]] = {
        OURS: lambda: cpu_from_ranges(model, ranges_by_parity(model, images, preprocessing).record).SerializeToString()
    }
    for name, reduced in THEIRS.items():
        made[name] = lambda reduced=reduced: graph_of_onnxruntime(  # type: ignore[misc]
            file, images, "MinMax", "QUInt8", reduce_range=reduced
        )
    return made


def answers(model: bytes, images: UInt8, optimize: bool = True) -> Float32:
    """Logits."""
    with OrtRunner(model, optimize=optimize) as runner:
        return logits_in_batches(runner, images)


def rows_of_net(name: str, dataset: Dataset, test: LabeledImages, options: argparse.Namespace) -> Iterator[Row]:
    """Every file of every draw."""
    net, preprocessing = trained(name, dataset, options.train, options.epochs, options.keep / f"{name}.pt")
    model = onnx_from_torch(classifier_of(net, preprocessing), preprocessing, {})
    expected = answers(model.SerializeToString(), test.images_nhwc)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        file.write_bytes(model.SerializeToString())
        for draw in range(options.draws):
            images = sample(dataset.train, options.images, draw).images_nhwc
            for kind, make in files_of_draw(model, file, preprocessing, images).items():
                content = make()
                for optimize in (True, False):
                    got = answers(content, test.images_nhwc, optimize)
                    p = parity_from_logits("fp32", kind, expected, got, test.labels)
                    flips = 100 - p.agreement_percent
                    yield Row(name, draw, kind, optimize, p.candidate_score.top1_percent, flips, p.relative_l2)


def summary(rows: list[Row]) -> list[dict[str, object]]:
    """Means over the draws, a line a net, file and way to run it."""
    lines: list[dict[str, object]] = []
    for net, kind, optimized in dict.fromkeys((row.net, row.file, row.optimized) for row in rows):
        of = [row for row in rows if (row.net, row.file, row.optimized) == (net, kind, optimized)]
        means = {
            field: round(float(np.mean([getattr(row, field) for row in of])), 4)
            for field in ("top1_percent", "flips_percent", "relative_l2")
        }
        lines.append({"net": net, "file": kind, "optimized": optimized, "draws": len(of), **means})
    return lines


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="INT8 of VGG, SqueezeNet and MobileNetV2 beside ONNX Runtime's.")
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--train", type=int, default=8192, help="training images")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--images", type=int, default=512, help="that calibrate")
    parser.add_argument("--test", type=int, default=4000)
    parser.add_argument("--keep", type=Path, help="folder of trained weights")
    options = parser.parse_args()
    dataset, rows = dataset_from_spec(options.data), []
    with tempfile.TemporaryDirectory() as folder:
        options.keep = options.keep or Path(folder)
        for name in options.nets.split(","):
            for row in rows_of_net(name, dataset, sample(dataset.test, options.test, 0), options):
                rows.append(row)
                print("  ".join(f"{value!s:>20}" for value in asdict(row).values()), file=sys.stderr, flush=True)
    for line in summary(rows):
        print("  ".join(f"{value!s:>20}" for value in line.values()), file=sys.stderr)
    print(json.dumps({"images": options.test, "summary": summary(rows), "rows": [asdict(row) for row in rows]}))


if __name__ == "__main__":
    main()
