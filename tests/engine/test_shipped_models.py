"""Claims about every shipped model: TensorRT-RTX builds each of its files for GeForce 30, 40 and 50, INT8 in INT8.

One plan with all three capabilities is one build. Images are drawn at random: they place no Q/DQ and choose no type.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from toolkit.engine.build import BuildSettings
from toolkit.engine.engine_from_onnx import engine_from_onnx

if TYPE_CHECKING:
    import onnx

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx_bindings") is None,
    reason="TensorRT-RTX is not installed: pip install -e '.[rtx]'",
)
CAPABILITIES = ("SM86", "SM89", "SM120")
READS = {"fp32": "Float", "fp16": "Half", "int8": "Int8", "int8-fp16": "Int8"}
MODELS = sorted(path.parent.name for path in (Path(__file__).parent.parent.parent / "models").glob("*/card.json"))


def _graphs(name: str) -> Iterator[tuple[str, onnx.ModelProto]]:
    """The files that a bundle holds for TensorRT, from the weights that are shipped."""
    from toolkit.calibration.ranges import ranges_from_images
    from toolkit.graph.fp16 import fp16_from_onnx
    from toolkit.graph.from_torch import onnx_from_torch
    from toolkit.models.checkpoint import folder_of_model, load_model
    from toolkit.quantization.qdq import qdq_from_ranges

    model = load_model(folder_of_model(name))
    preprocessing = model.card.preprocessing
    images = np.random.default_rng(0).integers(0, 256, (8, *preprocessing.shape), dtype=np.uint8)
    fp32 = onnx_from_torch(model.classifier.eval(), preprocessing, {})
    record = ranges_from_images(fp32, images, preprocessing)
    yield "fp32", fp32
    yield "fp16", fp16_from_onnx(fp32)
    yield "int8", qdq_from_ranges(fp32, record)
    yield "int8-fp16", fp16_from_onnx(qdq_from_ranges(fp32, record, int8_weights=True))


def test_four_models_are_shipped() -> None:
    assert MODELS == ["resnet20-cifar10", "resnet32x32-cifar10", "resnet32x32-fashion", "resnet56-cifar10"]


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_file_builds_and_every_convolution_computes_in_its_type(name: str, tmp_path: Path) -> None:
    path, convolutions = tmp_path / "model.onnx", 0
    for precision, graph in _graphs(name):
        path.write_bytes(graph.SerializeToString())
        convolutions = convolutions or sum(node.op_type == "Conv" for node in graph.graph.node)
        engine = engine_from_onnx(path, tmp_path / f"{precision}.engine", settings=BuildSettings(CAPABILITIES))
        assert engine.sidecar["compute_capabilities"] == list(CAPABILITIES)
        assert engine.layer_report is not None
        assert engine.layer_report.convolutions() == convolutions >= 15
        assert engine.layer_report.convolutions(READS[precision]) == convolutions, precision
