"""Claims about FP16 files: typed throughout, nothing overflows unseen, and the answers stay close."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper, shape_inference

from toolkit.calibration.ranges import ranges_from_images
from toolkit.contracts import LabeledImages, Preprocessing
from toolkit.errors import ExportError
from toolkit.graph.fp16 import LARGEST, PREPROCESS, fp16_from_onnx, require_fits_fp16
from toolkit.runtime.ort.runner import OrtRunner


def _with_weight(model: onnx.ModelProto, name: str, value: float) -> onnx.ModelProto:
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    values = numpy_helper.to_array(tensor).copy()
    values.reshape(-1)[0] = value
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    return model


def test_weights_are_half_and_preprocessing_is_not(tiny_graph: onnx.ModelProto) -> None:
    kinds = {tensor.name: tensor.data_type for tensor in fp16_from_onnx(tiny_graph).graph.initializer}
    preprocess = {name for name in kinds if name.startswith("preprocess.")}
    assert preprocess == {"preprocess.scale", "preprocess.shift"}
    assert {kinds[name] for name in preprocess} == {TensorProto.FLOAT}
    assert {kinds[name] for name in kinds.keys() - preprocess} == {TensorProto.FLOAT16}


def test_images_stay_uint8_and_logits_float32(tiny_graph: onnx.ModelProto) -> None:
    graph = fp16_from_onnx(tiny_graph).graph
    assert graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    assert graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert (graph.input[0].name, graph.output[0].name) == ("images", "logits")


def test_every_activation_between_the_two_casts_is_half(tiny_graph: onnx.ModelProto) -> None:
    graph = shape_inference.infer_shapes(fp16_from_onnx(tiny_graph), strict_mode=True).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    assert [node.name for node in graph.node if node.op_type == "Cast"] == [
        "preprocess/Cast",
        "preprocess/CastToHalf",
        "head/CastToFloat",
    ]
    inside = [node for node in graph.node if not node.name.startswith(PREPROCESS)][:-1]
    assert len(inside) >= 12
    assert {kinds[name] for node in inside for name in node.output} == {TensorProto.FLOAT16}


def test_the_source_graph_is_left_alone(tiny_graph: onnx.ModelProto) -> None:
    before = tiny_graph.SerializeToString()
    fp16_from_onnx(tiny_graph)
    assert tiny_graph.SerializeToString() == before


def test_answers_are_close_to_fp32_and_not_the_same(
    tiny_graph: onnx.ModelProto, structured_images: LabeledImages
) -> None:
    images = structured_images.images_nhwc
    with (
        OrtRunner(tiny_graph.SerializeToString()) as fp32,
        OrtRunner(fp16_from_onnx(tiny_graph).SerializeToString()) as fp16,
    ):
        expected, got = fp32.logits(images), fp16.logits(images)
    assert got.dtype == np.float32
    assert np.array_equal(got.argmax(1), expected.argmax(1))
    assert 0 < np.abs(got - expected).max() < 0.01 * np.abs(expected).max()


def test_a_net_within_the_range_passes_with_the_ranges_of_a_calibration(
    tiny_graph: onnx.ModelProto, structured_images: LabeledImages, tiny_preprocessing: Preprocessing
) -> None:
    record = ranges_from_images(tiny_graph, structured_images.images_nhwc, tiny_preprocessing)
    require_fits_fp16(tiny_graph, record.largest)
    assert "logits" in record.largest


@pytest.mark.parametrize("value", [65536.0, -1e6, np.inf, np.nan])
def test_a_weight_beyond_half_precision_is_refused_by_name(tiny_graph: onnx.ModelProto, value: float) -> None:
    with pytest.raises(ExportError, match=r"weight 'stages\.0\.0\.conv1\.weight' overflows FP16") as caught:
        require_fits_fp16(_with_weight(tiny_graph, "stages.0.0.conv1.weight", value), {})
    assert caught.value.fix == "export without `fp16=True`"


def test_the_largest_half_precision_number_is_a_weight_like_any_other(tiny_graph: onnx.ModelProto) -> None:
    model = _with_weight(tiny_graph, "fc.bias", LARGEST)
    require_fits_fp16(model, {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        halves = {tensor.name: numpy_helper.to_array(tensor) for tensor in fp16_from_onnx(model).graph.initializer}
    assert halves["fc.bias"][0] == LARGEST


@pytest.mark.parametrize("largest", [LARGEST, LARGEST / 2 + 1, float("inf"), float("nan")])
def test_an_activation_too_close_to_the_end_is_refused_by_name(tiny_graph: onnx.ModelProto, largest: float) -> None:
    with pytest.raises(ExportError, match="activation 'here' comes too close to the end of FP16"):
        require_fits_fp16(tiny_graph, {"before": 1.0, "here": largest})
    require_fits_fp16(tiny_graph, {"here": LARGEST / 2})
