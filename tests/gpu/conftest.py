"""What the tests on a GPU start from; where a part is not here they are skipped with its reason in words.

They run in any Python that has numpy, pytest and one of the engines: with `python -m pytest tests/gpu --confcutdir
tests/gpu` neither torch nor hypothesis is needed. The real nets' bundles come from `benchmarks/gpu_inputs.py`, their
engines from `benchmarks/gpu_check.py`, which `make gpu` calls; the tiny net is always there, and built where it is not.
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

from toolkit.bundle.manifest import VARIANTS
from toolkit.bundle.reading import bundle_from_folder
from toolkit.contracts import Float32, Int64, UInt8
from toolkit.errors import BackendUnavailable
from toolkit.runtime.driver import Device, probe_driver
from toolkit.runtime.trt.module import NEEDS_NO_GPU, TensorRT, find_tensorrt
from toolkit.runtime.trt.preflight import RTX_CAPABILITIES

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "tests" / "bundle" / "format-1"
MODELS = ("tiny", "resnet32x32", "resnet20")
STANDIN = os.environ.get("TOOLKIT_GPU_STANDIN", "")  # of a rehearsal: "python", or a "library" under the real bindings
PRECISIONS = ("fp32", "fp16", "int8")
SOURCES = ("fp32", "fp16", "int8-fp16", "int8")  # of an engine: the ONNX files that TensorRT reads
LARGEST_BATCH = 256  # of the engines' profile


@dataclass(frozen=True)
class Inputs:
    """One model's images uint8 (N, H, W, C) with labels, and ONNX Runtime's logits by the ONNX file's precision."""

    model: str
    folder: Path
    images: UInt8
    labels: Int64
    logits: dict[str, Float32]
    source: str


@dataclass(frozen=True)
class Engine:
    """A plan, and the precision of the ONNX file that it was built from."""

    path: Path
    source: str


def child(*words: str, timeout: float = 60, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs this Python with the repository first in its path."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": paths} | variables
    command = [sys.executable, *words]
    try:
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired as ended:
        said = "\n".join((part or b"").decode(errors="replace")[-1200:] for part in (ended.stdout, ended.stderr))
        pytest.fail(f"a child did not end within {timeout:.0f} s; it said:\n{said}", pytrace=False)


def keep(name: str, document: dict[str, Any]) -> None:
    """Adds a line of JSON to what `benchmarks/gpu_check.py` brings back; elsewhere nothing."""
    if folder := os.environ.get("TOOLKIT_GPU_RESULTS"):
        file = Path(folder) / "documents" / f"{name}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as stream:
            stream.write(json.dumps(document) + "\n")


def quick(calls: int, few: int) -> int:
    """How many calls; few in a rehearsal, where a CPU computes them."""
    return few if os.environ.get("TOOLKIT_GPU_QUICK") else calls


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


def inputs_folder() -> Path:
    """$TOOLKIT_GPU_INPUTS, else where `gpu_inputs.py` puts it."""
    return Path(os.environ.get("TOOLKIT_GPU_INPUTS") or ROOT / "bundles" / "gpu-inputs")


@pytest.fixture(scope="session")
def inputs_of(gpu: Device) -> Callable[[str], Inputs]:
    """A model's inputs, read once: the tiny net's golden images, turned and moved; the others' test images."""
    known: dict[str, Inputs] = {}

    def find(model: str) -> Inputs:
        if model not in known:
            known[model] = _tiny_inputs() if model == "tiny" else _real_inputs(model)
        return known[model]

    return find


def _real_inputs(model: str) -> Inputs:
    folder = inputs_folder()
    if not (folder / "inputs.json").is_file() or not (folder / model).is_dir():
        pytest.skip(f"no bundle of {model} in {folder}: python benchmarks/gpu_inputs.py makes it, without a GPU")
    facts = json.loads((folder / "inputs.json").read_text())
    with np.load(folder / "inputs.npz") as stored:
        logits = {name.partition(" ")[2]: stored[name] for name in stored.files if name.startswith(f"{model} ")}
        images, labels = stored["images"], stored["labels"]
    return Inputs(model, folder / model, images, labels, logits, facts["source"])


def _tiny_inputs() -> Inputs:
    """600 images; ONNX Runtime answers them here, where it is installed."""
    golden, _ = bundle_from_folder(TINY).golden()
    moved = [np.roll(golden.images_nhwc, (i % 7, i // 7), axis=(1, 2)) for i in range(25)]
    images = np.concatenate([*moved, *[part[:, ::-1, ::-1] for part in moved]])
    labels = np.tile(golden.labels, 50)
    logits = {}
    try:
        from toolkit.runtime.ort.runner import OrtRunner

        for source in SOURCES:
            if (TINY / VARIANTS[source].file).is_file():
                with OrtRunner(TINY / VARIANTS[source].file, optimize=VARIANTS[source].optimize) as one:
                    logits[source] = in_batches(one.logits, images, 100)
    except Exception as error:  # the claims that need them say that they have none
        print(f"ONNX Runtime gives no logits: {error}")
    return Inputs("tiny", TINY, np.ascontiguousarray(images), labels, logits, "golden images, moved and turned")


@pytest.fixture(scope="session")
def model() -> str:
    """The net whose calls are looked at: $TOOLKIT_GPU_MODEL, else the tiny one."""
    return os.environ.get("TOOLKIT_GPU_MODEL") or "tiny"


@pytest.fixture(scope="session")
def inputs(model: str, inputs_of: Callable[[str], Inputs]) -> Inputs:
    """The inputs of that net."""
    return inputs_of(model)


@pytest.fixture(scope="session")
def built(gpu: Device, tensorrt: TensorRT, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A model's bundle with engines: from $TOOLKIT_GPU_ENGINES, else built here by `toolkit build`."""
    folders: dict[str, Path] = {}

    def build(model: str) -> Path:
        ready = Path(os.environ.get("TOOLKIT_GPU_ENGINES") or "/nonexistent") / model
        if (ready / "manifest.json").is_file():
            return ready
        if model not in folders:
            source = TINY if model == "tiny" else _real_inputs(model).folder
            folder = tmp_path_factory.mktemp("engines") / model
            shutil.copytree(source, folder)
            there = ",".join(name for name in PRECISIONS if (folder / VARIANTS[name].file).is_file())
            level = ("--opt-level", "0") if model == "tiny" else ()
            words = ("--precision", there, "--batch", f"1:8:{LARGEST_BATCH}", *level)
            done = child("-m", "toolkit", "build", str(folder), *words, timeout=600)
            assert done.returncode == 0, done.stderr
            folders[model] = folder
        return folders[model]

    return build


@pytest.fixture(scope="session")
def engine(built: Callable[[str], Path]) -> Callable[[str, str], Engine]:
    """The plan of a model and a source; "int8" alone means the file that this TensorRT takes by itself."""

    def find(model: str, source: str, exactly: bool = False) -> Engine:
        bundle = bundle_from_folder(built(model))
        sources = ("int8-fp16", "int8") if source == "int8" and not exactly else (source,)
        for wanted in sources:
            for entry in bundle.engines():
                if entry["precision"] == wanted:
                    return Engine(bundle.folder / entry["file"], wanted)
        beside = bundle.folder.parent / "extra" / f"{model}.{source}.engine"
        if beside.is_file():
            return Engine(beside, source)
        if not (bundle.folder / VARIANTS[source].file).is_file():
            pytest.skip(f"the bundle of {model} has no {source} file")
        pytest.skip(f"no engine of {model} was built from its {source} file")

    return find


@pytest.fixture
def runner(engine: Callable[..., Engine]) -> Iterator[Callable[..., Any]]:
    """Opens a plan as a runner, closed at the end of the test; skips where this Python cannot speak to CUDA."""
    opened: list[Any] = []

    def open_one(model: str, source: str, exactly: bool = False, **how: Any) -> Any:
        from toolkit.runtime.trt.runner import TrtRunner

        opened.append(TrtRunner(engine(model, source, exactly).path, **how))
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
