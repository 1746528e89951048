"""Claims about nets that other people write: each idiom comes out as operators that every TensorRT reads alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from onnx import helper
from torch import Tensor, nn
from torch.nn import functional

from toolkit.calibration.ranges import ranges_from_images
from toolkit.compare.parity import relative_l2
from toolkit.contracts import Preprocessing
from toolkit.graph.checks import require_portable, require_same_answers
from toolkit.graph.edit import attributes
from toolkit.graph.fp16 import PREPROCESS, fp16_from_onnx
from toolkit.graph.from_torch import onnx_from_torch
from toolkit.models.resnet import Classifier
from toolkit.models.user_network import classifier_of
from toolkit.quantization.ort_cpu import cpu_from_ranges
from toolkit.runtime.ort.runner import OrtRunner
from toolkit.runtime.pytorch import TorchRunner

PREPROCESSING = Preprocessing(8, 12, 3, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))


class Written(nn.Module):
    """A stem, then what a test writes, then a head: normalized (N, 3, 8, 12) to logits (N, 4)."""

    def __init__(self, forward: Callable[[Written, Tensor], Tensor], features: int = 8) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.again = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm = nn.BatchNorm2d(8)
        self.other = nn.BatchNorm2d(8)
        self.preprocess = nn.Conv2d(8, 8, 1)
        self.fc = nn.Linear(features, 4)
        self.written = forward
        for norm in (self.norm, self.other):
            nn.init.normal_(norm.running_mean)  # type: ignore[arg-type]
            nn.init.uniform_(norm.running_var, 0.5, 2)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.written(self, self.conv(x))


def _classifier(net: nn.Module) -> Classifier:
    return classifier_of(net, PREPROCESSING)


def _pooled(net: Written, x: Tensor) -> Tensor:
    out: Tensor = net.fc(x.mean((2, 3)))
    return out


def _shuffled(net: Written, x: Tensor) -> Tensor:
    n, c, h, w = x.size()
    return _pooled(net, x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))


def _masked(net: Written, x: Tensor, never: float) -> Tensor:
    rows = x.mean(3)
    scores = rows.transpose(1, 2) @ rows
    hidden = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
    scores = scores + torch.zeros(scores.shape[1:]).masked_fill(hidden, never)
    weights = scores.view(len(x), -1, scores.shape[-1]).softmax(-1)
    logits: Tensor = net.fc((rows @ weights.transpose(1, 2)).mean(2))
    return logits


IDIOMS: dict[str, tuple[Written, set[str]]] = {
    "a mean": (Written(_pooled), {"GlobalAveragePool", "Flatten"}),
    "a mean of negative axes": (Written(lambda net, x: net.fc(x.mean([-1, -2]))), {"GlobalAveragePool", "Flatten"}),
    "a mean kept and a view": (
        Written(lambda net, x: net.fc(x.mean((2, 3), keepdim=True).view(x.size(0), -1))),
        {"GlobalAveragePool", "Flatten"},
    ),
    "a view of everything": (Written(lambda net, x: net.fc(x.view(x.size(0), -1)), 8 * 96), {"Flatten"}),
    "a mean of one axis": (Written(lambda net, x: net.fc(x.mean(3).mean(2))), {"ReduceMean"}),
    "a squeeze and excitation": (
        Written(lambda net, x: _pooled(net, x * torch.sigmoid(net.preprocess(x.mean((2, 3), keepdim=True))))),
        {"GlobalAveragePool", "Conv", "Sigmoid", "Mul", "Flatten"},
    ),
    "hardswish": (
        Written(lambda net, x: _pooled(net, functional.hardswish(x))),
        {"HardSigmoid", "Mul", "GlobalAveragePool", "Flatten"},
    ),
    "relu6 and silu": (
        Written(lambda net, x: _pooled(net, functional.silu(functional.relu6(x)))),
        {"Clip", "Sigmoid", "Mul", "GlobalAveragePool", "Flatten"},
    ),
    "gelu": (
        Written(lambda net, x: _pooled(net, functional.gelu(x))),
        {"Div", "Erf", "Add", "Mul", "GlobalAveragePool", "Flatten"},
    ),
    "a depthwise convolution": (Written(lambda net, x: _pooled(net, net.deep(x))), {"GlobalAveragePool", "Flatten"}),
    "a concatenation of pools": (
        Written(
            lambda net, x: net.fc(
                torch.cat([functional.max_pool2d(x, 2), functional.avg_pool2d(x, 2)], 1).amax((2, 3))
            ),
            16,
        ),
        {"MaxPool", "AveragePool", "Concat", "ReduceMax"},
    ),
    "a norm before its convolution": (
        Written(lambda net, x: _pooled(net, net.again(torch.relu(net.norm(x + torch.tanh(x)))))),
        {"Tanh", "Add", "BatchNormalization", "Relu", "GlobalAveragePool", "Flatten"},
    ),
    "a convolution used twice": (
        Written(lambda net, x: _pooled(net, net.again(torch.relu(net.again(x))))),
        {"Relu", "GlobalAveragePool", "Flatten"},
    ),
    "one convolution behind two norms": (
        Written(lambda net, x: _pooled(net, net.norm(net.again(x)) + net.other(net.again(torch.relu(x))))),
        {"Relu", "Add", "GlobalAveragePool", "Flatten"},
    ),
    "a channel shuffle": (Written(_shuffled), {"Reshape", "Transpose", "GlobalAveragePool", "Flatten"}),
    **{
        f"a mask of {never}": (
            Written(partial(_masked, never=never)),
            {"ReduceMean", "Transpose", "MatMul", "Add", "Reshape", "Softmax"},
        )
        for never in (float("-inf"), -1e9)
    },
    "a cast to float": (
        Written(lambda net, x: _pooled(net, x.double().float() + x)),
        {"Add", "GlobalAveragePool", "Flatten"},
    ),
    "an interpolation": (
        Written(lambda net, x: _pooled(net, functional.interpolate(x, scale_factor=2.0))),
        {"Resize", "GlobalAveragePool", "Flatten"},
    ),
}  # fmt: skip


@pytest.fixture(params=IDIOMS)
def idiom(request: pytest.FixtureRequest) -> tuple[Classifier, set[str]]:
    """A classifier that is written with one idiom, and the operators that it may become."""
    net, operators = IDIOMS[request.param]
    return _classifier(net), operators


def test_an_idiom_becomes_plain_operators_that_answer_as_pytorch_does(idiom: tuple[Classifier, set[str]]) -> None:
    classifier, operators = idiom
    model = onnx_from_torch(classifier, PREPROCESSING, {})
    require_portable(model)
    inside = {node.op_type for node in model.graph.node if not node.name.startswith(PREPROCESS)}
    assert operators | {"Gemm"} <= inside <= operators | {"Conv", "Gemm"}
    images = np.random.default_rng(0).integers(0, 256, (64, *PREPROCESSING.shape), dtype=np.uint8)
    with TorchRunner(classifier) as reference, OrtRunner(model.SerializeToString()) as candidate:
        require_same_answers(reference, candidate, images)


def test_names_are_unique_and_the_preprocessing_is_four_nodes(idiom: tuple[Classifier, set[str]]) -> None:
    model = onnx_from_torch(idiom[0], PREPROCESSING, {})
    for names in (
        [node.name for node in model.graph.node],
        [name for node in model.graph.node for name in node.output],
        [tensor.name for tensor in model.graph.initializer],
    ):
        assert max(Counter(names).values()) == 1
    preprocessing = [node.op_type for node in model.graph.node if node.name.startswith(PREPROCESS)]
    assert preprocessing == ["Cast", "Transpose", "Mul", "Add"]
    floats = [tensor.name for tensor in model.graph.initializer if tensor.name.startswith("preprocess")]
    assert floats == ["preprocess.scale", "preprocess.shift"]


def test_half_precision_stays_close_in_every_idiom(idiom: tuple[Classifier, set[str]]) -> None:
    model = onnx_from_torch(idiom[0], PREPROCESSING, {})
    images = np.random.default_rng(0).integers(0, 256, (16, *PREPROCESSING.shape), dtype=np.uint8)
    half = fp16_from_onnx(model)
    with OrtRunner(model.SerializeToString()) as fp32, OrtRunner(half.SerializeToString()) as fp16:
        expected, got = fp32.logits(images), fp16.logits(images)
    assert 0 < np.abs(got - expected).max() < 0.02 * np.abs(expected).max()


def test_a_shared_convolution_keeps_one_weight() -> None:
    model = onnx_from_torch(_classifier(IDIOMS["a convolution used twice"][0]), PREPROCESSING, {})
    readers = [node for node in model.graph.node if "again.weight" in node.input]
    assert [node.name for node in readers] == ["again/Conv", "again_1/Conv"]


def test_attributes_are_python_values() -> None:
    node = helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)
    assert attributes(node) == {"axes": [2, 3], "keepdims": 0}


@pytest.mark.parametrize("pad", [0, 1])
def test_an_average_whose_windows_reach_beyond_its_padding_is_the_same_in_every_file(pad: int) -> None:
    torch.manual_seed(0)
    net = _classifier(
        Written(lambda net, x: _pooled(net, net.again(functional.avg_pool2d(x.relu(), 3, 2, pad, ceil_mode=True))))
    )
    model = onnx_from_torch(net, PREPROCESSING, {})
    (average,) = [node for node in model.graph.node if node.op_type == "AveragePool"]
    assert not attributes(average).get("count_include_pad")
    images = np.random.default_rng(0).integers(0, 256, (40, *PREPROCESSING.shape), np.uint8)
    with TorchRunner(net) as torch_runner, OrtRunner(model.SerializeToString()) as ort:
        require_same_answers(torch_runner, ort, images)
    record = ranges_from_images(model, images, PREPROCESSING, method="minmax")
    int8 = cpu_from_ranges(model, record).SerializeToString()
    answers = []
    for optimize in (True, False):
        with OrtRunner(int8, optimize=optimize) as runner:
            answers.append(runner.logits(images))
    assert relative_l2(answers[1], answers[0]) < 0.01
