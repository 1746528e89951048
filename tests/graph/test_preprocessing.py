"""Claims about networks that want blue first: images stay RGB, and the graph turns the channels about for nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from toolkit.contracts import Float32, Preprocessing, UInt8, preprocessing_from_dict
from toolkit.errors import ModelError
from toolkit.graph.from_torch import onnx_from_torch
from toolkit.graph.preprocessing import renormalized, with_preprocessing
from toolkit.models.user_network import classifier_of
from toolkit.runtime.ort.runner import OrtRunner
from toolkit.runtime.pytorch import TorchRunner

RGB = Preprocessing(6, 6, 3, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
BGR = replace(RGB, bgr=True)
IMAGES: UInt8 = np.random.default_rng(0).integers(0, 256, (5, 6, 6, 3), dtype=np.uint8)


def network(first: str) -> onnx.ModelProto:
    """Float images (batch, 3, 6, 6) to 4 logits, through a convolution or straight into a matrix."""
    rng = np.random.default_rng(1)
    tensors = {"w": rng.normal(size=(4, 3, 3, 3)) if first == "Conv" else rng.normal(size=(4, 108))}
    nodes = [helper.make_node("Flatten", ["x"], ["f"], "flat"), helper.make_node("Gemm", ["f", "w"], ["y"], transB=1)]
    if first == "Conv":
        nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("GlobalAveragePool", ["c"], ["p"])]
        nodes.append(helper.make_node("Flatten", ["p"], ["y"]))
    into = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 6, 6])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])
    constants = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in tensors.items()]
    graph = helper.make_graph(nodes, "g", [into], [out], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def answers(model: onnx.ModelProto, images: UInt8) -> Float32:
    with OrtRunner(model.SerializeToString()) as runner:
        found: Float32 = runner.logits(np.ascontiguousarray(images))
    return found


@pytest.mark.parametrize("first", ["Conv", "Gemm"])
def test_blue_first_answers_as_the_reversed_image_does_and_a_convolution_takes_it_into_its_weights(first: str) -> None:
    turned = with_preprocessing(network(first), BGR, nchw=True)
    mirrored = replace(RGB, mean=RGB.mean[::-1], std=RGB.std[::-1])
    plain = with_preprocessing(network(first), mirrored, nchw=True)
    assert np.allclose(answers(turned, IMAGES), answers(plain, IMAGES[..., ::-1]), atol=1e-4)
    assert ("Gather" in [node.op_type for node in turned.graph.node]) == (first == "Gemm")


def test_weights_that_two_convolutions_share_are_not_turned_twice() -> None:
    model = network("Conv")
    model.graph.node.insert(1, helper.make_node("Conv", ["x", "w"], ["c2"]))
    model.graph.node[2].input[0] = "sum"
    model.graph.node.insert(2, helper.make_node("Add", ["c", "c2"], ["sum"]))
    turned = with_preprocessing(model, BGR, nchw=True)
    assert "Gather" in [node.op_type for node in turned.graph.node]


def test_pytorch_and_its_graph_turn_the_channels_alike() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    classifier = classifier_of(net, BGR)
    graph = onnx_from_torch(classifier, BGR, {})
    with TorchRunner(classifier) as runner, TorchRunner(classifier_of(net, RGB)) as other:
        expected, unturned = runner.logits(IMAGES), other.logits(IMAGES)
    assert np.allclose(answers(graph, IMAGES), expected, atol=1e-5)
    assert not np.allclose(unturned, expected, atol=1e-2)
    assert "Gather" not in [node.op_type for node in graph.graph.node]


def test_another_normalization_leaves_the_channels_as_they_are() -> None:
    other = replace(BGR, mean=(0.0,) * 3, std=(1.0,) * 3)
    found = renormalized(with_preprocessing(network("Conv"), BGR, nchw=True), other)
    assert found is not None
    expected = with_preprocessing(network("Conv"), other, nchw=True)
    assert np.allclose(answers(found, IMAGES), answers(expected, IMAGES), atol=1e-5)


def test_the_order_is_kept_in_documents_and_old_ones_have_none() -> None:
    assert preprocessing_from_dict(BGR.as_dict()) == BGR
    assert "network_channels" not in RGB.as_dict()
    assert preprocessing_from_dict(RGB.as_dict()) == RGB
    with pytest.raises(ModelError, match="3 channels only"):
        Preprocessing(6, 6, 1, (0.5,), (0.5,), bgr=True)
