"""Claims about fake quantization: folding changes nothing, it rounds as the INT8 file does, and it can be undone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from toolkit.calibration.methods import QAT
from toolkit.calibration.record import Record
from toolkit.contracts import LabeledImages
from toolkit.errors import ModelError
from toolkit.models.checkpoint import LoadedModel, load_model
from toolkit.models.resnet import Classifier, ResNet
from toolkit.quantization.qdq import qdq_from_ranges
from toolkit.quantization.scales import LEVELS, weight_scales
from toolkit.runtime.ort.runner import OrtRunner
from toolkit.training.qat import (
    INPUT,
    FakeQuantization,
    QatScale,
    QuantizedConv2d,
    fake_quantized,
    float_weights,
    folded,
    qat_scales_of,
    refreshed,
)
from toolkit.training.qat_scales import fake_quantization_of_model


@pytest.fixture
def model(tiny_model_folder: object) -> LoadedModel:
    """The trained tiny net as a loaded model folder."""
    return load_model(tiny_model_folder)  # type: ignore[arg-type]


@pytest.fixture
def places(model: LoadedModel, structured_images: LabeledImages) -> FakeQuantization:
    """Where it is quantized, with measured scales."""
    return fake_quantization_of_model(model, structured_images)


def net_of(model: LoadedModel) -> ResNet:
    """Its network, typed."""
    assert isinstance(model.classifier.net, ResNet)
    return model.classifier.net


def answers(classifier: Classifier, images: LabeledImages) -> torch.Tensor:
    """Logits in evaluation mode."""
    with torch.inference_mode():
        logits: torch.Tensor = classifier.eval()(torch.tensor(images.images_nhwc))
    return logits


def test_a_folded_net_answers_as_before(model: LoadedModel) -> None:
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(folded(net_of(model))(x), net_of(model)(x), atol=1e-4)


@pytest.mark.slow
def test_every_place_of_the_int8_file_is_a_place_of_training(model: LoadedModel, places: FakeQuantization) -> None:
    trained = fake_quantized(model.classifier, places)
    scales = [m for m in trained.modules() if isinstance(m, QatScale)]
    convolutions = [m for m in trained.modules() if isinstance(m, QuantizedConv2d)]
    assert len(scales) == len(places.scales)
    assert len(convolutions) == len(places.convolutions) == 6
    assert set(places.scales) == {
        INPUT, "stem.2", "stages.0.0.relu1", "stages.0.0.relu2", "stages.1.0.relu1", "stages.1.0.shortcut.0",
    }  # fmt: skip


@pytest.mark.slow
def test_fake_quantization_answers_as_the_int8_file(
    model: LoadedModel, places: FakeQuantization, structured_images: LabeledImages
) -> None:
    from toolkit.exporting.artifacts import fp32_graph_of_model
    from toolkit.quantization.choose_method import ranges_by_parity

    graph = fp32_graph_of_model(model)
    record = ranges_by_parity(graph, structured_images.images_nhwc, model.card.preprocessing).record
    qat_record = replace(record, belongs_to={**record.belongs_to, "method": QAT})
    with OrtRunner(qdq_from_ranges(graph, qat_record).SerializeToString(), optimize=False) as runner:
        expected = runner.logits(structured_images.images_nhwc)
    with OrtRunner(graph.SerializeToString()) as runner:
        float_answers = runner.logits(structured_images.images_nhwc)
    got = answers(fake_quantized(model.classifier, places), structured_images).numpy()
    # A value between two levels may fall to either side: a few roundings differ, and no more.
    assert np.abs(got - expected).mean() < 0.1 * np.abs(float_answers - expected).mean()


@pytest.mark.slow
def test_trained_weights_become_a_plain_resnet_again(
    model: LoadedModel, places: FakeQuantization, structured_images: LabeledImages
) -> None:
    before = answers(model.classifier, structured_images)
    trained = fake_quantized(model.classifier, places)
    net_of(model).load_state_dict(float_weights(trained, net_of(model)))
    assert torch.allclose(answers(model.classifier, structured_images), before, atol=1e-4)


@pytest.mark.slow
def test_gradients_reach_weights_and_scales(
    model: LoadedModel, places: FakeQuantization, structured_images: LabeledImages
) -> None:
    trained = fake_quantized(model.classifier, places).train()
    loss = torch.nn.functional.cross_entropy(
        trained(torch.tensor(structured_images.images_nhwc)), torch.tensor(structured_images.labels)
    )
    loss.backward()  # type: ignore[no-untyped-call]
    for name, parameter in trained.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_a_scale_learns_to_stop_clipping() -> None:
    layer = QatScale(0.001)
    x = torch.linspace(-1, 1, 1001).reshape(1, -1)
    optimizer = torch.optim.Adam(layer.parameters(), lr=3e-4)
    for _ in range(100):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(layer(x), x).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert abs(float(layer.scale.detach()) * LEVELS - 1) < 0.1


@pytest.mark.slow
def test_qat_scales_go_by_the_names_they_came_with(model: LoadedModel, places: FakeQuantization) -> None:
    found = qat_scales_of(fake_quantized(model.classifier, places))
    assert found == pytest.approx(dict(places.scales))


@pytest.mark.slow
def test_weight_scales_follow_the_weights(model: LoadedModel, places: FakeQuantization) -> None:
    trained = fake_quantized(model.classifier, places)
    conv = next(m for m in trained.modules() if isinstance(m, QuantizedConv2d))
    with torch.no_grad():
        conv.weight *= 3
    refreshed(trained)
    expected = weight_scales(conv.weight.detach().numpy())
    assert np.array_equal(conv.scales.numpy().reshape(-1), expected)


@pytest.mark.slow
def test_a_users_network_is_refused(model: LoadedModel, places: FakeQuantization) -> None:
    other = Classifier(torch.nn.Flatten(), torch.ones(3), torch.zeros(3))
    with pytest.raises(ModelError, match="ResNets"):
        fake_quantized(other, places)


@pytest.mark.slow
def test_a_qat_record_reaches_the_files_with_its_own_scales(
    model: LoadedModel, places: FakeQuantization, structured_images: LabeledImages
) -> None:
    from toolkit.quantization.scales import activation_scale
    from toolkit.training.qat_scales import record_of_scales

    scales = {path: scale * 1.5 for path, scale in places.scales.items()}
    record: Record = record_of_scales(model, structured_images, scales, {})
    assert record.belongs_to["method"] == "learned"
    for name, amax in record.amax.items():
        path = INPUT if name.startswith("preprocess/") else name.rpartition("/")[0]
        assert float(activation_scale(amax)) == pytest.approx(scales[path], rel=1.1e-3)
