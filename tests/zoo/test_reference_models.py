"""Claims about the reference models' files: onnx's reference evaluator and OpenVINO read what ONNX Runtime does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.zoo.made import answers_of, made_of
from tests.zoo.readers import READ_ALIKE, Limit, readings_of
from toolkit.contracts import UInt8
from toolkit.exporting.artifacts import fp32_graph_of_model
from toolkit.models.checkpoint import load_model
from toolkit.workspace import DEFAULT_MODEL

ROOT = Path(__file__).parents[2]
NAMES = sorted(folder.name for folder in (ROOT / "models").iterdir())
# Three of the nets see clothes for the first time. In 15 to 55 convolutions a sum that lies between two steps of int8
# goes the other way somewhere, and on from there.
TRAINED = {**READ_ALIKE, **dict.fromkeys(("int8", "int8-cpu"), Limit(0.06, 0.99)), "int8-fp16": Limit(0.1, 0.94)}
# A share of 0.99 is asked of a hundred images. ONNX Runtime computes FP16 on a CPU, and without optimization, slowly.
COUNTS = {"reference": 1, "openvino": 100}
HALF = {"reference": 1, "openvino": 50}


def _images(part: str, channels: int) -> UInt8:
    """The default model's, whose license lets them lie here, in the other models' colors."""
    with np.load(ROOT / "calibration" / DEFAULT_MODEL / f"{part}.npz") as arrays:
        gray = arrays["images"]
    return np.broadcast_to(gray, (*gray.shape[:3], channels)).copy()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_reader_finds_in_a_file_what_onnx_runtime_does(name: str) -> None:
    model = load_model(ROOT / "models" / name)
    preprocessing = model.card.preprocessing
    calibrating, judging = (_images(part, preprocessing.channels) for part in ("calibration", "evaluation"))
    found = made_of(fp32_graph_of_model(model), calibrating[:64], preprocessing)
    for precision, file in found.files.items():
        counts = HALF if "fp16" in precision else COUNTS
        seen = judging[: counts["openvino"]]
        readings = readings_of(file, seen, answers_of(file, False, seen), counts)
        for reader, reading in readings.items():
            assert reading.within(TRAINED[precision]), f"{precision}: {reader} {reading}"
