"""What calibration costs: our one pass for all methods against ONNX Runtime's quantizer, in seconds and memory.

    python benchmarks/calibration.py [--models resnet20,resnet32x32] [--images 128,512,2048] [--rounds 3]

A model is a name in models/, or an architecture, which then gets random weights: the cost does not depend on them.
Every measurement is a process of its own, without PyTorch. Its memory is the peak during the call above what the
process held with the model loaded and run once and the images in memory. The rounds take turns over all methods, so
that a noisy machine hits each; the fastest of a method counts. ONNX Runtime's entropy keeps every activation: where
the estimate says that it needs more than `--limit-gib`, it is left out. Prints a table on stderr, JSON on stdout.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 16
METHODS = ("plain inference", "ours, all methods", "ours, auto", "onnxruntime minmax", "onnxruntime entropy")
GIB_AN_IMAGE = 4.6 / 1024  # of onnxruntime's entropy on a resnet32x32, measured: 90 MiB + 4.52 MiB an image


def _memory_kib(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1])


def images_like_photographs(count: int, channels: int = 3) -> Any:
    """Random walks over both axes, so that neighbors are alike: uint8 (count, 32, 32, channels)."""
    steps = np.random.default_rng(0).normal(0, 1, (count, 32, 32, channels)).astype(np.float32)
    walks = steps.cumsum(axis=1).cumsum(axis=2)
    low, high = walks.min(axis=(1, 2), keepdims=True), walks.max(axis=(1, 2), keepdims=True)
    return ((walks - low) / (high - low) * 255).astype(np.uint8)


def measure(method: str, file: Path, count: int) -> dict[str, float]:
    """Runs in a process of its own: seconds and MiB of one call."""
    import onnx

    from toolkit.contracts import preprocessing_from_dict
    from toolkit.runtime.ort.runner import OrtRunner

    model = onnx.load(file)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    preprocessing = preprocessing_from_dict(json.loads(metadata["toolkit.preprocessing"]))
    images = images_like_photographs(count, preprocessing.channels)
    call = _calls(model, file, images, preprocessing)[method]
    with OrtRunner(file) as runner:
        runner.logits(images[:BATCH])
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts here
        before, started, cpu = _memory_kib("VmRSS"), time.perf_counter(), time.process_time()
        call()
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    return {"seconds": seconds, "cpu_seconds": cpu, "mib": (_memory_kib("VmHWM") - before) / 1024}


def _calls(model: Any, file: Path, images: Any, preprocessing: Any) -> dict[str, Callable[[], Any]]:
    from toolkit.calibration.methods import CANDIDATES
    from toolkit.calibration.ranges import observation_from_images, record_from_observation
    from toolkit.quantization.choose_method import ranges_by_parity
    from toolkit.runtime.ort.runner import OrtRunner

    def plain() -> None:
        with OrtRunner(file) as runner:
            for start in range(0, len(images), BATCH):
                runner.logits(images[start : start + BATCH])

    def ours() -> None:
        seen = observation_from_images(model, images, preprocessing)
        for name in CANDIDATES:
            record_from_observation(seen, name)

    return dict(
        zip(
            METHODS,
            (
                plain,
                ours,
                lambda: ranges_by_parity(model, images, preprocessing),
                lambda: _onnxruntime(file, images, "MinMax"),
                lambda: _onnxruntime(file, images, "Entropy"),
            ),
            strict=True,
        )
    )


def _onnxruntime(file: Path, images: Any, kind: str) -> None:
    from onnxruntime.quantization.calibrate import CalibrationDataReader, CalibrationMethod, create_calibrator

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches: Iterator[Any] = (images[i : i + BATCH] for i in range(0, len(images), BATCH))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"images": batch}

    with tempfile.TemporaryDirectory() as folder:
        calibrator = create_calibrator(
            file,
            op_types_to_calibrate=["Conv", "Add"],
            augmented_model_path=f"{folder}/augmented.onnx",
            calibrate_method=CalibrationMethod[kind],
            extra_options={"symmetric": True},
        )
        calibrator.collect_data(Reader())
        calibrator.compute_data()


def export(name: str, folder: Path) -> Path:
    """Writes the fp32 graph of a model or of an architecture with random weights."""
    import torch

    from toolkit.contracts import Preprocessing
    from toolkit.exporting.artifacts import fp32_graph_of_model
    from toolkit.models.card import Card
    from toolkit.models.checkpoint import LoadedModel, classifier_from_config, folder_of_model, load_model
    from toolkit.models.resnet import config_from_name
    from toolkit.workspace import find_in_room

    if find_in_room("models", name) is not None:
        loaded = load_model(folder_of_model(name))
    else:
        config, preprocessing = config_from_name(name), Preprocessing(32, 32, 3, (0.5,) * 3, (0.25,) * 3)
        torch.manual_seed(0)
        labels = tuple(str(index) for index in range(config.classes))
        card = Card(name, {"family": "resnet"}, labels, preprocessing, weights_sha256="")
        loaded = LoadedModel(card, classifier_from_config(config, preprocessing).eval(), folder)
    path = folder / f"{name}.onnx"
    path.write_bytes(fp32_graph_of_model(loaded).SerializeToString())
    return path


def _child(method: str, file: Path, count: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", method, str(file), str(count)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def compare(models: list[str], counts: list[int], rounds: int, limit_gib: float) -> list[dict[str, Any]]:
    """A row for each model, number of images and method: the fastest round, and the largest memory of all."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in models:
            file = export(name, Path(folder))
            for count in counts:
                fitting = [m for m in METHODS if m != METHODS[-1] or count * GIB_AN_IMAGE < limit_gib]
                found: dict[str, list[dict[str, float]]] = {method: [] for method in fitting}
                for _ in range(rounds):
                    for method in fitting:
                        found[method].append(_child(method, file, count))
                plain, plain_cpu = (min(one[key] for one in found[METHODS[0]]) for key in ("seconds", "cpu_seconds"))
                for method, runs in found.items():
                    seconds = min(one["seconds"] for one in runs)
                    row = {"model": name, "images": count, "method": method, "seconds": round(seconds, 3)}
                    row |= {"ms_an_image": round(1000 * seconds / count, 3), "against_plain": round(seconds / plain, 2)}
                    row["cpu_against_plain"] = round(min(one["cpu_seconds"] for one in runs) / plain_cpu, 2)
                    rows.append(row | {"mib": round(max(one["mib"] for one in runs), 1)})
                    print("  ".join(f"{value!s:>14}" for value in rows[-1].values()), file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Calibration against ONNX Runtime's quantizer.")
    parser.add_argument("--models", default="resnet20,resnet32x32")
    parser.add_argument("--images", default="128,512,2048")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit-gib", type=float, default=10)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        method, file, count = options.one
        print(json.dumps(measure(method, Path(file), int(count))))
        return
    counts = [int(count) for count in options.images.split(",")]
    print(json.dumps({"rows": compare(options.models.split(","), counts, options.rounds, options.limit_gib)}))


if __name__ == "__main__":
    main()
