"""Claims about whole pixels: the same function, no rounding of the input, and what cannot have them stays as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from toolkit.calibration.methods import QAT
from toolkit.calibration.ranges import ranges_from_images
from toolkit.calibration.record import Record, sha256_of_graph
from toolkit.compare.parity import parity_without_labels
from toolkit.contracts import Float32, Preprocessing, UInt8
from toolkit.graph.edit import add_constants, set_nodes
from toolkit.graph.fp16 import fp16_from_onnx
from toolkit.graph.preprocessing import with_preprocessing
from toolkit.quantization.held_out import logits_of
from toolkit.quantization.ort_cpu import cpu_from_ranges
from toolkit.quantization.qdq import qdq_from_ranges
from toolkit.quantization.scales import quantized_weights, weight_scales
from toolkit.quantization.whole_pixels import MIDDLE, PIXELS, first_convolution, with_whole_pixels
from toolkit.runtime.ort.runner import OrtRunner

SIDE = 6


def _net(
    mean: tuple[float, ...],
    std: tuple[float, ...],
    *,
    nchw: bool = True,
    bias: bool = True,
    kernel: int = 3,
    stride: int = 1,
    seed: int = 0,
    changed: Any = None,
) -> onnx.ModelProto:
    """Preprocessing, one convolution of 5 filters, a pool and a head."""
    rng, colors = np.random.default_rng(seed), len(mean)
    weights = rng.normal(0, 0.3, (5, colors, kernel, kernel)).astype(np.float32)
    constants = {"w": weights, "head": rng.normal(0, 1, (5, 4)).astype(np.float32)}
    if bias:
        constants["b"] = rng.normal(0, 0.5, 5).astype(np.float32)
    pads = [kernel // 2] * 4
    nodes = [
        helper.make_node("Conv", ["x", "w", *(["b"] if bias else [])], ["c"], "conv", pads=pads, strides=[stride] * 2),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("MatMul", ["f", "head"], ["logits"], "head"),
    ]
    if not nchw:
        nodes[0].input[0] = "t"
        nodes.insert(0, helper.make_node("Transpose", ["x"], ["t"], "turn", perm=[0, 3, 1, 2]))
    shape = ["n", colors, SIDE, SIDE] if nchw else ["n", SIDE, SIDE, colors]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    if changed is not None:
        changed(graph)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return with_preprocessing(model, Preprocessing(SIDE, SIDE, colors, mean, std), nchw)


def _images(colors: int, count: int = 8) -> UInt8:
    return np.random.default_rng(1).integers(0, 256, (count, SIDE, SIDE, colors), np.uint8)


def _outputs(model: onnx.ModelProto, name: str, images: UInt8) -> Float32:
    exposed = onnx.ModelProto.FromString(model.SerializeToString())
    exposed.graph.output.append(onnx.ValueInfoProto(name=name))
    with OrtRunner(exposed.SerializeToString(), optimize=False) as runner:
        values: Float32 = runner.tensors(images)[name]
    return values


def _constants(model: onnx.ModelProto) -> dict[str, Any]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def _record(model: onnx.ModelProto, method: str = "mse") -> Record:
    names = [name for node in model.graph.node for name in node.output]
    belongs_to = {"graph_sha256": sha256_of_graph(model), "method": method}
    return Record(dict.fromkeys(names, 3.0), dict.fromkeys(names, 3.0), belongs_to, ())


MEANS = st.floats(0, 1)
STDS = st.floats(0.05, 1)


@pytest.mark.slow
@given(
    st.sampled_from([1, 3]).flatmap(lambda n: st.tuples(st.tuples(*[MEANS] * n), st.tuples(*[STDS] * n))),
    st.booleans(),
    st.booleans(),
    st.sampled_from([1, 3, 5]),
    st.sampled_from([1, 2]),
    st.integers(0, 9),
)
def test_it_is_the_same_function_at_the_border_too(
    normalization: Any, nchw: bool, bias: bool, kernel: int, stride: int, seed: int
) -> None:
    model = _net(*normalization, nchw=nchw, bias=bias, kernel=kernel, stride=stride, seed=seed)
    whole, found = with_whole_pixels(model)
    assert found is not None
    assert 1 <= found.constant <= 127
    assert 1 <= found.constants <= 3
    # What rounding takes from the constant is in the bias already: round its weights, and the answers are the same
    # wherever no padding is touched; put the bias back, and they are the same everywhere.
    original = _constants(model)
    for tensor in whole.graph.initializer:
        if tensor.name == "w.pixels_bias":
            tensor.CopyFrom(numpy_helper.from_array(original.get("b", np.zeros(5, np.float32)), tensor.name))
    images = _images(len(normalization[0]))
    expected, got = _outputs(model, "c", images), _outputs(whole, "c", images)
    assert np.abs(got - expected).max() <= 2e-5 * np.abs(expected).max()


@pytest.mark.parametrize("mean", [0.0, 0.28, 0.5, 1.0])
def test_the_constant_costs_nothing_where_no_padding_is_touched(mean: float) -> None:
    model = _net((mean,), (0.3,), seed=3)
    whole, found = with_whole_pixels(model)
    assert found is not None
    scales = weight_scales(found.weights)
    rounded = found.weights.copy()
    rounded[:, 1:] = (quantized_weights(found.weights, scales) * scales.reshape(-1, 1, 1, 1))[:, 1:]
    for tensor in whole.graph.initializer:
        if tensor.name == "w.pixels":
            tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))
    expected, got = _outputs(model, "c", _images(1)), _outputs(whole, "c", _images(1))
    inside = np.s_[:, :, 1:-1, 1:-1]
    assert np.abs(got[inside] - expected[inside]).max() <= 2e-5 * np.abs(expected).max()
    assert np.abs(got - expected).max() > 1e-4  # at the border it does


@given(st.sampled_from([1, 3]), MEANS, STDS)
def test_no_filter_needs_a_wider_scale_than_its_colors_do(colors: int, mean: float, std: float) -> None:
    found = first_convolution(_net((mean,) * colors, (std,) * colors))
    assert found is not None
    colored, constant = found.weights[:, :colors], found.weights[:, colors:]
    assert (np.abs(constant).max(axis=(1, 2, 3)) <= np.abs(colored).max(axis=(1, 2, 3)) * (1 + 1e-6)).all()


@pytest.mark.parametrize("nchw", [True, False])
def test_every_pixel_value_goes_through_quantization_unchanged(nchw: bool) -> None:
    model = _net((0.49, 0.48, 0.45), (0.25, 0.24, 0.26), nchw=nchw)
    images = np.arange(256, dtype=np.uint8).repeat(3)[: 7 * SIDE * SIDE * 3].reshape(-1, SIDE, SIDE, 3)
    images = np.concatenate([images, 255 - images])
    assert set(images.reshape(-1)) == set(range(256))
    for small in (False, True):
        quantized = qdq_from_ranges(model, _record(model), int8_weights=small)
        for made in (quantized, fp16_from_onnx(quantized)) if small else (quantized,):
            step = float(_constants(made)[f"{PIXELS}_scale"])
            levels = _outputs(made, f"{PIXELS}_dequantized", images).astype(np.float64) / step
            assert np.array_equal(levels[:, :3].transpose(0, 2, 3, 1), images.astype(np.float64) - MIDDLE)
            assert len(np.unique(levels[:, 3:])) == 1


def _padded_last(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same file with its Pad behind Mul and Add, of what the whole pixel becomes there."""
    result = onnx.ModelProto.FromString(model.SerializeToString())
    nodes, constants = {node.name: node for node in result.graph.node}, _constants(result)
    pad, mul, add = (nodes[f"preprocess/{kind}"] for kind in ("Pad", "Mul", "Add"))
    behind = (constants["preprocess.constant"] - MIDDLE) * constants["preprocess.step"]
    (pixel,) = (tensor for tensor in result.graph.initializer if tensor.name == "preprocess.constant")
    pixel.CopyFrom(numpy_helper.from_array(behind, pixel.name))
    mul.input[0], add.output[0], pad.input[0], pad.output[0] = pad.input[0], "added", "added", add.output[0]
    order = [node for node in result.graph.node if node.name != pad.name]
    order.insert(order.index(add) + 1, pad)
    set_nodes(result.graph, order)
    del result.graph.value_info[:]
    onnx.checker.check_model(result, full_check=True)
    return result


def _quantized_before_padding(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """What an engine has that moves Quantize up through Pad and pads with the float as it is; how many it moved."""
    result = onnx.ModelProto.FromString(model.SerializeToString())
    constants, makers = _constants(result), {node.output[0]: node for node in result.graph.node}
    moved = [
        (makers[n.input[0]], n) for n in result.graph.node if n.op_type == "QuantizeLinear" and n.input[0] in makers
    ]
    moved = [(pad, quantize) for pad, quantize in moved if pad.op_type == "Pad"]
    for pad, quantize in moved:
        add_constants(result.graph, {"as_it_is": constants[pad.input[2]].astype(np.int8)})
        pad.input[2], quantize.input[0], pad.input[0] = "as_it_is", pad.input[0], "quantized_first"
        quantize.output[0], pad.output[0] = "quantized_first", quantize.output[0]
        order = [node for node in result.graph.node if node.name != pad.name]
        order.insert(order.index(quantize) + 1, pad)
        set_nodes(result.graph, order)
    return result, len(moved)


def _logits(model: onnx.ModelProto, images: UInt8, optimize: bool) -> Float32:
    with OrtRunner(model.SerializeToString(), optimize=optimize) as runner:
        logits: Float32 = runner.logits(images)
    return logits


@pytest.mark.slow
@given(
    st.sampled_from([1, 3]).flatmap(lambda n: st.tuples(st.tuples(*[MEANS] * n), st.tuples(*[STDS] * n))),
    st.booleans(),
    st.booleans(),
    st.integers(0, 9),
)
@settings(max_examples=20)  # of twelve sessions of ONNX Runtime each
def test_a_whole_pixel_before_mul_and_add_gives_the_same_bits_as_its_number_behind_them(
    normalization: Any, nchw: bool, bias: bool, seed: int
) -> None:
    model = _net(*normalization, nchw=nchw, bias=bias, seed=seed)
    found = first_convolution(model)
    assert found is not None
    assert MIDDLE < found.pixel <= 255  # there is always one
    images = _images(len(normalization[0]))
    int8 = qdq_from_ranges(model, _record(model))
    for made in (int8, fp16_from_onnx(qdq_from_ranges(model, _record(model), int8_weights=True))):
        before = _padded_last(made)
        for optimize in (False, True):
            assert np.array_equal(_logits(made, images, optimize), _logits(before, images, optimize))
        dequantized = f"{PIXELS}_dequantized"
        assert np.array_equal(_outputs(made, dequantized, images), _outputs(before, dequantized, images))


def test_an_engine_that_quantizes_before_it_pads_has_nothing_to_misread() -> None:
    model, images = _net((0.28,), (0.35,), seed=3), _images(1)
    made = qdq_from_ranges(model, _record(model))
    before, right = _padded_last(made), _logits(made, images, False)
    misread, moved = _quantized_before_padding(before)
    assert moved == 1
    assert np.abs(_logits(misread, images, False) - right).max() > 0.1 * np.abs(right).max()
    assert _quantized_before_padding(made) == (made, 0)


@pytest.mark.parametrize("nchw", [True, False])
def test_the_cpu_form_reads_the_bytes_themselves(nchw: bool) -> None:
    model = _net((0.49, 0.48, 0.45), (0.25, 0.24, 0.26), nchw=nchw)
    made = cpu_from_ranges(model, _record(model))
    assert not {"Cast", "Mul", "Add"} & {node.op_type for node in made.graph.node}
    images = _images(3)
    whole, found = with_whole_pixels(model)
    assert found is not None
    read = _outputs(made, f"{PIXELS}_dequantized", images)
    assert np.array_equal(read, _outputs(whole, PIXELS, images))


@pytest.mark.slow
def test_the_answers_of_the_default_model_come_nearer() -> None:
    from toolkit.exporting.artifacts import fp32_graph_of_model
    from toolkit.models.checkpoint import folder_of_model, load_model

    room = Path(__file__).parent.parent.parent / "calibration" / "resnet32x32-fashion"
    with np.load(room / "calibration.npz") as measured, np.load(room / "evaluation.npz") as judged:
        images, held = measured["images"][:64], judged["images"][:128]
    model = load_model(folder_of_model("resnet32x32-fashion"))
    graph = fp32_graph_of_model(model)
    record = ranges_from_images(graph, images, model.card.preprocessing, method="mse")
    expected = logits_of(graph, held)
    rounded = replace(record, belongs_to={**record.belongs_to, "method": QAT})
    whole, before = (
        parity_without_labels(expected, logits_of(qdq_from_ranges(graph, one), held)) for one in (record, rounded)
    )
    assert whole.relative_l2 < 0.95 * before.relative_l2


def _grouped(graph: Any) -> None:
    (conv,) = (node for node in graph.node if node.op_type == "Conv")
    conv.attribute.append(helper.make_attribute("group", 5))
    (weights,) = (tensor for tensor in graph.initializer if tensor.name == "w")
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights)[:, :1], "w"))


def _read_twice(graph: Any) -> None:
    graph.node.append(helper.make_node("GlobalMaxPool", ["x"], ["again"], "again"))


def _sliding(graph: Any) -> None:
    graph.node.insert(0, helper.make_node("Relu", ["x"], ["positive"], "first relu"))
    graph.node[1].input[0] = "positive"


@pytest.mark.parametrize("change", [_grouped, _read_twice, _sliding])
def test_a_graph_that_does_anything_else_with_its_images_is_left_alone(change: Any) -> None:
    colors = 5 if change is _grouped else 3
    model = _net((0.5,) * colors, (0.25,) * colors, changed=change)
    made, found = with_whole_pixels(model)
    assert found is None
    assert made.SerializeToString() == model.SerializeToString()


def test_a_normalization_that_differs_from_place_to_place_is_left_alone() -> None:
    model = _net((0.5,), (0.25,))
    for tensor in model.graph.initializer:
        if tensor.name == "preprocess.shift":
            shifts = np.linspace(-2, -1, SIDE * SIDE, dtype=np.float32).reshape(1, SIDE, SIDE)
            tensor.CopyFrom(numpy_helper.from_array(shifts, tensor.name))
    assert first_convolution(model) is None


def test_a_mean_far_outside_the_pixels_is_left_alone() -> None:
    assert first_convolution(_net((-9.0,), (0.25,))) is None


def test_floats_instead_of_pixels_are_left_alone() -> None:
    model = _net((0.5,), (0.25,))
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT
    assert first_convolution(model) is None


@pytest.mark.parametrize("make", [qdq_from_ranges, cpu_from_ranges])
def test_a_first_convolution_in_float_and_learned_ranges_keep_the_normalization(make: Any) -> None:
    model = _net((0.5,) * 3, (0.25,) * 3)
    for made in (make(model, _record(model), keep_float=frozenset({"conv"})), make(model, _record(model, QAT))):
        constants = _constants(made)
        assert {"preprocess.scale", "preprocess.shift"} <= set(constants)
        assert not any(name.startswith(PIXELS) for node in made.graph.node for name in node.output)
