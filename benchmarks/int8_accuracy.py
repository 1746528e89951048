"""What INT8 keeps of fp32's top-1 on a whole test set, over several calibration draws, beside ONNX Runtime's quantizer.

    python benchmarks/int8_accuracy.py [--models resnet20-cifar10] [--data cifar10] [--draws 5] [--images 512]

Every draw takes other calibration images (balanced, seeds 0, 1, 2 ...) from the training part; the test part judges.
ONNX Runtime quantizes the same fp32 graph with the same images, set up as for TensorRT: Q/DQ, symmetric int8, weights
per channel, float biases; and for its own CPU kernels, with uint8 activations, where a processor without VNNI saturates
unless weights give up a bit (`reduce_range`). All files run on ONNX Runtime's CPU provider. Retention is INT8's right
answers in percent of fp32's; flips are the images whose answer changed. Prints a table on stderr, JSON on stdout.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.calibration.methods import CANDIDATES
from toolkit.calibration.ranges import record_from_observation
from toolkit.compare.parity import logits_in_batches, parity_from_logits
from toolkit.contracts import Dataset, Float32, LabeledImages
from toolkit.data import dataset_from_spec, sample
from toolkit.quantization.choose_method import ranges_by_parity
from toolkit.quantization.ort_cpu import cpu_from_ranges
from toolkit.quantization.qdq import qdq_from_ranges
from toolkit.runtime.ort.runner import OrtRunner

if TYPE_CHECKING:
    import onnx

THEIRS = ("MinMax", "Percentile", "Entropy")
BATCH = 32
ONLY = {
    "all": "", "ours": ("auto", *CANDIDATES), "auto": "auto", "auto+theirs": ("auto", "onnxruntime"),
    "cpu": ("auto, int8-cpu", "onnxruntime U8S8"),
}  # fmt: skip
TENSORRT = {
    "op_types_to_quantize": ["Conv", "Gemm", "MatMul"],
    "extra_options": {
        "QuantizeBias": False,
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "AddQDQPairToWeight": True,
        "OpTypesToExcludeOutputQuantization": ["Conv", "Gemm", "MatMul"],
    },
}


@dataclass(frozen=True)
class Row:
    """One file judged: percent, a flip in percent of all images, and the distance of the logits."""

    model: str
    draw: int
    method: str
    top1_percent: float
    retention_percent: float
    flips_percent: float
    relative_l2: float


def graph_of_onnxruntime(file: Path, images_nhwc: Any, method: str, activations: str, **options: Any) -> bytes:
    """ONNX Runtime's quantizer on the same graph and images: Q/DQ, int8 weights per channel."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches: Iterator[Any] = (images_nhwc[i : i + BATCH] for i in range(0, len(images_nhwc), BATCH))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"images": batch}

    logging.getLogger().setLevel(logging.ERROR)  # it advises and prints at length
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        out = Path(folder) / "quantized.onnx"
        quantize_static(
            file,
            out,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType[activations],
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod[method],
            **options,
        )
        return out.read_bytes()


def files_of_draw(
    model: onnx.ModelProto, file: Path, preprocessing: Any, images: Any
) -> dict[str, Callable[[], bytes]]:
    """{method: makes the bytes of an INT8 file}; ours from one pass over the images."""
    choice = ranges_by_parity(model, images, preprocessing)
    chosen = choice.candidates[0].method
    made: dict[str, Callable[[], bytes]] = {
        f"auto ({chosen})": lambda: qdq_from_ranges(model, choice.record).SerializeToString(),
        "auto, int8-cpu": lambda: cpu_from_ranges(model, choice.record).SerializeToString(),
    }
    for name in CANDIDATES:
        if name != chosen:
            made[name] = lambda name=name: qdq_from_ranges(  # type: ignore[misc]
                model, record_from_observation(choice.seen, name)
            ).SerializeToString()
    for name in THEIRS:
        made[f"onnxruntime {name}"] = lambda name=name: graph_of_onnxruntime(  # type: ignore[misc]
            file, images, name, "QInt8", **TENSORRT
        )
    for name, reduced in (("", False), (", reduce_range", True)):
        made[f"onnxruntime U8S8{name}"] = lambda reduced=reduced: graph_of_onnxruntime(  # type: ignore[misc]
            file, images, "MinMax", "QUInt8", reduce_range=reduced
        )
    return made


def rows_of_model(name: str, dataset: Dataset, test: LabeledImages, draws: int, count: int, only: str) -> Iterator[Row]:
    """Every method of every draw, judged on `test`."""
    from toolkit.exporting.artifacts import fp32_graph_of_model
    from toolkit.models.checkpoint import folder_of_model, load_model

    loaded = load_model(folder_of_model(name))
    model = fp32_graph_of_model(loaded)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        file.write_bytes(model.SerializeToString())
        with OrtRunner(file) as runner:
            expected = logits_in_batches(runner, test.images_nhwc)
        for draw in range(draws):
            images = sample(dataset.train, count, draw).images_nhwc
            made = files_of_draw(model, file, loaded.card.preprocessing, images)
            judged: dict[bytes, Float32] = {}  # ONNX Runtime's entropy is its minmax, byte for byte
            for method, make in made.items():
                if not method.startswith(ONLY[only]):
                    continue
                content = make()
                got = judged.get(content)
                if got is None:
                    with OrtRunner(content, label=method) as runner:
                        got = judged[content] = logits_in_batches(runner, test.images_nhwc)
                p = parity_from_logits("fp32", method, expected, got, test.labels)
                yield Row(
                    name, draw, method, p.candidate_score.top1_percent, p.retention_percent,
                    100 - p.agreement_percent, p.relative_l2,
                )  # fmt: skip


def summary(rows: list[Row]) -> list[dict[str, Any]]:
    """Mean and extremes over the draws, a line a model and method; auto is one method whatever it chose."""
    lines = []
    keys = dict.fromkeys((row.model, row.method.partition(" (")[0]) for row in rows)
    for model, method in keys:
        of = [r for r in rows if r.model == model and r.method.partition(" (")[0] == method]
        retention, flips, distance = (
            np.array([getattr(row, field) for row in of])
            for field in ("retention_percent", "flips_percent", "relative_l2")
        )
        lines.append(
            {
                "model": model,
                "method": method,
                "draws": len(of),
                "top1_percent": round(float(np.mean([row.top1_percent for row in of])), 3),
                "retention_percent": [round(float(f(retention)), 3) for f in (np.mean, np.min, np.max)],
                "flips_percent": [round(float(f(flips)), 3) for f in (np.mean, np.min, np.max)],
                "relative_l2": round(float(distance.mean()), 4),
            }
        )
    return lines


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="INT8 against fp32 over calibration draws, beside ONNX Runtime's.")
    parser.add_argument("--models", default="resnet20-cifar10")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--test", type=int, help="fewer test images, for a quick look")
    parser.add_argument("--only", choices=tuple(ONLY), default="all")
    options = parser.parse_args()
    dataset = dataset_from_spec(options.data)
    test = dataset.test if options.test is None else sample(dataset.test, options.test, 0)
    rows = []
    for name in options.models.split(","):
        for row in rows_of_model(name, dataset, test, options.draws, options.images, options.only):
            rows.append(row)
            print("  ".join(f"{value!s:>22}" for value in asdict(row).values()), file=sys.stderr, flush=True)
    lines = summary(rows)
    for line in lines:
        print("  ".join(f"{value!s:>22}" for value in line.values()), file=sys.stderr)
    print(json.dumps({"images": len(test), "summary": lines, "rows": [asdict(row) for row in rows]}))


if __name__ == "__main__":
    main()
