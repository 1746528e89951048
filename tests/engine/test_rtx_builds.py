"""Claims about real builds: TensorRT-RTX takes every graph that we emit and computes in the precision of the file."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from toolkit.contracts import preprocessing_from_images
from toolkit.engine.engine_from_onnx import Engine, engine_from_onnx

if TYPE_CHECKING:
    import onnx

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx_bindings") is None,
    reason="TensorRT-RTX is not installed: pip install -e '.[rtx]'",
)

TYPES = {"fp32": "Float", "fp16": "Half", "int8": "Int8", "int8-fp16": "Int8"}


@pytest.fixture(scope="module")
def graphs() -> dict[str, onnx.ModelProto]:
    """A tiny net with random weights in every precision for TensorRT; tests/zoo builds large ones."""
    import torch

    from toolkit.calibration.ranges import ranges_from_images
    from toolkit.graph.fp16 import fp16_from_onnx
    from toolkit.graph.from_torch import onnx_from_torch
    from toolkit.models.checkpoint import classifier_from_config
    from toolkit.models.resnet import ResNetConfig
    from toolkit.quantization.qdq import qdq_from_ranges

    config = ResNetConfig(widths=(8, 16), blocks=(1, 1), strides=(1, 2), in_channels=1, classes=3)
    images = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 1), dtype=np.uint8)
    preprocessing = preprocessing_from_images(images)
    torch.manual_seed(0)
    fp32 = onnx_from_torch(classifier_from_config(config, preprocessing).eval(), preprocessing, {})
    record = ranges_from_images(fp32, images, preprocessing)
    small = qdq_from_ranges(fp32, record, int8_weights=True)
    return {
        "fp32": fp32,
        "fp16": fp16_from_onnx(fp32),
        "int8": qdq_from_ranges(fp32, record),
        "int8-fp16": fp16_from_onnx(small),
    }


def _built(graph: Any, folder: Path) -> Engine:
    (folder / "model.onnx").write_bytes(graph.SerializeToString())
    return engine_from_onnx(folder / "model.onnx", folder / "model.plan", batch=(1, 8, 64))


@pytest.mark.slow
@pytest.mark.parametrize("precision", TYPES)
def test_every_convolution_computes_in_the_precision_of_the_file_from_uint8_images_to_float32_logits(
    graphs: dict[str, onnx.ModelProto], precision: str, tmp_path: Path
) -> None:
    engine = _built(graphs[precision], tmp_path)
    convolutions = sum(node.op_type == "Conv" for node in graphs["fp32"].graph.node)
    assert engine.layer_report is not None
    assert engine.layer_report.convolutions() == convolutions >= 6
    assert engine.layer_report.convolutions(TYPES[precision]) == convolutions
    assert engine.path.stat().st_size > 1000
    (images,), (logits,) = engine.sidecar["inputs"], engine.sidecar["outputs"]
    assert (images["name"], images["dtype"], images["shape"][0]) == ("images", "uint8", -1)
    assert (logits["name"], logits["dtype"]) == ("logits", "float32")
    assert [shape[0] for shape in engine.sidecar["profile"]["images"]] == [1, 8, 64]
