"""A pytest plugin that lets `tests/gpu` run on the stand-ins for libcuda and TensorRT, to try the tests themselves.

Loaded with `-p tests.gpu_on_standin` where the stand-in libcuda.so.1 is first in the library path. The bundles are
copies of a small one; what starts another process or another engine is left out, because the stand-ins are not there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runtime import standin_tensorrt
from tests.runtime.cuda.inside.conftest import TINY, sidecar
from toolkit.bundle.reading import FOR_TENSORRT, ONNX_FILES
from toolkit.runtime import trt as trt_module
from toolkit.runtime.ort import OrtRunner

VERSION = "10.3.0"
MODELS = ("resnet32x32", "resnet20")
CALLS = 400
LEFT_OUT = ("test_commands", "test_ort_on_gpu", "pycuda_and_cuda_python", "torch_tensors", "more_images_take")


def _bundle(folder: Path) -> None:
    """The small bundle with an fp16 file (a copy of fp32) and an engine of each precision."""
    shutil.copytree(TINY, folder)
    shutil.copy(folder / "model.onnx", folder / ONNX_FILES["fp16"])
    (folder / "engines").mkdir()
    manifest = json.loads((folder / "manifest.json").read_text())
    names = [ONNX_FILES["fp16"]]
    manifest["engines"] = []
    for precision in FOR_TENSORRT:
        plan = standin_tensorrt.plan_from_onnx((folder / ONNX_FILES[precision]).read_bytes(), largest=256)
        name = f"engines/{Path(ONNX_FILES[precision]).stem}.engine"
        (folder / name).write_bytes(plan)
        facts = sidecar(plan, VERSION)
        (folder / f"{name}.json").write_text(json.dumps(facts))
        manifest["engines"].append({"file": name, "precision": precision, "tensorrt": facts["tensorrt"]})
        names += [name, f"{name}.json"]
    for name in names:
        data = (folder / name).read_bytes()
        manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _inputs(folder: Path) -> None:
    """600 images of noise, and ONNX Runtime's logits of every file."""
    images = np.random.default_rng(0).integers(0, 256, (600, 16, 16, 3), np.uint8)
    arrays: dict[str, Any] = {}
    for precision in FOR_TENSORRT:
        with OrtRunner(folder / MODELS[0] / ONNX_FILES[precision], threads=1) as runner:
            logits = np.concatenate([runner.logits(images[i : i + 100]) for i in range(0, 600, 100)])
        arrays |= {f"{model} {precision}": logits for model in MODELS}
    labels = arrays[f"{MODELS[0]} fp32"].argmax(axis=1)
    np.savez(folder / "inputs.npz", images=images, labels=labels, **arrays)
    facts = {"models": dict.fromkeys(MODELS, "tiny"), "source": "noise", "images": 600, "missing": ""}
    (folder / "inputs.json").write_text(json.dumps(facts))


def pytest_configure(config: pytest.Config) -> None:
    """Puts the stand-in where TensorRT is looked for, and the bundles where the tests look for theirs."""
    folder = Path(tempfile.mkdtemp(prefix="gpu-on-standin-"))
    config.add_cleanup(lambda: shutil.rmtree(folder))
    module = standin_tensorrt.module(VERSION)
    trt_module._installed = lambda load: ([("tensorrt", module)], [])
    for model in MODELS:
        _bundle(folder / model)
    _inputs(folder)
    os.environ["TOOLKIT_GPU_INPUTS"] = os.environ["TOOLKIT_GPU_ENGINES"] = str(folder)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what the stand-ins cannot do, and makes fewer calls."""
    from tests.gpu import test_calls

    test_calls.CALLS, test_calls.SHARE = CALLS, (0.0, 100.0)  # a busy CPU keeps no time
    left_out = [item for item in items if any(word in item.nodeid for word in LEFT_OUT)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def pytest_sessionfinish() -> None:
    """What TensorRT's guide forbids must not have happened."""
    assert standin_tensorrt.violations == []
