"""Claims about layers: healthy files part nowhere, and a changed layer is the first that is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import numpy_helper

from toolkit.contracts import LabeledImages
from toolkit.graph.fp16 import fp16_from_onnx
from toolkit.verification.layers import first_nonfinite, layers_of_files, layers_of_optimized


@pytest.fixture
def files(tmp_path: Path, tiny_graph: onnx.ModelProto) -> tuple[Path, Path]:
    """The tiny net in fp32 and fp16."""
    onnx.save(tiny_graph, tmp_path / "a.onnx")
    onnx.save(fp16_from_onnx(tiny_graph), tmp_path / "b.onnx")
    return tmp_path / "a.onnx", tmp_path / "b.onnx"


def _scaled(path: Path, name: str, factor: float) -> Path:
    model = onnx.load(path)
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    values = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array((values * factor).astype(values.dtype), name))
    target = path.with_name("changed.onnx")
    onnx.save(model, target)
    return target


def test_fp16_parts_nowhere_and_every_node_has_a_row(
    files: tuple[Path, Path], structured_images: LabeledImages, tiny_graph: Any
) -> None:
    found = layers_of_files(*files, structured_images.images_nhwc, "fp16")
    assert found.parted is None
    assert found.images == 32
    assert {row.node for row in found.layers} >= {node.name for node in tiny_graph.graph.node if node.op_type == "Conv"}
    assert all(row.output_l2 is not None and row.output_l2 < 1e-2 for row in found.layers)


@pytest.mark.parametrize("layer", ["stages.0.0.conv2", "stages.1.0.conv1", "fc"])
def test_the_changed_layer_is_the_first_that_is_named(
    files: tuple[Path, Path], structured_images: LabeledImages, layer: str
) -> None:
    operator = "Gemm" if layer == "fc" else "Conv"
    for file, precision in zip(files, ("fp32", "fp16"), strict=True):
        changed = _scaled(file, f"{layer}.weight", 0.5)
        found = layers_of_files(files[0], changed, structured_images.images_nhwc, precision)
        assert found.parted == f"{layer}/{operator}"
        assert "relative L2" in found.rule


def test_an_optimized_file_parts_nowhere_from_itself(
    files: tuple[Path, Path], structured_images: LabeledImages
) -> None:
    seen: list[int] = []
    found = layers_of_optimized(files[0], structured_images.images_nhwc, "fp32", lambda done, total: seen.append(done))
    assert found.parted is None
    assert found.candidate == "a.onnx, optimized"
    assert max(row.output_l2 or 0 for row in found.layers) < 1e-5
    assert seen == sorted(seen)


def test_the_first_node_that_overflows_fp16_is_found(
    files: tuple[Path, Path], structured_images: LabeledImages
) -> None:
    assert first_nonfinite(files[1], structured_images.images_nhwc) is None
    changed = _scaled(files[1], "stages.1.0.conv1.weight", 30_000)
    changed = _scaled(changed, "stages.1.0.conv1.bias", 30_000)
    found = first_nonfinite(changed, structured_images.images_nhwc)
    assert found is not None
    assert found[0] == "stages.1.0.conv1/Conv"
    assert 0 < found[1] < 65504


def test_a_file_with_other_names_parts_where_nothing_is_known_of_the_inputs_nowhere(
    files: tuple[Path, Path], structured_images: LabeledImages
) -> None:
    model = onnx.load(_scaled(files[0], "fc.weight", 0.5))
    kept = {value.name for value in [*model.graph.input, *model.graph.output]}
    for node in model.graph.node:
        node.input[:] = [name if "." in name or name in kept else f"their_{name}" for name in node.input]
        node.output[:] = [name if "." in name or name in kept else f"their_{name}" for name in node.output]
    onnx.save(model, files[1])
    found = layers_of_files(*files, structured_images.images_nhwc, "fp32")
    (logits,) = (row for row in found.layers if row.node == "fc/Gemm")
    assert logits.output_l2 is not None
    assert logits.output_l2 > 0.1
    assert logits.input_l2 is None
    assert found.parted is None
