"""Where training rounds, and what the QAT scales become: the join of the Q/DQ placement and the fake quantization.

A tensor of the graph carries the path of the module that makes it (`stages.0.0.relu1/Relu_output`), so that one
placement serves the files and the training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit.calibration.methods import QAT
from toolkit.calibration.ranges import observation_from_images, ranges_on_cpu
from toolkit.calibration.record import Record
from toolkit.contracts import LabeledImages
from toolkit.exporting.artifacts import fp32_graph_of_model
from toolkit.graph.qdq_placement import layers_in_graph
from toolkit.quantization.choose_method import ranges_by_parity
from toolkit.quantization.scales import LEVELS, activation_scale, weight_scales

if TYPE_CHECKING:
    from toolkit.models.checkpoint import LoadedModel
    from toolkit.training.qat import FakeQuantization


def fake_quantization_of_model(model: LoadedModel, images: LabeledImages) -> FakeQuantization:
    """The model's own Q/DQ places, with the ranges that `auto` measures as the first scales."""
    from toolkit.training.qat import FakeQuantization

    graph = fp32_graph_of_model(model)
    record = ranges_by_parity(graph, images.images_nhwc, model.card.preprocessing).record
    return FakeQuantization(
        {_path_of_tensor(name): float(activation_scale(amax)) for name, amax in record.amax.items()},
        tuple(node.rpartition("/")[0] for node in layers_in_graph(graph)),
        weight_scales,
    )


def record_of_scales(
    model: LoadedModel, images: LabeledImages, scales: dict[str, float], notes: dict[str, Any]
) -> Record:
    """A record whose ranges are the QAT scales; one pass over the images finds the other values beside them."""
    graph = fp32_graph_of_model(model)
    seen = observation_from_images(graph, images.images_nhwc, model.card.preprocessing)
    amax = {name: LEVELS * scales[_path_of_tensor(name)] for name in seen.histograms}
    key = seen.record_key(QAT)
    between = {name: value for name, value in ranges_on_cpu(seen, "mse").items() if name in seen.between}
    return Record(amax, seen.largest, key.belongs_to, key.images, notes, between)


def _path_of_tensor(name: str) -> str:
    """`stages.0.0.relu1/Relu_output` to `stages.0.0.relu1`; the normalized images are the input."""
    from toolkit.training.qat import INPUT

    path = name.rpartition("/")[0]
    return INPUT if path == "preprocess" else path
