"""What the checks on a GPU start from: bundles, images, and ONNX Runtime's logits of the same files on the CPU.

    python benchmarks/gpu_inputs.py [--out bundles/gpu-inputs] [--images 10000]

Needs torch, onnx and onnxruntime, and no GPU: make it on the laptop and copy the folder, or let `make gpu` make it.
With CIFAR-10 ($TOOLKIT_DATA) these are resnet32x32 and ResNet-20 on its 10,000 test images; without, the default model
on its own evaluation images, and `inputs.json` says so. Writes OUT/<model>/, OUT/inputs.npz and, last, OUT/inputs.json.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from toolkit.bundle.manifest import FOR_TENSORRT, VARIANTS  # noqa: E402
from toolkit.bundle.reading import Bundle, bundle_from_folder  # noqa: E402
from toolkit.compare.parity import logits_in_batches, score_from_logits  # noqa: E402
from toolkit.contracts import LabeledImages  # noqa: E402
from toolkit.data import dataset_from_spec  # noqa: E402
from toolkit.errors import DataError, ToolkitError  # noqa: E402
from toolkit.runtime.ort.runner import OrtRunner  # noqa: E402
from toolkit.storage.files import write_json  # noqa: E402
from toolkit.verification.images import evaluation_images  # noqa: E402

CIFAR10 = {"resnet32x32": "resnet32x32-cifar10", "resnet20": "resnet20-cifar10"}
OTHERWISE = {"resnet32x32": "resnet32x32-fashion"}


def say(text: str) -> None:
    """A line for people."""
    print(text, file=sys.stderr, flush=True)


def exported(model: str, folder: Path) -> Bundle:
    """The model's bundle in every precision; one that is there is taken."""
    if not (folder / "manifest.json").is_file():
        say(f"export {model} ...")
        words = ["export", model, "--int8", "--fp16", "--no-engines", "-o", str(folder)]
        paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = os.environ | {"PYTHONPATH": paths}
        done = subprocess.run(
            [sys.executable, "-m", "toolkit", *words], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise ToolkitError(f"toolkit {' '.join(words)} failed", found=done.stderr[-2000:])
    return bundle_from_folder(folder)


def images_of_models() -> tuple[dict[str, str], LabeledImages | None, str]:
    """The models by role, the images that judge all of them (None: each its own), and what is not there."""
    try:
        return CIFAR10, dataset_from_spec("cifar10").test, ""
    except DataError as error:
        return OTHERWISE, None, f"{error.what}, so ResNet-20 is left out"


def size_mib(folder: Path) -> float:
    """What a machine with a GPU has to be sent."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20


def main() -> None:
    """Makes what is missing; a second call does nothing."""
    parser = argparse.ArgumentParser(description="Inputs of the checks on a GPU.")
    parser.add_argument("--out", type=Path, default=ROOT / "bundles" / "gpu-inputs")
    parser.add_argument("--images", type=int, default=10_000, help="at most so many evaluation images")
    options = parser.parse_args()
    if (options.out / "inputs.json").is_file():
        return say(f"{options.out} is there already, {size_mib(options.out):.1f} MiB")
    models, images, missing = images_of_models()
    if missing:
        say(missing)
    arrays: dict[str, np.ndarray] = {}
    facts = {}
    for role, model in models.items():
        bundle = exported(model, options.out / role)
        images = evaluation_images(bundle, None, None) if images is None else images
        judged = images.take(slice(options.images), images.source)
        for precision in (name for name in FOR_TENSORRT if name in bundle.precisions):
            began = time.monotonic()
            with OrtRunner(bundle.onnx_file(precision), optimize=VARIANTS[precision].optimize) as runner:
                logits = logits_in_batches(runner, judged.images_nhwc)
                facts[f"{role} {precision}"] = runner.description
            arrays[f"{role} {precision}"] = logits
            top1 = score_from_logits(logits, judged.labels).top1_percent
            say(f"{role:12} {precision:10} {top1:6.2f} % on {len(judged):,} images, {time.monotonic() - began:.0f} s")
    np.savez_compressed(options.out / "inputs.npz", images=judged.images_nhwc, labels=judged.labels, **arrays)
    document = {"models": models, "source": judged.source, "images": len(judged), "missing": missing, "logits": facts}
    write_json(options.out / "inputs.json", document)
    say(f"{options.out}: {size_mib(options.out):.1f} MiB")


if __name__ == "__main__":
    try:
        main()
    except ToolkitError as error:
        sys.exit(str(error))
