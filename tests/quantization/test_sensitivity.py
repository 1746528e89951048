"""Claims about sensitivity: a wrecked layer is found by name, and the fewest layers leave INT8 for a budget."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from toolkit.calibration.ranges import ranges_from_images
from toolkit.calibration.record import Record
from toolkit.compare.parity import parity_without_labels
from toolkit.contracts import LabeledImages, Preprocessing, UInt8
from toolkit.errors import CalibrationError
from toolkit.graph.qdq_placement import layers_in_graph
from toolkit.quantization.held_out import logits_of
from toolkit.quantization.qdq import qdq_from_ranges
from toolkit.quantization.sensitivity import keep_float_within, sensitivities_of_layers

WRECKED = "stages.1.0.conv2"


@pytest.fixture(name="images")
def _images(structured_images: LabeledImages) -> UInt8:
    return structured_images.images_nhwc


@pytest.fixture(name="wrecked")
def _wrecked(tiny_graph: onnx.ModelProto) -> onnx.ModelProto:
    """The tiny net with one hidden channel 3,000 times smaller and its readers 3,000 times larger.

    A ReLU stands between, so fp32 computes what it did; the large column leaves the other weights of conv2 no levels.
    """
    tensors = {tensor.name: tensor for tensor in tiny_graph.graph.initializer}
    conv1 = WRECKED.replace("conv2", "conv1")
    for name, index, factor in (
        (f"{conv1}.weight", np.s_[0], 1 / 3000),
        (f"{conv1}.bias", np.s_[0], 1 / 3000),
        (f"{WRECKED}.weight", np.s_[:, 0], 3000),
    ):
        values = numpy_helper.to_array(tensors[name]).copy()
        values[index] *= np.float32(factor)
        tensors[name].CopyFrom(numpy_helper.from_array(values, name))
    return tiny_graph


def _record(graph: onnx.ModelProto, images: UInt8, preprocessing: Preprocessing) -> Record:
    return ranges_from_images(graph, images, preprocessing, percentile=99.999)


def test_a_wrecked_layer_comes_first_by_its_node_name(
    wrecked: onnx.ModelProto, images: UInt8, tiny_preprocessing: Preprocessing
) -> None:
    layers = sensitivities_of_layers(wrecked, _record(wrecked, images, tiny_preprocessing), images)
    assert layers[0].node == f"{WRECKED}/Conv"
    assert layers[0].parity.relative_l2 > 5 * layers[1].parity.relative_l2
    assert layers[0].parity.flips > 0
    assert sorted(layer.node for layer in layers) == sorted(layers_in_graph(wrecked))
    distances = [layer.parity.relative_l2 for layer in layers]
    assert distances == sorted(distances, reverse=True)


def test_a_budget_of_nothing_keeps_the_wrecked_layer_alone_in_float(
    wrecked: onnx.ModelProto, images: UInt8, tiny_preprocessing: Preprocessing
) -> None:
    record = _record(wrecked, images, tiny_preprocessing)
    layers = sensitivities_of_layers(wrecked, record, images)
    budget = keep_float_within(wrecked, record, images, layers, 0)
    assert budget.keep_float == {f"{WRECKED}/Conv"}
    quantized = logits_of(qdq_from_ranges(wrecked, record, keep_float=budget.keep_float), images)
    assert parity_without_labels(logits_of(wrecked, images), quantized).flips == 0
    kept = [point.kept_in_float for point in budget.curve]
    assert kept == sorted(kept, reverse=True)
    assert budget.curve[-1].int8_percent == 100
    assert budget.curve[-1].parity.flips > 0


@pytest.mark.slow
@pytest.mark.usefixtures("rounds_by_place")
def test_any_order_of_the_images_gives_the_same_layers_and_budget(
    wrecked: onnx.ModelProto, images: UInt8, tiny_preprocessing: Preprocessing
) -> None:
    record = _record(wrecked, images, tiny_preprocessing)
    shuffled = images[np.random.default_rng(0).permutation(len(images))]
    layers = sensitivities_of_layers(wrecked, record, images)
    assert sensitivities_of_layers(wrecked, record, shuffled) == layers
    one, other = (keep_float_within(wrecked, record, part, layers, 5) for part in (images, shuffled))
    assert one == other


def test_a_budget_that_int8_meets_keeps_nothing_in_float(
    tiny_graph: onnx.ModelProto, images: UInt8, tiny_preprocessing: Preprocessing
) -> None:
    record = _record(tiny_graph, images, tiny_preprocessing)
    layers = sensitivities_of_layers(tiny_graph, record, images)
    assert keep_float_within(tiny_graph, record, images, layers, 10).keep_float == frozenset()


def test_a_budget_that_no_int8_meets_is_refused(
    wrecked: onnx.ModelProto, images: UInt8, tiny_preprocessing: Preprocessing
) -> None:
    record = _record(wrecked, images, tiny_preprocessing)
    layers = sensitivities_of_layers(wrecked, record, images)
    # Keeping the others in float first leaves the wrecked one for last.
    with pytest.raises(CalibrationError, match="INT8 cannot meet `max_drop=`") as caught:
        keep_float_within(wrecked, record, images, layers[::-1], 0)
    assert "with one convolution left" in str(caught.value.found)
