"""Claims about engines on a GPU: what they are made of, and that they answer as ONNX Runtime does on the same file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.gpu.conftest import MODELS, Engine, Inputs, in_batches, keep
from tests.gpu.conftest import SOURCES as ALL_SOURCES
from toolkit.compare.parity import Parity, parity_from_logits
from toolkit.runtime.driver import Device
from toolkit.runtime.trt.layer_report import layer_report_from_dict
from toolkit.runtime.trt.module import TensorRT
from toolkit.runtime.trt.preflight import sidecar_path

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]  # foreign libraries warn as they like
LOOKED_AT = tuple(os.environ.get("TOOLKIT_GPU_MODELS", ",".join(MODELS)).split(","))
SOURCES = tuple(os.environ.get("TOOLKIT_GPU_SOURCES", ",".join(ALL_SOURCES)).split(","))
POINTS = {"fp32": 0.05, "fp16": 0.05, "int8-fp16": 0.2, "int8": 0.2}  # of top-1 that it may differ from ONNX Runtime
# Of the images, in percent, that may answer otherwise than in ONNX Runtime; and of the logits the relative L2. float32
# may be computed in TF32 (10 bits of mantissa), FP16 has 11 bits, an INT8 engine may tip roundings. A net that was read
# wrongly is far outside: 3 to 87 % of the images.
FLIPS = {"fp32": 0.3, "fp16": 0.5, "int8-fp16": 2.0, "int8": 2.0}
DISTANCE = {"fp32": 5e-3, "fp16": 2e-2, "int8-fp16": 8e-2, "int8": 8e-2}
_known: dict[tuple[str, str], Parity] = {}


@pytest.fixture
def parity(
    runner: Callable[..., Any], engine: Callable[..., Engine], inputs_of: Callable[[str], Inputs]
) -> Callable[[str, str], Parity]:
    """Every image through an engine, once, against ONNX Runtime's logits of the file that it was built from."""

    def compare(model: str, source: str) -> Parity:
        if (model, source) not in _known:
            inputs = inputs_of(model)
            if source not in inputs.logits:
                engine(model, source, True)  # skips with its own reason where there is no such engine
                pytest.skip(f"there are no logits of ONNX Runtime for {model} {source}")
            got = in_batches(runner(model, source, True).logits, inputs.images)
            found = parity_from_logits("ort", "trt", inputs.logits[source], got, inputs.labels)
            keep(
                "answers",
                {"model": model, "source": source, "images": len(got), "of": inputs.source, **found.as_dict()},
            )
            _known[model, source] = found
        return _known[model, source]

    return compare


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("model", [name for name in MODELS if name in LOOKED_AT])
def test_an_engine_runs_and_says_what_it_is(
    model: str,
    source: str,
    runner: Callable[..., Any],
    inputs_of: Callable[[str], Inputs],
    tensorrt: TensorRT,
    gpu: Device,
) -> None:
    one = runner(model, source, True)
    logits = one.logits(inputs_of(model).images[:3])
    print(one.description)
    assert logits.shape[0] == 3
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()
    assert one.name == "trt"
    assert tensorrt.version in one.description
    assert gpu.name in one.description


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("model", [name for name in MODELS if name in LOOKED_AT])
def test_the_logits_are_onnxruntimes_of_the_same_file(
    model: str, source: str, parity: Callable[[str, str], Parity]
) -> None:
    found = parity(model, source)
    images = found.candidate_score.images
    said = f"relative L2 {found.relative_l2:.2e}, {found.flips} of {images:,} images flip, {found.nonfinite} not finite"
    print(said)
    assert found.nonfinite == 0, said
    assert found.relative_l2 <= DISTANCE[source], said
    assert found.flips <= max(1.0, FLIPS[source] * images / 100), said


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("model", [name for name in MODELS if name in LOOKED_AT])
def test_top1_over_all_images_is_that_of_onnxruntime_on_the_same_file(
    model: str, source: str, parity: Callable[[str, str], Parity]
) -> None:
    found = parity(model, source)
    got, expected, images = (
        found.candidate_score.top1_percent,
        found.reference_score.top1_percent,
        found.candidate_score.images,
    )
    said = f"{got:.2f} % against {expected:.2f} % on {images:,} images"
    print(said)
    one_image = 100 / images  # of a small set, an image is more than the points
    assert abs(got - expected) <= max(POINTS[source], one_image) + 1e-9, said


@pytest.mark.parametrize("source", [name for name in ("int8-fp16", "int8") if name in SOURCES])
@pytest.mark.parametrize("model", [name for name in MODELS if name in LOOKED_AT])
def test_most_convolutions_read_int8(model: str, source: str, engine: Callable[..., Engine]) -> None:
    sidecar = json.loads(sidecar_path(engine(model, source, True).path).read_text())
    if sidecar.get("stand_in"):
        pytest.skip("the stand-in for TensorRT lists no layers")
    layers = layer_report_from_dict(sidecar["census"])
    if layers is None and sidecar["tensorrt"]["version"].startswith("8."):
        pytest.skip(f"the inspector of TensorRT 8 is no help: {sidecar['census_reason']}")
    assert layers is not None, sidecar.get("census_reason")
    total, int8 = layers.convolutions(), layers.convolutions("Int8")
    print(f"{int8} of {total} convolutions read INT8; {layers.conversions} layers convert, {layers.layers} in all")
    keep("layers", {"model": model, "source": source, "convolutions": total, "int8": int8, "layers": layers.layers})
    assert total > 0
    assert int8 >= 0.75 * total
