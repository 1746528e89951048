"""Claims about every form of a small graph: a Clip, a pool, another layout, a bias that is a row; and on its cache."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from toolkit.calibration.ranges import ranges_from_images
from toolkit.calibration.record import Record, sha256_of_graph
from toolkit.contracts import Float32, LabeledImages, Preprocessing, UInt8
from toolkit.errors import CalibrationError
from toolkit.graph.edit import arrays_of
from toolkit.quantization.calib_cache import cache_from_ranges, scales_from_cache
from toolkit.quantization.ort_cpu import cpu_from_ranges
from toolkit.quantization.qdq import qdq_from_ranges
from toolkit.quantization.scales import activation_scale, weight_scales, weight_scales_in_16_bits
from toolkit.runtime.ort.runner import OrtRunner

IMAGES: UInt8 = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)


def _graph() -> onnx.ModelProto:
    """Conv, Clip, Conv, Clip that two read, product without transB whose bias is a row."""
    rng = np.random.default_rng(1)
    arrays: dict[str, Any] = {
        "s": np.float32(1 / 255), "k": rng.normal(size=(6, 3, 3, 3)) / 3, "kb": rng.normal(size=6),
        "k2": rng.normal(size=(5, 6, 3, 3)) / 7, "k2b": rng.normal(size=5), "low": np.float32(0), "high": np.float32(6),
        "w": np.abs(rng.normal(size=(5, 7))), "row": rng.normal(size=(1, 7)), "w2": rng.normal(size=(7, 4)),
    }  # fmt: skip
    nodes = [
        helper.make_node("Cast", ["images"], ["u"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["u"], ["t"], "transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["t", "s"], ["x"], "scale"),
        helper.make_node("Conv", ["x", "k", "kb"], ["c"], "conv"),
        helper.make_node("Clip", ["c", "low", "high"], ["r"], "clip"),
        helper.make_node("MaxPool", ["r"], ["p"], "some", kernel_shape=[1, 1], strides=[2, 2]),
        helper.make_node("Conv", ["p", "k2", "k2b"], ["c2"], "conv2"),
        helper.make_node("Clip", ["c2", "low", "high"], ["r2"], "clip2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["a"], "pool"),
        helper.make_node("GlobalMaxPool", ["r2"], ["m"], "most"),
        helper.make_node("Add", ["a", "m"], ["sum"], "sum"),
        helper.make_node("Flatten", ["sum"], ["f"], "flat"),
        helper.make_node("Gemm", ["f", "w", "row"], ["h"], "hidden"),
        helper.make_node("Relu", ["h"], ["hr"], "relu"),
        helper.make_node("Gemm", ["hr", "w2"], ["logits"], "fc"),
    ]
    given = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 8, 8, 3])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])
    constants = [numpy_helper.from_array(np.asarray(v, np.float32), name) for name, v in arrays.items()]
    graph = helper.make_graph(nodes, "g", [given], [logits], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(name="made", scope="module")
def _made() -> tuple[onnx.ModelProto, Record]:
    graph = _graph()
    return graph, ranges_from_images(graph, IMAGES, Preprocessing(8, 8, 3, (0,) * 3, (1,) * 3), method="minmax")


def _answers(model: onnx.ModelProto) -> Float32:
    with OrtRunner(model.SerializeToString()) as runner:
        logits: Float32 = runner.logits(IMAGES)
    return logits


@pytest.mark.parametrize("form", [qdq_from_ranges, cpu_from_ranges])
def test_every_form_answers_as_the_graph_does_and_names_all_its_parts(made: Any, form: Any) -> None:
    model = form(*made)
    wanted, found = _answers(made[0]), _answers(model)
    assert np.linalg.norm(found - wanted) < 0.05 * np.linalg.norm(wanted)
    names = [node.name for node in model.graph.node]
    assert "" not in names
    assert len(set(names)) == len(names)
    clips = [node.name for node in model.graph.node if node.op_type == "Clip"]
    assert clips == ([] if form is cpu_from_ranges else ["clip", "clip2"])
    shapes = {name: array.shape for name, array in arrays_of(model.graph).items()}
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert re.fullmatch(r".+_scale", node.input[1])
            assert node.input[2] == node.input[1].removesuffix("_scale") + "_zero_point"
            assert [one.name for one in node.attribute] == ["axis"] * len(shapes[node.input[1]])


def test_a_product_has_scales_of_16_bits_along_its_own_axis(made: Any) -> None:
    graph, record = made
    constants, given = arrays_of(qdq_from_ranges(graph, record).graph), arrays_of(graph.graph)
    wanted = weight_scales_in_16_bits(given["w"].T, in_half=True)
    assert (wanted > weight_scales(given["w"].T)).any()
    assert constants["w_scale"].tolist() == wanted.tolist()
    assert constants["k2_scale"].tolist() == weight_scales(given["k2"]).tolist()


def test_what_is_only_passed_on_is_rounded_once(made: Any) -> None:
    graph, record = made
    constants = arrays_of(cpu_from_ranges(graph, record).graph)
    assert record.largest["p"] < record.largest["r"]
    assert constants["r_scale"] == constants["p_scale"]


def _cache(graph: onnx.ModelProto, record: Record) -> dict[str, float]:
    return {name: float(scale) for name, scale in scales_from_cache(cache_from_ranges(graph, record)).items()}


def test_a_cache_has_the_scale_of_every_tensor_that_dla_asks_for(
    tiny_graph: onnx.ModelProto, structured_images: LabeledImages, tiny_preprocessing: Preprocessing
) -> None:
    record = ranges_from_images(tiny_graph, structured_images.images_nhwc[:16], tiny_preprocessing)
    amax = {name: 0.5 + number for number, name in enumerate(record.amax)}
    largest = {name: 100.0 + number for number, name in enumerate(record.largest)}
    last, zeros = "stages.1.0/Add_output", "stages.1.0.shortcut.0/Conv_output"
    for name in ("preprocess/Add_output", zeros, "stages.1.0.conv2/Conv_output"):
        amax.pop(name, None)
    largest[zeros] = 0.0
    del largest["stages.1.0.conv2/Conv_output"]  # as of whole numbers
    found = _cache(tiny_graph, replace(record, amax=amax, largest=largest))
    wanted = dict(amax)
    for block in ("stages.0.0", "stages.1.0"):
        wanted[f"{block}.conv1/Conv_output"] = amax[f"{block}.relu1/Relu_output"]
        summand = f"{block}.conv2/Conv_output"
        if summand in amax or summand in largest:
            wanted[summand] = amax.get(summand, largest.get(summand, 0))
    wanted["stem.0/Conv_output"] = amax["stem.2/Relu_output"]
    wanted["stages.0.0/Add_output"] = amax["stages.0.0.relu2/Relu_output"]
    wanted["stages.1.0.relu2/Relu_output"] = wanted[last] = largest["stages.1.0.relu2/Relu_output"]
    assert found == {name: float(activation_scale(value)) for name, value in wanted.items()}


def test_a_cache_holds_no_name_that_it_could_not_give_back(tiny_graph: onnx.ModelProto) -> None:
    node = tiny_graph.graph.node[4]
    for name in ("a:b", "a\nb"):
        node.output[0] = tiny_graph.graph.node[5].input[0] = name
        belongs_to = {"graph_sha256": sha256_of_graph(tiny_graph)}
        with pytest.raises(CalibrationError, match="does not fit") as refused:
            cache_from_ranges(tiny_graph, Record({name: 1.0}, {}, belongs_to, ()))
        assert refused.value.found == name
    assert scales_from_cache("TRT-1\na: b: 3f800000\n") == {"a: b": 1.0}
    with pytest.raises(CalibrationError) as refused:
        scales_from_cache("")
    assert str(refused.value.found) == "first line ''"
