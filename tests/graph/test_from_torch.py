"""Claims about the exported graph: what TensorRT 8 to 11 need to see in it, and the same answers as PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from toolkit.contracts import LabeledImages, Preprocessing
from toolkit.errors import ExportError
from toolkit.graph.checks import BATCHES, require_portable, require_same_answers
from toolkit.graph.from_torch import onnx_from_torch, readable_name
from toolkit.graph.normal.opset import OPSET
from toolkit.models.checkpoint import classifier_from_config
from toolkit.models.resnet import Classifier, ResNet, ResNetConfig, config_from_name
from toolkit.runtime.ort.runner import OrtRunner
from toolkit.runtime.pytorch import TorchRunner

NETS = {
    "3x3 stem, RGB": ResNetConfig(widths=(8, 16), blocks=(1, 1), strides=(1, 2)),
    "1x1 stem, grayscale": ResNetConfig(widths=(8, 8), blocks=(1, 2), strides=(1, 2), stem_kernel=1, in_channels=1),
    "resnet20": config_from_name("resnet20", classes=7),
}


def _classifier(config: ResNetConfig, size: int = 8, seed: int = 0) -> tuple[Classifier, Preprocessing]:
    """A net whose norms have seen something, so that folding them matters."""
    channels = config.in_channels
    preprocessing = Preprocessing(size, size, channels, (0.4, 0.5, 0.6)[:channels], (0.2, 0.3, 0.25)[:channels])
    torch.manual_seed(seed)
    classifier = classifier_from_config(config, preprocessing)
    for module in classifier.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    return classifier.eval(), preprocessing


def _operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def _shape(value: Any) -> list[Any]:
    return [dimension.dim_param or dimension.dim_value for dimension in value.type.tensor_type.shape.dim]


def test_images_are_uint8_nhwc_and_logits_float32_with_an_open_batch(tiny_graph: onnx.ModelProto) -> None:
    (images,), (logits,) = tiny_graph.graph.input, tiny_graph.graph.output
    assert (images.name, images.type.tensor_type.elem_type) == ("images", onnx.TensorProto.UINT8)
    assert (logits.name, logits.type.tensor_type.elem_type) == ("logits", onnx.TensorProto.FLOAT)
    assert _shape(images) == ["batch", 16, 16, 3]
    assert _shape(logits) == ["batch", 3]


def test_the_cast_comes_first_and_everything_else_after(tiny_graph: onnx.ModelProto) -> None:
    assert _operators(tiny_graph)[:4] == ["Cast", "Transpose", "Mul", "Add"]
    assert [node.name for node in tiny_graph.graph.node if "images" in node.input] == ["preprocess/Cast"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_norms_are_folded_and_the_pool_is_a_pool(name: str) -> None:
    classifier, preprocessing = _classifier(NETS[name])
    model = onnx_from_torch(classifier, preprocessing, {})
    operators = set(_operators(model))
    assert operators == {"Cast", "Transpose", "Mul", "Add", "Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm"}
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)] == [("", 17)]
    require_portable(model)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_answers_are_pytorchs_at_batch_1_7_and_64(name: str) -> None:
    classifier, preprocessing = _classifier(NETS[name])
    model = onnx_from_torch(classifier, preprocessing, {})
    images = np.random.default_rng(0).integers(0, 256, (64, *preprocessing.shape), dtype=np.uint8)
    with TorchRunner(classifier) as reference, OrtRunner(model.SerializeToString()) as candidate:
        facts = require_same_answers(reference, candidate, images)
        assert len({row.tobytes() for row in reference.logits(images[:8])}) == 8
    assert list(facts["relative_difference_by_batch"]) == [str(batch) for batch in BATCHES] == ["1", "7", "64"]


def test_the_trained_net_answers_alike_on_real_structure(
    tiny_graph: onnx.ModelProto, tiny_classifier: Classifier, structured_images: LabeledImages
) -> None:
    images = structured_images.images_nhwc
    with TorchRunner(tiny_classifier) as reference, OrtRunner(tiny_graph.SerializeToString()) as candidate:
        assert require_same_answers(reference, candidate, images)["tolerance"] == 1e-4
        assert np.array_equal(reference.logits(images).argmax(1), candidate.logits(images).argmax(1))


def test_nodes_and_parameters_have_names_that_a_person_can_read(tiny_graph: onnx.ModelProto) -> None:
    names = [node.name for node in tiny_graph.graph.node]
    assert len(set(names)) == len(names)
    assert {"preprocess/Cast", "stem.0/Conv", "stages.1.0.shortcut.0/Conv", "pool/GlobalAveragePool"} < set(names)
    assert names[-2:] == ["head/Flatten", "fc/Gemm"]
    convolutions = [name.removesuffix("/Conv") for name in names if name.endswith("/Conv")]
    parameters = {f"{name}.{role}" for name in [*convolutions, "fc"] for role in ("weight", "bias")}
    assert {tensor.name for tensor in tiny_graph.graph.initializer} == parameters | {
        "preprocess.scale",
        "preprocess.shift",
    }


@pytest.mark.parametrize(
    ("scope", "name"),
    [
        ("/Cast", "preprocess/Cast"),
        ("/net/stem/stem.0/Conv", "stem.0/Conv"),
        ("/net/stages/stages.0/stages.0.1/conv1/Conv", "stages.0.1.conv1/Conv"),
        ("/net/stages/stages.1/stages.1.0/shortcut/shortcut.0/Conv", "stages.1.0.shortcut.0/Conv"),
        ("/net/stages/stages.1/stages.1.0/Add", "stages.1.0/Add"),
        ("/net/stages/stages.1/stages.1.10/Add", "stages.1.10/Add"),
        ("/net/pool/GlobalAveragePool", "pool/GlobalAveragePool"),
        ("/net/Flatten", "head/Flatten"),
        ("/net/fc/Gemm", "fc/Gemm"),
    ],
)
def test_a_scope_becomes_a_readable_name(scope: str, name: str) -> None:
    assert readable_name(scope) == name


def test_metadata_travels_in_the_file_and_nothing_else_does(tiny_classifier: Classifier) -> None:
    preprocessing = _classifier(NETS["3x3 stem, RGB"], 16)[1]
    metadata = {"toolkit.model": "mine", "toolkit.labels": '["ä", "b"]'}
    model = onnx.load_from_string(onnx_from_torch(tiny_classifier, preprocessing, metadata).SerializeToString())
    assert {entry.key: entry.value for entry in model.metadata_props} == metadata
    assert (model.graph.name, model.producer_name, model.doc_string) == ("mine", "toolkit", "")
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)


def test_the_same_weights_give_the_same_bytes() -> None:
    files = [onnx_from_torch(*_classifier(NETS["3x3 stem, RGB"]), {"a": "b"}).SerializeToString() for _ in range(2)]
    other = onnx_from_torch(*_classifier(NETS["3x3 stem, RGB"], seed=1), {"a": "b"}).SerializeToString()
    assert files[0] == files[1] != other


def test_exporting_leaves_the_module_as_it_was(tiny_classifier: Classifier) -> None:
    before = {name: value.clone() for name, value in tiny_classifier.state_dict().items()}
    onnx_from_torch(tiny_classifier, _classifier(NETS["3x3 stem, RGB"], 16)[1], {})
    assert not tiny_classifier.training
    assert all(torch.equal(value, before[name]) for name, value in tiny_classifier.state_dict().items())


def test_equal_biases_of_a_fresh_net_leave_no_identity() -> None:
    classifier, preprocessing = _classifier(NETS["3x3 stem, RGB"])
    for module in classifier.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
    model = onnx_from_torch(classifier, preprocessing, {})
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len({constants[node.input[2]].tobytes() for node in convolutions if len(constants[node.input[2]]) == 8}) == 1
    assert len({node.input[2] for node in convolutions}) == len(convolutions)
    assert "Identity" not in _operators(model)


class _MeanNet(ResNet):
    """Pools with x.mean((2, 3)), as many do."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.stages(self.stem(x)).mean((2, 3)))
        return logits


def test_a_pool_written_as_a_mean_becomes_a_pool() -> None:
    classifier, preprocessing = _classifier(NETS["3x3 stem, RGB"])
    model = onnx_from_torch(
        Classifier(_MeanNet(NETS["3x3 stem, RGB"]), classifier.scale, classifier.shift).eval(), preprocessing, {}
    )
    require_portable(model)
    assert _operators(model)[-3:] == ["GlobalAveragePool", "Flatten", "Gemm"]


class _Untraceable(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("this net has a mind of its own\nand says so")


@pytest.mark.slow
def test_a_net_that_cannot_be_traced_is_an_export_error() -> None:
    classifier, preprocessing = _classifier(NETS["3x3 stem, RGB"])
    with pytest.raises(ExportError, match="cannot export this network") as caught:
        onnx_from_torch(Classifier(_Untraceable(), classifier.scale, classifier.shift), preprocessing, {})
    assert caught.value.found == "this net has a mind of its own"


class _Shuffled(nn.Module):
    """What the older exporter does not know."""

    def __init__(self, unknown: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), unknown)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x).mean((2, 3)))
        return out


@pytest.mark.slow
def test_a_net_that_only_the_newer_exporter_can_write_is_written_and_said(capfd: pytest.CaptureFixture[str]) -> None:
    classifier, preprocessing = _classifier(NETS["3x3 stem, RGB"])
    torch.manual_seed(1)
    net = Classifier(_Shuffled(nn.ChannelShuffle(2)), classifier.scale, classifier.shift, contiguous=True).eval()
    model = onnx_from_torch(net, preprocessing, {"a": "b"})
    assert capfd.readouterr().out == ""
    require_portable(model)
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert said["a"] == "b"
    assert "channel_shuffle" in said["toolkit.exporter"]
    images = np.random.default_rng(0).integers(0, 256, (5, *preprocessing.shape), np.uint8)
    with OrtRunner(model.SerializeToString()) as ours, TorchRunner(net) as theirs:
        np.testing.assert_allclose(ours.logits(images), theirs.logits(images), atol=1e-5)


@pytest.mark.slow
def test_a_net_that_neither_exporter_can_write_is_refused_with_both_reasons() -> None:
    classifier, preprocessing = _classifier(NETS["3x3 stem, RGB"])
    net = Classifier(_Shuffled(nn.AdaptiveMaxPool2d(4)), classifier.scale, classifier.shift, contiguous=True).eval()
    with pytest.raises(ExportError, match="cannot export this network") as caught:
        onnx_from_torch(net, preprocessing, {})
    assert "the older exporter: Unsupported: ONNX export of operator adaptive_max_pool2d" in str(caught.value.found)
    assert "the newer exporter: " in str(caught.value.found)
