"""Claims about ranges: the same bits for the same set, a key that names what changed, refusals in words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from toolkit.calibration.histogram import Histogram
from toolkit.calibration.methods import CANDIDATES, LEVELS, UNSIGNED_LEVELS, amax_from_histogram, require_method
from toolkit.calibration.ranges import (
    BATCH,
    COUNTED,
    FEWEST,
    observation_from_images,
    ranges_from_images,
    ranges_on_cpu,
    record_from_observation,
    require_complete,
    require_enough,
    step_of_counting,
)
from toolkit.calibration.record import NAMES, Record
from toolkit.contracts import Float32, LabeledImages, Preprocessing, UInt8
from toolkit.errors import CalibrationError, DataError, ToolkitError
from toolkit.graph.qdq_placement import float_activations, placement_in_graph
from toolkit.runtime.ort.runner import OrtRunner


@pytest.fixture(name="images")
def _images(structured_images: LabeledImages) -> UInt8:
    return structured_images.images_nhwc[:37]  # two whole batches and a tail


@pytest.fixture(name="record")
def _record(tiny_graph: onnx.ModelProto, images: UInt8, tiny_preprocessing: Preprocessing) -> Record:
    return ranges_from_images(tiny_graph, images, tiny_preprocessing)


def _changed(record: Record, other: Record) -> str:
    """What `require_belongs_to` says changed."""
    assert record.key != other.key
    with pytest.raises(CalibrationError, match="stale") as caught:
        record.require_belongs_to(other.belongs_to)
    return str(caught.value.found)


def _spoiled(graph: onnx.ModelProto, name: str, value: float, rows: Any = slice(None)) -> onnx.ModelProto:
    """The graph with some of a weight's rows set to a value."""
    (tensor,) = (tensor for tensor in graph.graph.initializer if tensor.name == name)
    values = numpy_helper.to_array(tensor).copy()
    values[rows] = value
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    return graph


@pytest.mark.slow
@pytest.mark.parametrize("count", [FEWEST, BATCH - 1, BATCH, BATCH + 1, 37])
@pytest.mark.parametrize("method", ["percentile", "minmax"])
@pytest.mark.usefixtures("rounds_by_place")
def test_shuffled_images_give_the_same_record_bit_for_bit(
    tiny_graph: onnx.ModelProto, images: UInt8, tiny_preprocessing: Preprocessing, count: int, method: str
) -> None:
    some = np.concatenate([images[: count - 2], images[:2]])  # two images twice
    order = np.random.default_rng(count).permutation(count)
    records = [
        ranges_from_images(tiny_graph, part, tiny_preprocessing, method=method).as_dict()
        for part in (some, some[order], some[::-1])
    ]
    assert records[0] == records[1] == records[2]
    assert len(records[0]["images"]) == count


def test_minmax_is_the_exact_largest_value_of_every_image_alone(
    tiny_graph: onnx.ModelProto, images: UInt8, tiny_preprocessing: Preprocessing
) -> None:
    tiny_graph = _spoiled(_spoiled(tiny_graph, "fc.weight", -1e-3), "fc.bias", 0)  # logits just below 0
    record = ranges_from_images(tiny_graph, images, tiny_preprocessing, method="minmax")
    names, placed = float_activations(tiny_graph), set(placement_in_graph(tiny_graph).consumers)
    del tiny_graph.graph.output[:]
    tiny_graph.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    with OrtRunner(tiny_graph.SerializeToString()) as runner:
        alone = [runner.tensors(images[i : i + 1]) for i in range(len(images))]
    for name in names:
        exact = max(float(np.abs(tensors[name]).max()) for tensors in alone)
        assert record.largest[name] == pytest.approx(exact, rel=1e-5)
    assert min(record.largest.values()) < 0.5
    assert record.amax == {name: record.largest[name] for name in record.amax}
    assert set(record.amax) == placed
    assert set(record.belongs_to) == set(NAMES)
    assert [len(name) for name in record.images] == [16] * len(images)


@pytest.mark.parametrize("size", [1, 64, COUNTED, COUNTED + 1, 16 * 32 * 32, 64 * 32 * 32, 10**7])
def test_large_maps_are_counted_at_odd_steps_and_small_ones_whole(size: int) -> None:
    step = step_of_counting(size)
    assert step % 2 == 1
    assert step == 1 or size > COUNTED
    assert COUNTED / 3 < len(range(0, size, step)) <= COUNTED or size < COUNTED


def test_a_percentile_clips_and_never_exceeds_the_largest(record: Record) -> None:
    assert all(0 < record.amax[name] <= record.largest[name] for name in record.amax)
    assert any(record.amax[name] < record.largest[name] for name in record.amax)


def test_the_images_that_fill_up_the_last_batch_do_not_count(
    tiny_graph: onnx.ModelProto, images: UInt8, tiny_preprocessing: Preprocessing, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    add = Histogram.add

    def counted(self: Histogram, values: Float32, step: int) -> None:
        assert step == step_of_counting(values[0].size)
        seen.append(len(values))
        add(self, values, step)

    monkeypatch.setattr(Histogram, "add", counted)
    monkeypatch.setattr("toolkit.calibration.ranges.COUNTED", 100)
    progress: list[tuple[int, int]] = []
    ranges_from_images(tiny_graph, images, tiny_preprocessing, on_progress=lambda *step: progress.append(step))
    tensors = len(placement_in_graph(tiny_graph).consumers) + 3  # two sums' other parts and the last ReLU
    assert sum(seen) == 37 * tensors
    assert progress == [(16, 37), (32, 37), (37, 37)]


def test_the_engine_sees_the_same_whole_batches_whatever_the_order(
    tiny_graph: onnx.ModelProto, images: UInt8, tiny_preprocessing: Preprocessing, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bytes] = []
    tensors = OrtRunner.tensors

    def watched(self: OrtRunner, batch: UInt8) -> dict[str, Float32]:
        assert len(batch) == BATCH
        seen.append(batch.tobytes())
        return tensors(self, batch)

    monkeypatch.setattr(OrtRunner, "tensors", watched)
    for some in (images, images[::-1]):
        ranges_from_images(tiny_graph, some, tiny_preprocessing)
    assert len(seen) == 6
    assert seen[:3] == seen[3:]


def test_one_changed_pixel_makes_the_record_stale_for_the_images(
    tiny_graph: onnx.ModelProto, images: UInt8, tiny_preprocessing: Preprocessing, record: Record
) -> None:
    other = images.copy()
    other[20, 3, 3, 1] ^= 1
    found = _changed(record, ranges_from_images(tiny_graph, other, tiny_preprocessing))
    assert found == f"changed: {NAMES['images_sha256']}"


def test_a_duplicate_belongs_to_the_set_of_images(
    tiny_graph: onnx.ModelProto, images: UInt8, tiny_preprocessing: Preprocessing, record: Record
) -> None:
    twice = np.concatenate([images, images[:1]])
    found = _changed(record, ranges_from_images(tiny_graph, twice, tiny_preprocessing))
    assert found == f"changed: {NAMES['images_sha256']}"


def test_one_changed_weight_makes_the_record_stale_for_the_network(
    tiny_graph: onnx.ModelProto, images: UInt8, tiny_preprocessing: Preprocessing, record: Record
) -> None:
    other = _spoiled(tiny_graph, "stem.0.weight", 0.125, (0, 0, 0, 0))
    found = _changed(record, ranges_from_images(other, images, tiny_preprocessing))
    assert found == f"changed: {NAMES['graph_sha256']}"


def test_another_mean_makes_the_record_stale_for_the_preprocessing(
    tiny_graph: onnx.ModelProto, images: UInt8, tiny_preprocessing: Preprocessing, record: Record
) -> None:
    other = Preprocessing(16, 16, 3, (0.1, 0.2, 0.3), tiny_preprocessing.std)
    found = _changed(record, ranges_from_images(tiny_graph, images, other))
    assert found == f"changed: {NAMES['preprocessing_sha256']}"


@pytest.mark.parametrize("change", [{"method": "minmax"}, {"percentile": 99.0}])
def test_another_method_makes_the_record_stale_for_the_method(
    tiny_graph: onnx.ModelProto, images: UInt8, tiny_preprocessing: Preprocessing, record: Record, change: Any
) -> None:
    found = _changed(record, ranges_from_images(tiny_graph, images, tiny_preprocessing, **change))
    assert found == f"changed: {NAMES['method']}"


def test_metadata_of_the_file_does_not_make_a_record_stale(
    tiny_graph: onnx.ModelProto, images: UInt8, tiny_preprocessing: Preprocessing, record: Record
) -> None:
    onnx.helper.set_model_props(tiny_graph, {"a": "comment"})
    assert ranges_from_images(tiny_graph, images, tiny_preprocessing).as_dict() == record.as_dict()


def test_too_few_images_are_refused(
    tiny_graph: onnx.ModelProto, images: UInt8, tiny_preprocessing: Preprocessing
) -> None:
    with pytest.raises(CalibrationError, match="too few images") as caught:
        ranges_from_images(tiny_graph, images[: FEWEST - 1], tiny_preprocessing)
    assert caught.value.found == str(FEWEST - 1)
    require_enough(FEWEST)


def test_images_of_another_shape_are_refused(
    tiny_graph: onnx.ModelProto, images: UInt8, tiny_preprocessing: Preprocessing
) -> None:
    with pytest.raises(DataError, match="calibration does not take these images"):
        ranges_from_images(tiny_graph, images[:, :15], tiny_preprocessing)


@pytest.mark.parametrize(
    ("method", "percentile", "words"),
    [("magic", 99.0, "unknown calibration method 'magic'"), ("percentile", 50, "out of range"),
     ("percentile", 100.5, "out of range")],
)  # fmt: skip
def test_an_unknown_method_or_percentile_is_refused(method: str, percentile: float, words: str) -> None:
    with pytest.raises(CalibrationError, match=words):
        require_method(method, percentile)


def test_methods_have_names_for_records() -> None:
    assert require_method("percentile", 99.99) == "percentile 99.99"
    assert require_method("minmax", 99.99) == "minmax"


@pytest.mark.parametrize("rows", [0, slice(None)])
@pytest.mark.parametrize("weight", ["stem.0.weight", "stages.1.0.conv2.weight"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_numbers_are_refused(
    tiny_graph: onnx.ModelProto, images: UInt8, tiny_preprocessing: Preprocessing, weight: str, rows: Any, value: float
) -> None:
    with pytest.raises(CalibrationError, match=r"activation '(stem|stages)\S*' holds NaN or infinity"):
        ranges_from_images(_spoiled(tiny_graph, weight, value, rows), images, tiny_preprocessing)


@pytest.mark.parametrize("method", ["percentile", "minmax"])
def test_an_activation_that_is_always_zero_has_no_range(
    tiny_graph: onnx.ModelProto, images: UInt8, tiny_preprocessing: Preprocessing, method: str
) -> None:
    dead = _spoiled(_spoiled(tiny_graph, "stem.0.weight", 0), "stem.0.bias", 0)
    with pytest.raises(CalibrationError, match=r"stem\.2/Relu_output' is zero"):
        ranges_from_images(dead, images, tiny_preprocessing, method=method)


def test_a_percentile_at_which_an_activation_is_zero_is_refused_not_written(
    tiny_graph: onnx.ModelProto, images: UInt8, tiny_preprocessing: Preprocessing
) -> None:
    sparse = _spoiled(_spoiled(tiny_graph, "stem.0.weight", 0, slice(1, None)), "stem.0.bias", 0)
    sparse = _spoiled(sparse, "stem.0.weight", 1e-3, 0)
    with pytest.raises(CalibrationError, match=r"stem\.2/Relu_output' has a percentile 51 of zero") as caught:
        ranges_from_images(sparse, images, tiny_preprocessing, percentile=51)
    assert "minmax" in str(caught.value.fix)
    assert str(caught.value.found).endswith("on 37 images")


def test_a_graph_that_cannot_run_is_named_as_what_it_is(
    tiny_graph: onnx.ModelProto, images: UInt8, tiny_preprocessing: Preprocessing
) -> None:
    tiny_graph.graph.node[-1].domain = "elsewhere"
    tiny_graph.opset_import.add(domain="elsewhere", version=1)
    with pytest.raises(ToolkitError, match=r" the graph with its activations exposed\b"):
        observation_from_images(tiny_graph, images, tiny_preprocessing)


def test_ranges_on_the_cpu_have_the_levels_of_their_tensors_and_leave_zeros_out(
    tiny_graph: onnx.ModelProto, images: UInt8, tiny_preprocessing: Preprocessing
) -> None:
    seen = observation_from_images(tiny_graph, images, tiny_preprocessing)
    record = record_from_observation(seen, "mse", {"forced": True})
    assert record.notes == {"forced": True}
    assert record_from_observation(seen, "mse").notes == {}
    counted = seen.histograms | seen.between
    for name, amax in record.cpu.items():
        levels = UNSIGNED_LEVELS if name in seen.unsigned else LEVELS
        assert amax == amax_from_histogram(counted[name], "mse", levels)
    assert set(record.cpu) == {*seen.between, *seen.unsigned}
    small = Histogram()
    small.add(np.full(3, 0.25, np.float32))
    zeros, between = Histogram(), list(seen.between)
    zeros.add(np.zeros(3, np.float32))
    changed = replace(seen, between=seen.between | {between[0]: zeros, between[1]: small})
    assert set(record.cpu) - set(ranges_on_cpu(changed, "minmax")) == {between[0]}


@pytest.mark.parametrize("kind", ["amax", "largest"])
def test_a_record_without_one_tensor_is_not_complete(tiny_graph: onnx.ModelProto, record: Record, kind: str) -> None:
    require_complete(record, tiny_graph)
    last = list(getattr(record, kind))[-1]
    changes: dict[str, Any] = {kind: {name: 1.0 for name in getattr(record, kind) if name != last}}
    lacking = replace(record, **changes)
    with pytest.raises(CalibrationError, match="not complete") as caught:
        require_complete(lacking, tiny_graph)
    assert caught.value.found == f"no range of '{last}'"
    with pytest.raises(CalibrationError, match="not complete") as caught:
        require_complete(replace(lacking, amax={}, largest={}), tiny_graph)
    assert str(caught.value.found).endswith(f" and {len({*record.amax, *record.largest}) - 1} others")


def test_a_record_without_what_the_cpu_file_alone_quantizes_is_not_complete(
    tiny_graph: onnx.ModelProto, images: UInt8, tiny_preprocessing: Preprocessing
) -> None:
    once, nodes = "stages.0.0.relu1/Relu_output", tiny_graph.graph.node
    (reader,) = (node for node in nodes if once in node.input)
    reader.input[0] = "twice"
    nodes.insert(list(nodes).index(reader), onnx.helper.make_node("Relu", [once], ["twice"], "again"))
    record = ranges_from_images(tiny_graph, images, tiny_preprocessing)
    require_complete(record, tiny_graph)
    kept: dict[str, Any] = {
        kind: {name: value for name, value in getattr(record, kind).items() if name != once}
        for kind in ("amax", "largest", "cpu")
    }
    with pytest.raises(CalibrationError, match="not complete") as caught:
        require_complete(replace(record, **kept), tiny_graph)
    assert caught.value.found == f"no range of '{once}'"
    require_complete(replace(record, **kept | {"cpu": record.cpu}), tiny_graph)


@pytest.mark.parametrize("cut", [8, 21])
def test_two_parts_of_a_set_merge_into_the_record_of_one_pass(
    tiny_graph: onnx.ModelProto, images: UInt8, tiny_preprocessing: Preprocessing, cut: int
) -> None:
    first, rest, whole = (
        observation_from_images(tiny_graph, part, tiny_preprocessing) for part in (images[:cut], images[cut:], images)
    )
    for method in CANDIDATES:
        expected = record_from_observation(whole, method)
        assert record_from_observation(first.merged(rest), method) == expected
        assert record_from_observation(rest.merged(first), method) == expected
