"""Claims about classifiers of every family, whichever way they come: the same answers, every file, every engine."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.zoo.ways import NETS, PREPROCESSING, REFUSED, WAYS, graph_of, images, settled
from toolkit.calibration.ranges import ranges_from_images
from toolkit.calibration.record import Record
from toolkit.compare.parity import relative_l2
from toolkit.contracts import Float32
from toolkit.engine.engine_from_onnx import engine_from_onnx
from toolkit.graph.fp16 import fp16_from_onnx, require_fits_fp16
from toolkit.graph.qdq_placement import layers_in_graph
from toolkit.quantization.calib_cache import cache_from_ranges, scales_from_cache
from toolkit.quantization.ort_cpu import cpu_from_ranges
from toolkit.quantization.qdq import qdq_from_ranges
from toolkit.quantization.sensitivity import sensitivities_of_layers
from toolkit.runtime.ort.runner import OrtRunner

if TYPE_CHECKING:
    import onnx

FAST = {("vgg", "module"), ("resnet-a", "module"), ("shufflenet-v2", "module"), ("vit", "module"), ("cbam", "module")}
# The relative L2 that a file may be away from the network, and the share of images that it must answer as that does.
LIMITS = {"fp32": (1e-4, 1.0), "fp16": (0.01, 0.95), "int8": (0.12, 0.85), "int8-fp16": (0.12, 0.85),
          "int8-cpu": (0.12, 0.85)}  # fmt: skip
MATRIX = [
    pytest.param(net, way, marks=() if (net, way) in FAST else pytest.mark.slow, id=f"{net}-{way}")
    for net in NETS
    for way in WAYS
    if (net, way) not in REFUSED
]


@dataclass(frozen=True)
class Made:
    """Every file of a network, and the record that its INT8 ones were made of."""

    files: dict[str, onnx.ModelProto]
    record: Record


@cache
def made(net: str, way: str, folder: Path) -> Made:
    """Exported, measured and quantized as `toolkit export --int8 --fp16` does."""
    graph = graph_of(net, way, folder)
    record = ranges_from_images(graph, images(), PREPROCESSING, method="minmax")
    require_fits_fp16(graph, record.largest)
    int8, small = (qdq_from_ranges(graph, record, int8_weights=stored) for stored in (False, True))
    halves = {"fp16": fp16_from_onnx(graph), "int8-fp16": fp16_from_onnx(small)}
    return Made({"fp32": graph, "int8": int8, "int8-cpu": cpu_from_ranges(graph, record), **halves}, record)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("zoo")


def _answers(model: onnx.ModelProto, optimize: bool = True) -> Float32:
    with OrtRunner(model.SerializeToString(), optimize=optimize) as runner:
        logits: Float32 = runner.logits(images())
    return logits


@pytest.mark.parametrize(("net", "way"), MATRIX)
def test_every_file_answers_as_the_network_does(net: str, way: str, folder: Path) -> None:
    expected, found = settled(net).answers, made(net, way, folder)
    assert set(found.files) == set(LIMITS)
    for precision, model in found.files.items():
        got = _answers(model, optimize=precision != "int8-fp16")
        far, same = relative_l2(expected, got), (got.argmax(1) == expected.argmax(1)).mean()
        limit, least = LIMITS[precision]
        assert far <= limit, f"{precision}: {far:.2g}"
        assert same >= least, f"{precision}: {same:.2f}"
    # whatever the processor: products of int8 do not saturate, and nothing is fused that changes the answer
    plain, fused = (_answers(found.files["int8"], optimize) for optimize in (False, True))
    assert relative_l2(plain, fused) < 0.01
    assert set(scales_from_cache(cache_from_ranges(found.files["fp32"], found.record))) >= set(found.record.amax)


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx_bindings") is None, reason="TensorRT-RTX is not installed")
@pytest.mark.parametrize(("net", "way"), MATRIX)
def test_tensorrt_builds_every_file(net: str, way: str, folder: Path, tmp_path: Path) -> None:
    found = made(net, way, folder).files
    for precision in ("fp32", "fp16", "int8", "int8-fp16"):
        (tmp_path / "model.onnx").write_bytes(found[precision].SerializeToString())
        engine = engine_from_onnx(tmp_path / "model.onnx", tmp_path / "model.plan", batch=(1, 4, 8))
        assert engine.path.stat().st_size > 1000


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx_bindings") is None, reason="TensorRT-RTX is not installed")
@pytest.mark.parametrize("net", ["mlp", "vit", "mixer"])
def test_tensorrt_reads_int8_in_every_product_that_is_quantized(net: str, folder: Path, tmp_path: Path) -> None:
    found = made(net, "module", folder).files
    (tmp_path / "model.onnx").write_bytes(found["int8"].SerializeToString())
    report = engine_from_onnx(tmp_path / "model.onnx", tmp_path / "model.plan", batch=(1, 4, 8)).layer_report
    assert report is not None
    products = [name for name in layers_in_graph(found["fp32"]) if name.endswith(("MatMul", "Gemm"))]
    reading = sum(count for kind, reads, _, count in report.kinds if kind == "gemm" and reads.startswith("Int8"))
    assert reading == len(products) >= 2


@pytest.mark.parametrize("net", ["mlp", pytest.param("vit", marks=pytest.mark.slow)])
def test_sensitivity_measures_every_layer_alone(net: str, folder: Path) -> None:
    found = made(net, "module", folder)
    layers = sensitivities_of_layers(found.files["fp32"], found.record, images()[:16])
    assert {layer.node for layer in layers} == set(layers_in_graph(found.files["fp32"]))
    assert all(np.isfinite(layer.parity.relative_l2) and layer.parity.relative_l2 > 0 for layer in layers)


def test_the_zoo_has_thirty_families_whose_images_get_different_answers() -> None:
    assert len(NETS) >= 30
    assert all(len(set(settled(net).answers.argmax(1))) >= 5 for net in ("vgg", "vit", "mlp", "gru", "odds"))
