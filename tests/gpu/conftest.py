"""What the tests on a GPU start from; where a part is not here they are skipped with its reason in words.

They run in any Python that has numpy, pytest and one of the engines: with `python -m pytest tests/gpu --confcutdir
tests/gpu` neither torch nor hypothesis is needed. The bundles come from `benchmarks/gpu_inputs.py`; `make gpu` does
all of it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.bundle.reading import bundle_from_folder
from toolkit.contracts import Float32, Int64, UInt8
from toolkit.errors import BackendUnavailable
from toolkit.runtime.driver import Device, probe_driver
from toolkit.runtime.preflight import RTX_CAPABILITIES
from toolkit.runtime.trt import NEEDS_NO_GPU, TensorRT, find_tensorrt

ROOT = Path(__file__).resolve().parents[2]
MODELS = ("resnet32x32", "resnet20")
PRECISIONS = ("fp32", "fp16", "int8")
LARGEST_BATCH = 256  # of the engines' profile


@dataclass(frozen=True)
class Inputs:
    """Bundles by model, images uint8 (N, H, W, C) with labels, and ONNX Runtime's logits by "model precision"."""

    folder: Path
    models: dict[str, str]
    images: UInt8
    labels: Int64
    logits: dict[str, Float32]
    source: str
    missing: str

    def bundle(self, model: str) -> Path:
        """The bundle of a model, or a skip that says why there is none."""
        if model not in self.models:
            pytest.skip(f"no bundle of {model}: {self.missing}")
        return self.folder / model


@dataclass(frozen=True)
class Engine:
    """A plan, and the precision of the ONNX file that it was built from."""

    path: Path
    source: str


def child(*words: str, timeout: float = 900) -> subprocess.CompletedProcess[str]:
    """Runs this Python with the repository first in its path."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": paths}
    command = [sys.executable, *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)


@pytest.fixture(scope="session")
def gpu() -> Device:
    """The first GPU, as the driver names it."""
    driver = probe_driver()
    if not driver.available:
        pytest.skip(driver.reason)
    return driver.devices[0]


@pytest.fixture(scope="session")
def tensorrt(gpu: Device) -> TensorRT:
    """The TensorRT of this Python, if its engines run on this GPU."""
    try:
        found = find_tensorrt()
    except BackendUnavailable as error:
        pytest.skip(f"{error.what}: {error.found}")
    if found.kind == NEEDS_NO_GPU and gpu.compute_capability not in RTX_CAPABILITIES:
        pytest.skip(f"{found.name} runs on {', '.join(RTX_CAPABILITIES)}, and this GPU is {gpu.compute_capability}")
    return found


@pytest.fixture(scope="session")
def inputs(gpu: Device, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """From $TOOLKIT_GPU_INPUTS, else bundles/gpu-inputs, else made here, which needs torch, onnx and onnxruntime."""
    folder = Path(os.environ.get("TOOLKIT_GPU_INPUTS") or ROOT / "bundles" / "gpu-inputs")
    if not (folder / "inputs.json").is_file():
        folder = tmp_path_factory.mktemp("inputs")
        done = child(str(ROOT / "benchmarks" / "gpu_inputs.py"), "--out", str(folder))
        if done.returncode != 0:
            last = " ".join((done.stderr.strip().splitlines() or ["no word"])[-1].split())[:300]
            pytest.skip(f"there are no bundles to check, and this Python cannot make them: {last}")
    facts = json.loads((folder / "inputs.json").read_text())
    with np.load(folder / "inputs.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    images, labels = arrays.pop("images"), arrays.pop("labels")
    return Inputs(folder, facts["models"], images, labels, arrays, facts["source"], facts["missing"])


@pytest.fixture(scope="session")
def built(inputs: Inputs, tensorrt: TensorRT, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A model's bundle with engines of every precision, built by `toolkit build` once: also by `make gpu` before.

    $TOOLKIT_GPU_ENGINES is a folder of bundles that were built; their engines must be of this Python's TensorRT.
    """
    folders: dict[str, Path] = {}

    def build(model: str) -> Path:
        source = inputs.bundle(model)
        ready = Path(os.environ.get("TOOLKIT_GPU_ENGINES") or "/nonexistent") / model
        if model not in folders and _is_built_by(ready, tensorrt):
            folders[model] = ready
        if model not in folders:
            folder = tmp_path_factory.mktemp("engines") / model
            shutil.copytree(source, folder)
            words = ("--precision", ",".join(PRECISIONS), "--batch", f"1:8:{LARGEST_BATCH}")
            done = child("-m", "toolkit", "build", str(folder), *words)
            assert done.returncode == 0, done.stderr
            folders[model] = folder
        return folders[model]

    return build


def _is_built_by(folder: Path, tensorrt: TensorRT) -> bool:
    if not (folder / "manifest.json").is_file():
        return False
    wanted = {"kind": tensorrt.kind, "version": tensorrt.version}
    engines = bundle_from_folder(folder).engines()
    return bool(engines) and all(entry["tensorrt"] == wanted for entry in engines)


@pytest.fixture(scope="session")
def engine(built: Callable[[str], Path]) -> Callable[[str, str], Engine]:
    """The plan of a model and a precision; an int8 one is of the file that this TensorRT takes."""

    def find(model: str, precision: str) -> Engine:
        bundle = bundle_from_folder(built(model))
        sources = ("int8-fp16", "int8") if precision == "int8" else (precision,)
        entry = next(entry for source in sources for entry in bundle.engines() if entry["precision"] == source)
        return Engine(bundle.folder / entry["file"], entry["precision"])

    return find


@pytest.fixture
def runner(engine: Callable[[str, str], Engine]) -> Iterator[Callable[..., Any]]:
    """Opens a plan as a runner, closed at the end of the test; skips where this Python cannot speak to CUDA."""
    opened: list[Any] = []

    def open_one(model: str, precision: str, **how: Any) -> Any:
        from toolkit.runtime.trt_runner import TrtRunner

        path = engine(model, precision).path
        try:
            opened.append(TrtRunner(path, **how))
        except BackendUnavailable as error:
            pytest.skip(" ".join(str(part) for part in (error.what, error.found) if part))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


def top1_percent(logits: Float32, labels: Int64) -> float:
    """Right answers in percent."""
    return 100 * float((logits.argmax(axis=1) == labels).mean())


def in_batches(answer: Callable[[UInt8], Float32], images: UInt8, size: int = LARGEST_BATCH) -> Float32:
    """Logits of any number of images."""
    return np.concatenate([answer(images[start : start + size]) for start in range(0, len(images), size)])
