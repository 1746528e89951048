"""Claims about the artifacts of one record: TensorRT's have one set of scales, the CPU form is fused and agrees."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

from toolkit.calibration.methods import LEVELS, UNSIGNED_LEVELS, amax_from_histogram
from toolkit.calibration.ranges import observation_from_images, ranges_from_images, record_from_observation
from toolkit.calibration.record import Record, sha256_of_graph
from toolkit.compare.parity import parity_without_labels
from toolkit.contracts import LabeledImages, Preprocessing
from toolkit.errors import CalibrationError, ExportError
from toolkit.graph.cpu_placement import cpu_placement
from toolkit.graph.fp16 import fp16_from_onnx
from toolkit.graph.qdq_placement import layers_in_graph, placement_in_graph
from toolkit.quantization.calib_cache import cache_from_ranges, header, scales_from_cache
from toolkit.quantization.ort_cpu import cpu_from_ranges, weights_on_cpu
from toolkit.quantization.qdq import qdq_from_ranges
from toolkit.quantization.whole_pixels import PIXELS, with_whole_pixels
from toolkit.runtime.ort.runner import OrtRunner

NORMALIZED = "preprocess/Add_output"  # what the first convolution of the fp32 graph reads


@pytest.fixture(name="record")
def _record(tiny_graph: onnx.ModelProto, structured_images: LabeledImages, tiny_preprocessing: Preprocessing) -> Record:
    return ranges_from_images(tiny_graph, structured_images.images_nhwc[:40], tiny_preprocessing)


def _constants(model: onnx.ModelProto) -> dict[str, Any]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def _int8_fp16(graph: onnx.ModelProto, record: Record, keep: frozenset[str] = frozenset()) -> onnx.ModelProto:
    return fp16_from_onnx(qdq_from_ranges(graph, record, keep_float=keep, int8_weights=True))


def test_the_scales_of_all_tensorrt_artifacts_are_equal_bit_for_bit(
    tiny_graph: onnx.ModelProto, record: Record
) -> None:
    full, half = _constants(qdq_from_ranges(tiny_graph, record)), _constants(_int8_fp16(tiny_graph, record))
    cache = scales_from_cache(cache_from_ranges(tiny_graph, record))
    names = [name for name in full if name.endswith("_scale")]
    assert len(names) == len(record.amax) + len(layers_in_graph(tiny_graph)) >= 11
    for name in names:
        assert full[name].dtype == np.float32
        assert half[name].dtype == np.float16
        assert half[name].astype(np.float32).tobytes() == full[name].tobytes()
    # The INT8 files read pixels before they are normalized, so of all tensors they have another one there.
    assert names.count(f"{PIXELS}_scale") == 1
    for name in set(record.amax) - {NORMALIZED}:
        assert cache[name].tobytes() == full[f"{name}_scale"].tobytes()


def test_int8_weights_are_what_the_float32_file_makes_of_its_weights(
    tiny_graph: onnx.ModelProto, record: Record, structured_images: LabeledImages
) -> None:
    whole, small = qdq_from_ranges(tiny_graph, record), qdq_from_ranges(tiny_graph, record, int8_weights=True)
    assert len(small.SerializeToString()) < 0.6 * len(whole.SerializeToString())
    weights = placement_in_graph(with_whole_pixels(tiny_graph)[0]).weights
    stored = _constants(small)
    assert {stored[f"{name}_quantized"].dtype for name in weights} == {np.dtype(np.int8)}
    assert not set(weights) & set(stored)
    with (
        OrtRunner(whole.SerializeToString(), optimize=False) as a,
        OrtRunner(small.SerializeToString(), optimize=False) as b,
    ):
        assert np.array_equal(a.logits(structured_images.images_nhwc), b.logits(structured_images.images_nhwc))


def test_int8_fp16_is_typed_half_between_its_casts_at_an_opset_that_allows_it(
    tiny_graph: onnx.ModelProto, record: Record, structured_images: LabeledImages
) -> None:
    model = _int8_fp16(tiny_graph, record)
    assert model.opset_import[0].version >= 19
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert {kinds[name] for name in kinds if name.startswith("preprocess.")} == {TensorProto.FLOAT, TensorProto.INT64}
    others = {kind for name, kind in kinds.items() if not name.startswith("preprocess.")}
    assert others == {TensorProto.FLOAT16, TensorProto.INT8}
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {value.name: value.type.tensor_type.elem_type for value in inferred.value_info}
    for node in model.graph.node:
        if node.op_type in ("Conv", "Add", "Relu", "Gemm", "GlobalAveragePool") and "preprocess" not in node.name:
            assert types[node.output[0]] == TensorProto.FLOAT16
    images = structured_images.images_nhwc
    with (
        OrtRunner(tiny_graph.SerializeToString()) as fp32,
        OrtRunner(model.SerializeToString(), optimize=False) as int8,
    ):
        found = parity_without_labels(fp32.logits(images), int8.logits(images))
    assert found.percent >= 95
    assert 0 < found.relative_l2 < 0.15


def test_a_scale_that_fp16_does_not_hold_is_refused_by_name(tiny_graph: onnx.ModelProto, record: Record) -> None:
    amax = {name: 1e-7 for name in record.amax}
    tiny = Record(amax, record.largest, record.belongs_to, record.images)
    with pytest.raises(ExportError, match=r"scale 'stem.2/Relu_output_scale' is no FP16 number"):
        _int8_fp16(tiny_graph, tiny)


def _operators(model: onnx.ModelProto, path: Path) -> list[str]:
    """What ONNX Runtime makes of a model."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(path).graph.node]


def test_onnx_runtime_fuses_every_convolution_and_add_of_the_cpu_form(
    tiny_graph: onnx.ModelProto, record: Record, tmp_path: Path
) -> None:
    made = _operators(cpu_from_ranges(tiny_graph, record), tmp_path / "optimized.onnx")
    adds = sum(node.op_type == "Add" and "preprocess" not in node.name for node in tiny_graph.graph.node)
    assert made.count("QLinearConv") == len(layers_in_graph(tiny_graph)) >= 6
    assert made.count("QLinearAdd") == adds == 2
    assert not {"Conv", "Relu"} & set(made)
    # The images' own bytes are its input.
    assert not {"QuantizeLinear", "Cast", "Mul"} & set(made)


def test_the_cpu_form_agrees_at_least_as_well_as_int8_and_takes_the_records_ranges(
    tiny_graph: onnx.ModelProto, record: Record, structured_images: LabeledImages
) -> None:
    model, images = cpu_from_ranges(tiny_graph, record), structured_images.images_nhwc
    with (
        OrtRunner(tiny_graph.SerializeToString()) as fp32,
        OrtRunner(qdq_from_ranges(tiny_graph, record).SerializeToString()) as int8,
        OrtRunner(model.SerializeToString()) as cpu,
    ):
        expected = fp32.logits(images)
        usual, found = (parity_without_labels(expected, runner.logits(images)) for runner in (int8, cpu))
    assert found.percent >= 95
    assert 0 < found.relative_l2 < 1.5 * usual.relative_l2
    constants = _constants(model)
    for name in set(record.amax) - {NORMALIZED}:
        amax = record.amax[name]
        zero_point = constants[f"{name}_zero_point"]
        assert zero_point.dtype == np.uint8
        assert int(zero_point) == (0 if "relu" in name.lower() else 128)
        levels = 255 if zero_point == 0 else 127
        assert constants[f"{name}_scale"] == np.float32(amax) / np.float32(levels)


def test_the_cpu_form_has_ranges_by_the_same_method_for_its_own_levels(
    tiny_graph: onnx.ModelProto, structured_images: LabeledImages, tiny_preprocessing: Preprocessing
) -> None:
    seen = observation_from_images(tiny_graph, structured_images.images_nhwc[:40], tiny_preprocessing)
    record = record_from_observation(seen, "mse")
    constants = _constants(cpu_from_ranges(tiny_graph, record))
    on_cpu = cpu_placement(tiny_graph, frozenset(layers_in_graph(tiny_graph))).unsigned
    assert sum(on_cpu.values()) >= 4
    for name, unsigned in on_cpu.items():
        if name == NORMALIZED:  # the CPU form reads pixels before they are normalized
            continue
        levels = UNSIGNED_LEVELS if unsigned else LEVELS
        histogram = {**seen.histograms, **seen.between}[name]
        amax = amax_from_histogram(histogram, "mse", levels)
        assert constants[f"{name}_scale"] == np.float32(amax) / np.float32(levels)
        # Convolution outputs before an Add and the last ReLU are TensorRT's to fuse; the CPU form's alone to round.
        assert (name in record.amax) == (name not in seen.between)
    assert len(seen.between) == 3


def test_a_branch_that_is_zero_so_far_has_no_range_and_stops_nothing(
    tiny_graph: onnx.ModelProto, structured_images: LabeledImages, tiny_preprocessing: Preprocessing
) -> None:
    graph = onnx.ModelProto.FromString(tiny_graph.SerializeToString())
    for tensor in graph.graph.initializer:
        if tensor.name.startswith("stages.0.0.conv2."):
            tensor.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(tensor)), tensor.name))
    images = structured_images.images_nhwc
    record = ranges_from_images(graph, images[:40], tiny_preprocessing, method="mse")
    assert record.largest["stages.0.0.conv2/Conv_output"] == 0
    assert "stages.0.0.conv2/Conv_output" not in record.cpu
    with (
        OrtRunner(graph.SerializeToString()) as fp32,
        OrtRunner(cpu_from_ranges(graph, record).SerializeToString()) as cpu,
    ):
        assert parity_without_labels(fp32.logits(images), cpu.logits(images)).percent >= 95


def test_biases_are_int32_on_the_grid_of_input_and_weight_scale(tiny_graph: onnx.ModelProto, record: Record) -> None:
    model = cpu_from_ranges(tiny_graph, record)
    whole = with_whole_pixels(tiny_graph, as_int8=weights_on_cpu)[0]
    constants, original = _constants(model), _constants(whole)
    for node in whole.graph.node:
        if node.op_type == "Conv":
            weight, bias, product = (
                constants[f"{node.name}/{part}"] for part in ("weight_scale", "bias_quantized", "bias_scale")
            )
            assert bias.dtype == np.int32
            assert np.allclose(product, weight * constants[f"{node.input[0]}_scale"], rtol=1e-6)
            assert (np.abs(bias * product - original[node.input[2]]) <= 0.51 * product).all()


@pytest.mark.parametrize("make", [qdq_from_ranges, cpu_from_ranges])
def test_a_convolution_kept_in_float_reads_what_it_read_before(
    tiny_graph: onnx.ModelProto, record: Record, make: Any
) -> None:
    kept = "stages.0.0.conv2/Conv"
    nodes = {node.name: node for node in make(tiny_graph, record, keep_float=frozenset({kept})).graph.node}
    before = {node.name: node for node in with_whole_pixels(tiny_graph)[0].graph.node}
    assert nodes[kept].input == before[kept].input
    for name in layers_in_graph(tiny_graph):
        if name != kept:
            assert nodes[name].input[0] == f"{before[name].input[0]}_dequantized"


def test_keeping_all_convolutions_in_float_is_the_fp32_graph(tiny_graph: onnx.ModelProto, record: Record) -> None:
    every = frozenset(layers_in_graph(tiny_graph))
    for make in (qdq_from_ranges, cpu_from_ranges):
        model = make(tiny_graph, record, keep_float=every)
        assert [n.op_type for n in model.graph.node] == [n.op_type for n in tiny_graph.graph.node]


def test_a_calib_cache_has_tensorrts_form_and_names(tiny_graph: onnx.ModelProto, record: Record) -> None:
    text = cache_from_ranges(tiny_graph, record)
    first, *lines = text.splitlines()
    assert first == "TRT-100300-EntropyCalibration2"
    assert text.endswith("\n")
    outputs = {name for node in tiny_graph.graph.node for name in node.output}
    names = [line[:-10] for line in lines]
    assert all(re.fullmatch(r".+: [0-9a-f]{8}", line) for line in lines)
    assert set(record.amax) <= set(names) <= outputs
    assert len(set(names)) == len(names)
    assert not {"logits", "images"} & set(names)
    # 1.0 is 3f800000, most significant byte first; 127 times it is the range.
    ones = Record(dict.fromkeys(record.amax, 127.0), record.largest, record.belongs_to, record.images)
    assert "stem.2/Relu_output: 3f800000\n" in cache_from_ranges(tiny_graph, ones)


@pytest.mark.parametrize(
    ("version", "number"), [((8, 2, 5), 8205), ((8, 6, 1), 8601), ((10, 3, 0), 100300), ((10, 14, 1), 101401)]
)
def test_a_header_has_the_number_that_tensorrt_gives_itself(version: tuple[int, int, int], number: int) -> None:
    assert header(version) == f"TRT-{number}-EntropyCalibration2"


@pytest.mark.parametrize("text", ["", "hello", "TRT-8601-EntropyCalibration2\nname: 3f80", "TRT-1\nname: xyzxyzxy"])
def test_what_is_no_cache_is_refused(text: str) -> None:
    with pytest.raises(CalibrationError, match=r"no calib\.cache"):
        scales_from_cache(text)


@pytest.mark.parametrize("make", [cpu_from_ranges, cache_from_ranges])
def test_a_record_of_another_graph_is_refused(tiny_graph: onnx.ModelProto, record: Record, make: Any) -> None:
    tiny_graph.graph.initializer[0].name += "x"
    assert sha256_of_graph(tiny_graph) != record.belongs_to["graph_sha256"]
    with pytest.raises(CalibrationError, match="stale"):
        make(tiny_graph, record)
