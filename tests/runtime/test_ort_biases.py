"""Claims about ONNX Runtime and float biases between Q/DQ: what its defaults break, and that our runner does not."""

from __future__ import annotations

import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from toolkit.calibration.ranges import ranges_from_images
from toolkit.compare.parity import parity_without_labels
from toolkit.contracts import LabeledImages, Preprocessing
from toolkit.graph.fp16 import fp16_from_onnx
from toolkit.quantization.qdq import qdq_from_ranges
from toolkit.runtime.ort.quirks import answer_to_zero, breaks_half_biases, smallest_graph
from toolkit.runtime.ort.runner import OrtRunner

VERSION = tuple(map(int, onnxruntime.__version__.split(".")[:2]))
# (half, largest weight): where the steps of the bias leave FP16 and int32.
BROKEN = [(True, 0.01), (True, 1e-6), (False, 1e-6), (False, 1e-9)]


@pytest.mark.parametrize(("half", "largest_weight"), BROKEN)
@pytest.mark.skipif(not (1, 21) <= VERSION <= (1, 32), reason="tried with ONNX Runtime 1.20 to 1.32 only")
def test_onnx_runtime_on_its_defaults_loses_a_bias_of_many_steps(half: bool, largest_weight: float) -> None:
    assert answer_to_zero(smallest_graph(half, largest_weight)) <= 0
    assert breaks_half_biases()


@pytest.mark.parametrize(("half", "largest_weight"), BROKEN)
def test_with_the_switch_the_bias_stays(half: bool, largest_weight: float) -> None:
    assert answer_to_zero(smallest_graph(half, largest_weight), as_its_users_run_it=False) == 1


@pytest.mark.parametrize(("half", "largest_weight"), [(True, 0.1), (False, 0.01)])
def test_a_bias_of_few_steps_was_never_in_danger(half: bool, largest_weight: float) -> None:
    assert answer_to_zero(smallest_graph(half, largest_weight)) == 1


def test_a_channel_of_nearly_no_weights_keeps_its_bias_in_the_runner(
    tiny_graph: onnx.ModelProto, structured_images: LabeledImages, tiny_preprocessing: Preprocessing
) -> None:
    conv = next(node for node in tiny_graph.graph.node if node.op_type == "Conv")
    for tensor in tiny_graph.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        if tensor.name in conv.input[1:]:
            values[0] = 1e-9 * values[0] if tensor.name == conv.input[1] else 2.0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    images = structured_images.images_nhwc
    record = ranges_from_images(tiny_graph, images, tiny_preprocessing)
    content = fp16_from_onnx(qdq_from_ranges(tiny_graph, record, int8_weights=True)).SerializeToString()
    defaults = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    with OrtRunner(content) as runner, OrtRunner(content, optimize=False) as as_it_stands:
        expected = as_it_stands.logits(images)
        assert parity_without_labels(expected, runner.logits(images)).relative_l2 < 0.01
    lost = parity_without_labels(expected, defaults.run(None, {"images": images})[0])
    if (1, 21) <= VERSION <= (1, 32):
        assert lost.relative_l2 > 0.1
