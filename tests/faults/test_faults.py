"""Claims about planted faults: each is caught, and called by its name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.faults.conftest import SIZE, Healthy, Plant, named, written
from tests.manifests import rehashed
from toolkit.bundle.manifest import VARIANTS
from toolkit.contracts import Float32, LabeledImages, UInt8, preprocessing_from_dict
from toolkit.runtime.ort.runner import OrtRunner
from toolkit.verification.verify import verify

INT8, FP16 = "model.int8.onnx", "model.fp16.onnx"


def _values(graph: Any, name: str) -> Any:
    (tensor,) = (tensor for tensor in graph.initializer if tensor.name == name)
    return numpy_helper.to_array(tensor)


def _replace(graph: Any, name: str, values: Any) -> None:
    (tensor,) = (tensor for tensor in graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(values, order="C"), name))


def _only(causes: list[str], *words: str) -> None:
    """One cause and no other, with these words."""
    assert len(causes) == 1, causes
    for word in words:
        assert word in causes[0], causes


def test_a_healthy_bundle_has_no_fault_in_any_precision(healthy: Healthy) -> None:
    found = verify(healthy.bundle, data=str(healthy.data), backends="ort")
    assert found.ok
    assert found.likely_causes == ()
    assert found.not_checked == {}
    assert set(found.pairs) == {f"ort {name}" for name in VARIANTS}
    assert found.pairs["ort fp32"].parity.reference_score.top1_percent > 90


def test_mean_and_std_swapped(healthy: Healthy, plant: Plant) -> None:
    manifest = json.loads((healthy.bundle / "manifest.json").read_text())
    right = preprocessing_from_dict(manifest["preprocessing"])
    mean, std = np.array(right.mean), np.array(right.std)

    def swapped(graph: Any) -> None:
        for name, values in (("preprocess.scale", 1 / (255 * mean)), ("preprocess.shift", -std / mean)):
            _replace(graph, name, values.astype(np.float32).reshape(1, 3, 1, 1))

    _only(named(healthy, plant(FP16, swapped)), "mean and std are swapped", "ort fp16", "the reference answers as it")


def test_pixels_that_are_not_normalized(healthy: Healthy, plant: Plant) -> None:
    def forgotten(graph: Any) -> None:
        _replace(graph, "preprocess.scale", np.full((1, 3, 1, 1), 1 / 255, np.float32))
        _replace(graph, "preprocess.shift", np.zeros((1, 3, 1, 1), np.float32))

    _only(named(healthy, plant(FP16, forgotten)), "not normalized, only divided by 255", "ort fp16")


def _insert_behind_cast(graph: Any, node: Any) -> None:
    """Puts a node between the pixels and the Transpose of the preprocessing."""
    index = next(i for i, other in enumerate(graph.node) if other.op_type == "Transpose")
    node.input[0], graph.node[index].input[0] = graph.node[index].input[0], node.output[0]
    graph.node.insert(index, node)


def test_rgb_and_bgr_swapped_in_a_file(healthy: Healthy, plant: Plant) -> None:
    def reversed_channels(graph: Any) -> None:
        graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0]), "order"))
        _insert_behind_cast(
            graph,
            helper.make_node("Gather", ["pixels", "order"], ["bgr"], "preprocess/BGR", axis=3),
        )

    _only(named(healthy, plant(INT8, reversed_channels)), "channels are swapped: RGB and BGR", "ort int8")


def test_nhwc_read_as_nchw(healthy: Healthy, plant: Plant) -> None:
    def reshaped(graph: Any) -> None:
        (transpose,) = (node for node in graph.node if node.op_type == "Transpose")
        graph.initializer.append(numpy_helper.from_array(np.array([-1, 3, SIZE, SIZE]), "nchw"))
        transpose.op_type = "Reshape"
        transpose.input.append("nchw")
        del transpose.attribute[:]

    _only(named(healthy, plant(INT8, reshaped)), "NHWC pixels are read as NCHW", "ort int8")


def test_classes_shifted_by_one_in_a_file(healthy: Healthy, plant: Plant) -> None:
    def shifted(graph: Any) -> None:
        for name in ("fc.weight", "fc.bias"):
            _replace(graph, name, np.roll(_values(graph, name), 1, axis=0))

    _only(named(healthy, plant(INT8, shifted)), "the classes are shifted by 1", "ort int8")


def test_two_classes_that_changed_places(healthy: Healthy, plant: Plant) -> None:
    def exchanged(graph: Any) -> None:
        for name in ("fc.weight", "fc.bias"):
            _replace(graph, name, _values(graph, name)[[0, 4, 2, 3, 1, 5]])

    _only(named(healthy, plant(INT8, exchanged)), "the classes are in another order: 1 to 4, 4 to 1", "ort int8")


def _with(images: LabeledImages, *, pixels: UInt8 | None = None, labels: Any = None) -> LabeledImages:
    return LabeledImages(
        images.images_nhwc if pixels is None else np.ascontiguousarray(pixels),
        images.labels if labels is None else labels,
        images.classes,
        "faulty",
    )


def test_faults_of_the_images_that_judge(healthy: Healthy, tmp_path: Path) -> None:
    images, classes = healthy.images, len(healthy.images.classes)
    pixels = images.images_nhwc
    faulty = {
        "the labels are shifted by 1": _with(images, labels=(images.labels + 1) % classes),
        "the labels are shifted by -1": _with(images, labels=(images.labels - 1) % classes),
        "the channels are swapped: RGB and BGR in these images": _with(images, pixels=pixels[..., ::-1]),
        "the pixels are inverted (255 - x) in these images": _with(images, pixels=255 - pixels),
        "NHWC pixels are read as NCHW in these images": _with(
            images, pixels=np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).reshape(pixels.shape)
        ),
    }
    for name, planted in faulty.items():
        data = written(tmp_path / "faulty.npz", planted)
        _only(named(healthy, data=str(data), precisions="fp32"), name, "the images that judge", "its manifest says")


def test_harder_images_are_no_fault(healthy: Healthy, tmp_path: Path) -> None:
    noise = np.random.default_rng(3).integers(0, 256, healthy.images.images_nhwc.shape, np.uint8)
    data = written(tmp_path / "noise.npz", _with(healthy.images, pixels=noise))
    found = verify(healthy.bundle, data=str(data), backends="ort", precisions="fp32")
    assert found.likely_causes == ()


def test_one_layers_activation_scale_times_four(healthy: Healthy, plant: Plant) -> None:
    name = "stages.0.0.relu1/Relu_output_scale"

    def widened(graph: Any) -> None:
        _replace(graph, name, 4 * _values(graph, name))

    words = ("a layer's scale is not the record's", INT8, "'stages.0.0.relu1/Relu_output'", "4.00 times the record's")
    _only(named(healthy, plant(INT8, widened)), *words)


@pytest.mark.parametrize(
    ("file", "weights"),
    [
        (INT8, "stages.0.0.conv1.weight"),
        (INT8, "stem.0.weight.pixels"),
        ("model.int8-fp16.onnx", "stages.0.0.conv1.weight"),
        ("model.int8-cpu.onnx", "stages.0.0.conv1/Conv/weight"),
        ("model.int8-cpu.onnx", "stem.0/Conv/weight"),
    ],
)
def test_one_layers_weight_scales_times_four(healthy: Healthy, plant: Plant, file: str, weights: str) -> None:
    name = f"{weights}_scale"

    def widened(graph: Any) -> None:
        _replace(graph, name, 4 * _values(graph, name))

    causes = named(healthy, plant(file, widened), precisions=file[len("model.") : -len(".onnx")])
    assert "a layer's scale does not fit its weights" in causes[0]
    assert "8 of 8 scales" in causes[0]
    assert file in causes[0]


def test_per_channel_scales_permuted(healthy: Healthy, plant: Plant) -> None:
    name = "stages.1.0.conv1.weight_scale"

    def permuted(graph: Any) -> None:
        _replace(graph, name, np.roll(_values(graph, name), 5))

    causes = named(healthy, plant(INT8, permuted))
    assert "per-channel scales are permuted" in causes[0]
    assert "'stages.1.0.conv1.weight'" in causes[0]


def test_fp16_that_overflows(healthy: Healthy, plant: Plant) -> None:
    """The same function in fp32, with one activation a hundred thousand times as large."""

    def stretched(graph: Any) -> None:
        for name, factor in (
            ("stages.0.0.conv1.weight", 1e5), ("stages.0.0.conv1.bias", 1e5), ("stages.0.0.conv2.weight", 1e-5),
        ):  # fmt: skip
            values = _values(graph, name)
            with np.errstate(over="ignore"):
                _replace(graph, name, (values.astype(np.float64) * factor).astype(values.dtype))

    plant("model.onnx", stretched)
    causes = named(healthy, plant("model.fp16.onnx", stretched), precisions="fp32,fp16")
    assert any("FP16 overflows" in cause and "model.fp16.onnx" in cause for cause in causes), causes


def test_an_activation_that_overflows_is_traced_to_its_node(healthy: Healthy, plant: Plant) -> None:
    def stretched(graph: Any) -> None:
        for name in ("stages.0.0.conv1.weight", "stages.0.0.conv1.bias"):
            values = _values(graph, name).astype(np.float64)
            _replace(graph, name, (values * (6e4 / np.abs(values).max())).astype(np.float16))

    bundle = plant("model.fp16.onnx", stretched)
    causes = named(healthy, bundle, precisions="fp16")
    assert any("FP16 overflows" in c and "'stages.0.0.conv1/Conv' is the first node" in c for c in causes), causes


def test_a_stale_record(healthy: Healthy, plant: Plant) -> None:
    def retrained(graph: Any) -> None:
        _replace(graph, "fc.bias", _values(graph, "fc.bias") + np.float32(1e-6))

    _only(named(healthy, plant("model.onnx", retrained)), "the calibration record is stale", "the network (weights or")


@pytest.mark.slow
def test_an_fp32_file_passed_off_as_int8(healthy: Healthy, tmp_path: Path) -> None:
    shutil.copytree(healthy.bundle, tmp_path / "b")
    shutil.copy(tmp_path / "b/model.onnx", tmp_path / "b" / INT8)
    rehashed(tmp_path / "b")
    found = verify(tmp_path / "b", data=str(healthy.data), backends="ort")
    assert all(found.passed.values())  # no gate sees it
    assert not found.ok
    _only(named(healthy, tmp_path / "b"), "a float file is passed off as int8", INT8, "none of 6 convolutions")


def test_a_backend_that_silently_ran_on_the_cpu(healthy: Healthy) -> None:
    with OrtRunner(healthy.bundle / INT8) as runner:
        found = named(healthy, runners={"cuda int8": runner})
    _only(found, "it silently ran on the CPU", "cuda int8", "bit for bit")


class _Behind(OrtRunner):
    """Answers with what it computed the time before, as a missing synchronization does."""

    before: Float32 | None = None

    def logits(self, images_nhwc: UInt8) -> Float32:
        now, before = super().logits(images_nhwc), self.before
        self.before = now
        answer = now if before is None else np.resize(before, now.shape)
        return answer.copy()


@pytest.mark.slow
@pytest.mark.parametrize("sample", [None, 30])
def test_a_runner_that_returns_the_previous_answer(healthy: Healthy, sample: int | None) -> None:
    with _Behind(healthy.bundle / "model.onnx") as runner:
        found = named(healthy, sample=sample, runners={"camera fp32": runner})
    assert found
    assert all("it returns the previous answer" in cause and "camera fp32" in cause for cause in found), found


class _Constant(OrtRunner):
    """Never sees its input."""

    def logits(self, images_nhwc: UInt8) -> Float32:
        return super().logits(np.zeros_like(images_nhwc))


@pytest.mark.slow
def test_a_runner_whose_input_never_arrives(healthy: Healthy) -> None:
    with _Constant(healthy.bundle / "model.onnx") as runner:
        _only(named(healthy, runners={"camera fp32": runner}), "the logits are constant", "camera fp32")


class _Restless(OrtRunner):
    """Adds what happened to lie in its memory."""

    calls = 0

    def logits(self, images_nhwc: UInt8) -> Float32:
        self.calls += 1
        return super().logits(images_nhwc) + np.float32(self.calls)


def test_a_runner_whose_answers_change_from_call_to_call(healthy: Healthy) -> None:
    with _Restless(healthy.bundle / "model.onnx") as runner:
        _only(named(healthy, runners={"camera fp32": runner}), "its answers change from call to call", "camera fp32")


def test_every_planted_file_is_a_valid_model(healthy: Healthy) -> None:
    for path in healthy.bundle.glob("*.onnx"):
        onnx.checker.check_model(onnx.load(path), full_check=True)
