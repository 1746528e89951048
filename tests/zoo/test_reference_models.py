"""Claims about the reference models' files: every reader answers as ONNX Runtime does, TensorRT-RTX computes INT8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.zoo.made import RTX, answers_of, engine_of, made_of
from tests.zoo.readers import READ_ALIKE, Limit, readings_of
from toolkit.contracts import UInt8
from toolkit.engine.build import BuildSettings
from toolkit.exporting.artifacts import fp32_graph_of_model
from toolkit.models.checkpoint import load_model
from toolkit.workspace import DEFAULT_MODEL

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.parent.name for path in (ROOT / "models").glob("*/card.json"))
# Three of the nets see clothes for the first time. In 15 to 55 convolutions a sum that lies between two steps of int8
# goes the other way somewhere, and on from there.
TRAINED = {**READ_ALIKE, **dict.fromkeys(("int8", "int8-cpu"), Limit(0.06, 0.99)), "int8-fp16": Limit(0.1, 0.94)}
SEEN = 50  # images, one of which a share of 0.99 lets go; the reader in numpy gets one, of the default model alone
CAPABILITIES = ("SM86", "SM89", "SM120")  # GeForce 30, 40 and 50; one plan for all three is one build
READS = {"fp32": "Float", "fp16": "Half", "int8": "Int8", "int8-fp16": "Int8"}  # the files for TensorRT


def _images(part: str, channels: int) -> UInt8:
    """The default model's, whose license lets them lie here, in the other models' colors."""
    with np.load(ROOT / "calibration" / DEFAULT_MODEL / f"{part}.npz") as arrays:
        gray = arrays["images"]
    return np.broadcast_to(gray, (*gray.shape[:3], channels)).copy()


def test_four_models_are_shipped() -> None:
    assert NAMES == ["resnet20-cifar10", "resnet32x32-cifar10", "resnet32x32-fashion", "resnet56-cifar10"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_reader_answers_alike_and_every_convolution_computes_in_its_type(name: str, tmp_path: Path) -> None:
    model = load_model(ROOT / "models" / name)
    preprocessing = model.card.preprocessing
    calibrating, judging = (_images(part, preprocessing.channels) for part in ("calibration", "evaluation"))
    found = made_of(fp32_graph_of_model(model), calibrating[:64], preprocessing)
    seen, counts = judging[:SEEN], {"openvino": SEEN} | ({"reference": 1} if name == DEFAULT_MODEL else {})
    for precision, file in found.files.items():
        for reader, reading in readings_of(file, seen, answers_of(file, False, seen), counts).items():
            assert reading.within(TRAINED[precision]), f"{precision}: {reader} {reading}"
    if RTX:
        convolutions = sum(node.op_type == "Conv" for node in found.files["fp32"].graph.node)
        for precision, type_ in READS.items():
            engine = engine_of(found.files[precision], tmp_path, settings=BuildSettings(CAPABILITIES))
            assert engine.sidecar["compute_capabilities"] == list(CAPABILITIES)
            assert engine.layer_report is not None
            assert engine.layer_report.convolutions() == convolutions >= 15
            assert engine.layer_report.convolutions(type_) == convolutions, precision
