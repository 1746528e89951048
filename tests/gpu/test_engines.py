"""Claims about engines on a GPU: they build, run, and answer as ONNX Runtime does on the same file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.gpu.conftest import MODELS, PRECISIONS, Engine, Inputs, in_batches, top1_percent
from toolkit.errors import EngineError
from toolkit.runtime.driver import Device
from toolkit.runtime.trt import TensorRT

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]  # foreign libraries warn as they like
POINTS = {"fp32": 0.05, "fp16": 0.05, "int8": 0.2}  # of top-1 that an engine may differ from ONNX Runtime


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("model", MODELS)
def test_an_engine_builds_and_runs_and_says_what_it_is(
    model: str, precision: str, runner: Callable[..., Any], inputs: Inputs, tensorrt: TensorRT, gpu: Device
) -> None:
    one = runner(model, precision)
    logits = one.logits(inputs.images[:3])
    assert (logits.shape, logits.dtype) == ((3, inputs.logits[f"{model} fp32"].shape[1]), np.float32)
    assert np.isfinite(logits).all()
    assert one.name == "trt"
    assert tensorrt.version in one.description
    assert gpu.name in one.description


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("model", MODELS)
def test_top1_over_all_images_is_that_of_onnxruntime_on_the_same_file(
    model: str, precision: str, runner: Callable[..., Any], engine: Callable[[str, str], Engine], inputs: Inputs
) -> None:
    one = runner(model, precision)
    got = top1_percent(in_batches(one.logits, inputs.images), inputs.labels)
    expected = top1_percent(inputs.logits[f"{model} {engine(model, precision).source}"], inputs.labels)
    said = f"{got:.2f} % against {expected:.2f} % on {len(inputs.images):,} images of {inputs.source}"
    print(said)
    one_image = 100 / len(inputs.images)  # of a small set, an image is more than the points
    assert abs(got - expected) <= max(POINTS[precision], one_image) + 1e-9, said


@pytest.mark.parametrize("place", [0.0, 0.25, 0.5, 0.75, 0.999])
def test_an_engine_with_one_flipped_byte_is_refused(
    place: float, engine: Callable[[str, str], Engine], tmp_path: Path, runner: Callable[..., Any]
) -> None:
    from toolkit.runtime.trt_runner import TrtRunner

    runner(MODELS[0], "fp32")  # whole, it opens
    whole = engine(MODELS[0], "fp32").path
    for path in (whole, whole.with_name(f"{whole.name}.json")):
        shutil.copy2(path, tmp_path / path.name)
    plan = bytearray(whole.read_bytes())
    plan[int(place * len(plan))] ^= 1
    (tmp_path / whole.name).write_bytes(plan)
    with pytest.raises(EngineError, match="changed since it was built"):
        TrtRunner(tmp_path / whole.name)


def test_an_engine_of_another_gpu_is_refused_before_tensorrt_sees_it(
    engine: Callable[[str, str], Engine], tmp_path: Path, runner: Callable[..., Any]
) -> None:
    from toolkit.runtime.trt_runner import TrtRunner

    runner(MODELS[0], "fp32")
    whole = engine(MODELS[0], "fp32").path
    shutil.copy2(whole, tmp_path / whole.name)
    sidecar = json.loads(whole.with_name(f"{whole.name}.json").read_text())
    sidecar["builder"] |= {"compute_capability": "SM53", "device": "Nano"}
    sidecar["compute_capabilities"] = ["SM75" if sidecar["tensorrt"]["kind"] == "tensorrt" else "SM53"]
    (tmp_path / f"{whole.name}.json").write_text(json.dumps(sidecar))
    with pytest.raises(EngineError, match="not for this machine"):
        TrtRunner(tmp_path / whole.name)
