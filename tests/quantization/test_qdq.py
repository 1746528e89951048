"""Claims about Q/DQ graphs: TensorRT's rules hold in every net of the family, and the answers stay."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from onnx import TensorProto, numpy_helper

from toolkit.calibration.ranges import ranges_from_images
from toolkit.calibration.record import Record, sha256_of_graph
from toolkit.contracts import Float32, LabeledImages, Preprocessing
from toolkit.errors import CalibrationError
from toolkit.graph.fp16 import fp16_from_onnx
from toolkit.graph.from_torch import onnx_from_torch
from toolkit.graph.qdq_placement import placement_in_graph
from toolkit.models.checkpoint import classifier_from_config
from toolkit.models.resnet import BasicBlock, ResNetConfig, config_from_name
from toolkit.quantization.ort_cpu import cpu_from_ranges
from toolkit.quantization.qdq import qdq_from_ranges
from toolkit.quantization.scales import activation_scale, quantized_weights, weight_scales
from toolkit.quantization.whole_pixels import with_whole_pixels
from toolkit.runtime.ort.runner import OrtRunner

NETS = {
    "resnet32x32": config_from_name("resnet32x32"),
    "resnet8": config_from_name("resnet8", in_channels=1),
    "resnet20": config_from_name("resnet20"),
    "1x1 stem": ResNetConfig(widths=(8, 16), blocks=(2, 1), strides=(1, 2), stem_kernel=1),
    "strided first": ResNetConfig(widths=(8, 8), blocks=(1, 1), strides=(2, 1), classes=2),
}


def _graph(config: ResNetConfig, reverse: bool = False) -> onnx.ModelProto:
    channels = config.in_channels
    preprocessing = Preprocessing(8, 8, channels, (0.5,) * channels, (0.25,) * channels)
    torch.manual_seed(0)
    classifier = classifier_from_config(config, preprocessing).eval()
    if reverse:
        for module in classifier.modules():
            if isinstance(module, BasicBlock):
                module.forward = _reversed_block.__get__(module)  # type: ignore[method-assign]
    return onnx_from_torch(classifier, preprocessing, {})


def _reversed_block(block: BasicBlock, x: torch.Tensor) -> torch.Tensor:
    """The block with its Add written the other way round."""
    shortcut = block.shortcut(x)
    out: torch.Tensor = block.relu2(shortcut + block.bn2(block.conv2(block.relu1(block.bn1(block.conv1(x))))))
    return out


def _any_record(graph: onnx.ModelProto) -> Record:
    amax = {name: 1.0 + index for index, name in enumerate(placement_in_graph(graph).consumers)}
    return Record(amax, {}, {"graph_sha256": sha256_of_graph(graph)}, ())


@cache
def _quantized(name: str) -> Any:
    graph = _graph(NETS[name.removesuffix(" reversed")], reverse=name.endswith(" reversed"))
    return qdq_from_ranges(graph, _any_record(graph)).graph


@pytest.fixture(params=[*NETS, "resnet8 reversed"])
def quantized(request: pytest.FixtureRequest) -> Any:
    """The Q/DQ graph of a net with fresh weights."""
    return _quantized(request.param)


def _makers(graph: Any) -> dict[str, Any]:
    return {name: node for node in graph.node for name in node.output}


def _constants(graph: Any) -> dict[str, Any]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def _of_type(graph: Any, *kinds: str) -> list[Any]:
    return [node for node in graph.node if node.op_type in kinds]


@pytest.mark.slow
def test_every_convolution_reads_dequantized_images_and_weights(quantized: Any) -> None:
    makers = _makers(quantized)
    convolutions = _of_type(quantized, "Conv")
    assert len(convolutions) >= 5
    for conv in convolutions:
        assert makers[conv.input[0]].op_type == makers[conv.input[1]].op_type == "DequantizeLinear"


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_no_padding_stands_right_before_a_quantize_in_any_int8_file(name: str) -> None:
    graph = _graph(NETS[name])
    tensors = dict.fromkeys((output for node in graph.graph.node for output in node.output), 1.0)
    record = Record(tensors, tensors, {"graph_sha256": sha256_of_graph(graph)}, ())
    small = qdq_from_ranges(graph, record, int8_weights=True)
    for made in (qdq_from_ranges(graph, record), small, fp16_from_onnx(small), cpu_from_ranges(graph, record)):
        makers = _makers(made.graph)
        assert len(_of_type(made.graph, "Pad")) == 1  # of whole pixels
        # Through a Cast of the FP16 file an engine could go as well.
        for node in _of_type(made.graph, "QuantizeLinear", "Cast"):
            assert node.input[0] not in makers or makers[node.input[0]].op_type != "Pad"


def test_weights_are_quantized_by_channel_on_axis_0_and_activations_by_one_number(quantized: Any) -> None:
    constants = _constants(quantized)
    weights = 0
    for node in _of_type(quantized, "QuantizeLinear", "DequantizeLinear"):
        scale, axis = constants[node.input[1]], [a.i for a in node.attribute if a.name == "axis"]
        assert scale.dtype == np.float32
        assert (scale > 0).all()
        tensor = node.name.rpartition("/")[0]
        if tensor in constants:
            assert scale.shape == constants[tensor].shape[:1]
            assert axis == [0]
            weights += 1
        else:
            assert scale.shape == ()
            assert axis == []
    assert weights == 2 * len(_of_type(quantized, "Conv"))


def test_zero_points_are_int8_zeros_as_many_as_scales(quantized: Any) -> None:
    constants = _constants(quantized)
    for node in _of_type(quantized, "QuantizeLinear", "DequantizeLinear"):
        scale, zero_point = constants[node.input[1]], constants[node.input[2]]
        assert zero_point.dtype == np.int8
        assert zero_point.shape == scale.shape
        assert not zero_point.any()
    assert not [tensor.name for tensor in quantized.initializer if tensor.data_type == TensorProto.UINT8]


def test_a_pair_shares_its_parameters_and_stands_alone(quantized: Any) -> None:
    makers = _makers(quantized)
    for node in _of_type(quantized, "DequantizeLinear"):
        quantize = makers[node.input[0]]
        assert quantize.op_type == "QuantizeLinear"
        assert quantize.input[1:] == node.input[1:]
        readers = [n for n in quantized.node if node.input[0] in n.input]
        assert len(readers) == 1


def test_no_bias_is_quantized(quantized: Any) -> None:
    constants = _constants(quantized)
    for conv in _of_type(quantized, "Conv"):
        assert constants[conv.input[2]].dtype == np.float32
    (head,) = _of_type(quantized, "Gemm")
    assert all(name in constants for name in head.input[1:])


def test_every_residual_add_is_quantized_on_its_shortcut_only(quantized: Any) -> None:
    makers = _makers(quantized)
    adds = [node for node in _of_type(quantized, "Add") if not node.name.startswith("preprocess/")]
    assert len(adds) >= 2
    for add in adds:
        kinds = {makers[name].op_type: makers[name] for name in add.input}
        assert set(kinds) == {"DequantizeLinear", "Conv"}
        block = add.name.rpartition("/")[0]
        assert kinds["Conv"].name == f"{block}.conv2/Conv"
        shortcut = kinds["DequantizeLinear"].name.rpartition("/")[0]
        first = next(node for node in quantized.node if node.name == f"{block}.conv1/Conv")
        assert shortcut in (f"{block}.shortcut.0/Conv_output", first.input[0].removesuffix("_dequantized"))
        assert makers[shortcut].name != kinds["Conv"].name


def test_pool_head_and_logits_stay_in_floating_point(quantized: Any) -> None:
    last = max(index for index, node in enumerate(quantized.node) if node.op_type == "Add")
    assert [node.op_type for node in quantized.node[last + 1 :]] == ["Relu", "GlobalAveragePool", "Flatten", "Gemm"]
    assert quantized.node[-1].output[0] == quantized.output[0].name == "logits"


def test_opset_and_order_are_those_that_every_tensorrt_reads(tiny_graph: onnx.ModelProto) -> None:
    result = qdq_from_ranges(tiny_graph, _any_record(tiny_graph))
    assert [(entry.domain, entry.version) for entry in result.opset_import] == [("", 17)]
    known = {tensor.name for tensor in result.graph.initializer} | {"images"}
    for node in result.graph.node:
        assert known.issuperset(node.input)
        known.update(node.output)


def test_the_source_graph_is_left_alone(tiny_graph: onnx.ModelProto) -> None:
    before = tiny_graph.SerializeToString()
    qdq_from_ranges(tiny_graph, _any_record(tiny_graph))
    assert tiny_graph.SerializeToString() == before


def test_scales_in_the_file_are_those_of_record_and_weights(tiny_graph: onnx.ModelProto) -> None:
    record = _any_record(tiny_graph)
    constants = _constants(qdq_from_ranges(tiny_graph, record).graph)
    normalized, *others = record.amax
    assert normalized == "preprocess/Add_output"  # the file's first convolution reads pixels instead
    for name in others:
        amax = record.amax[name]
        assert constants[f"{name}_scale"] == activation_scale(amax)
        assert 1 <= constants[f"{name}_scale"] * 127 / amax < 1.001
    for name in placement_in_graph(with_whole_pixels(tiny_graph)[0]).weights:
        assert np.array_equal(constants[f"{name}_scale"], weight_scales(constants[name]))


WEIGHTS = npst.arrays(
    np.float32,
    npst.array_shapes(min_dims=4, max_dims=4, max_side=4),
    elements=st.one_of(st.just(0.0), st.floats(-1e4, 1e4, width=32, allow_subnormal=False)),
)


@given(WEIGHTS, st.integers(0, 3))
def test_dequantized_weights_are_within_half_a_scale_or_the_clip(weights: Float32, dead: int) -> None:
    weights[dead % len(weights)] = 0
    scales = weight_scales(weights)
    assert scales.dtype == np.float32
    assert (scales > 0).all()
    column = scales.reshape(-1, 1, 1, 1)
    levels = quantized_weights(weights, scales)
    within = np.clip(weights, -128 * column, 127 * column)
    assert (np.abs(levels * column - within) <= 0.5 * column * (1 + 1e-4)).all()
    assert (np.abs(weights - within) <= 0.31 * np.abs(weights).max(axis=(1, 2, 3), keepdims=True)).all()
    assert not levels[dead % len(weights)].any()


@given(st.floats(0, float(np.finfo(np.float32).max)))
def test_an_activation_scale_is_a_positive_float32(amax: float) -> None:
    scale = activation_scale(amax)
    assert scale.dtype == np.float32
    assert 0 < scale < np.inf


def test_int8_answers_as_fp32_does_and_is_not_the_same_file(
    tiny_graph: onnx.ModelProto, structured_images: LabeledImages, tiny_preprocessing: Preprocessing
) -> None:
    images, labels = structured_images.images_nhwc, structured_images.labels
    record = ranges_from_images(tiny_graph, images[:32], tiny_preprocessing)
    with (
        OrtRunner(tiny_graph.SerializeToString()) as fp32,
        OrtRunner(qdq_from_ranges(tiny_graph, record).SerializeToString()) as int8,
    ):
        expected, got = fp32.logits(images), int8.logits(images)
    assert (expected.argmax(1) == labels).mean() > 0.9
    assert (expected.argmax(1) == got.argmax(1)).mean() >= 0.95
    assert 0 < np.linalg.norm(got - expected) < 0.15 * np.linalg.norm(expected)


def test_a_record_of_another_graph_is_refused(tiny_graph: onnx.ModelProto) -> None:
    record = _any_record(tiny_graph)
    (weight,) = (tensor for tensor in tiny_graph.graph.initializer if tensor.name == "fc.weight")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 2, "fc.weight"))
    with pytest.raises(CalibrationError, match="stale") as caught:
        qdq_from_ranges(tiny_graph, record)
    assert caught.value.found == "changed: the network (weights or graph)"
