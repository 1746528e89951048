"""Claims about the networks: sizes that the papers give, shapes for every choice, refusals in words."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.contracts import Preprocessing
from toolkit.errors import ModelError
from toolkit.models.checkpoint import classifier_from_config
from toolkit.models.resnet import Classifier, ResNet, ResNetConfig, config_from_dict, config_from_name

CONFIGS = st.integers(1, 3).flatmap(
    lambda stages: st.builds(
        ResNetConfig,
        widths=st.tuples(*[st.integers(1, 8)] * stages),
        blocks=st.tuples(*[st.integers(1, 2)] * stages),
        strides=st.tuples(*[st.integers(1, 3)] * stages),
        stem_kernel=st.sampled_from([1, 3]),
        in_channels=st.sampled_from([1, 3]),
        classes=st.integers(2, 12),
    )
)


def _parameters(config: ResNetConfig) -> int:
    return sum(parameter.numel() for parameter in ResNet(config).parameters())


def _counted(n: int) -> int:
    """Parameters of the 6n+2 network with projections (option B), by hand: convolutions, two a norm, the head."""
    widths, total, before = (16, 32, 64), 3 * 16 * 9 + 2 * 16, 16
    for width in widths:
        for block in range(n):
            inputs = before if block == 0 else width
            total += 9 * inputs * width + 9 * width * width + 2 * 2 * width
            total += inputs * width + 2 * width if inputs != width else 0
        before = width
    return total + 64 * 10 + 10


@pytest.mark.parametrize(
    ("depth", "millions"),
    [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85)],  # He et al. 2015, table 6
)
def test_the_family_has_the_papers_sizes(depth: int, millions: float) -> None:
    count = _parameters(config_from_name(f"resnet{depth}"))
    assert count == _counted((depth - 2) // 6)
    # The paper's shortcuts have no parameters (option A); the two projections of option B add 2,752.
    assert round((count - 2752) / 1e6, 2) == millions


def test_resnet20_has_272474_parameters_exactly() -> None:
    assert _parameters(config_from_name("resnet20")) == 272_474


def test_resnet32x32_has_three_stages_of_64_channels_with_two_blocks_each() -> None:
    config = config_from_name("resnet32x32", in_channels=1, classes=7)
    assert (config.widths, config.blocks, config.strides) == ((64, 64, 64), (2, 2, 2), (1, 2, 2))
    assert (config.in_channels, config.classes, config.stem_kernel) == (1, 7, 3)


@pytest.mark.parametrize(("depth", "blocks"), [(8, 1), (14, 2), (20, 3), (110, 18)])
def test_depth_6n_plus_2_has_three_stages_of_n_blocks(depth: int, blocks: int) -> None:
    config = config_from_name(f"resnet{depth}")
    assert (config.widths, config.blocks, config.strides) == ((16, 32, 64), (blocks,) * 3, (1, 2, 2))


@settings(max_examples=25)
@given(CONFIGS, st.integers(5, 9), st.integers(5, 9))
def test_any_configuration_turns_images_of_any_size_into_logits(config: ResNetConfig, height: int, width: int) -> None:
    net = ResNet(config).eval()
    with torch.inference_mode():
        logits = net(torch.zeros(2, config.in_channels, height, width))
    assert logits.shape == (2, config.classes)
    assert torch.isfinite(logits).all()


@given(CONFIGS)
def test_a_configuration_survives_its_dictionary(config: ResNetConfig) -> None:
    assert config_from_dict(config.as_dict()) == config


@pytest.mark.parametrize("name", ["resnet19", "resnet21", "resnet2", "resnet0", "resnet2000", "resnet1208"])
def test_a_depth_that_does_not_exist_is_refused_with_two_that_do(name: str) -> None:
    with pytest.raises(ModelError, match="does not exist in the CIFAR family") as caught:
        config_from_name(name)
    assert caught.value.found == f"depth {name.removeprefix('resnet')}"
    fixes = re.findall(r"`arch='(\w+)'`", str(caught.value.fix))
    assert len(fixes) == 3
    for fix in fixes:
        config_from_name(fix)


@pytest.mark.parametrize("name", ["resnetx", "resnet", "vgg16", "", "resnet-20", "RESNET20", "resnet2.0"])
def test_an_unknown_architecture_lists_those_there_are(name: str) -> None:
    with pytest.raises(ModelError, match=f"unknown architecture '{name}'") as caught:
        config_from_name(name)
    assert "resnet20" in str(caught.value.allowed)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"widths": (64, 64)}, "one entry a stage"),
        ({"widths": (), "blocks": (), "strides": ()}, "one entry a stage"),
        ({"widths": (64, 0, 64)}, "widths out of range"),
        ({"blocks": (2, 2, -1)}, "blocks out of range"),
        ({"strides": (0, 2, 2)}, "strides out of range"),
        ({"stem_kernel": 2}, "kernel does not exist"),
        ({"in_channels": 4}, "unsupported input channels"),
        ({"classes": 1}, "at least two classes"),
        ({"widths": (64.0, 64, 64)}, "whole numbers"),
        ({"stem_kernel": 3.0}, "whole numbers"),
        ({"classes": True}, "whole numbers"),
    ],
)
def test_numbers_that_make_no_network_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        ResNetConfig(**changes)


@pytest.mark.parametrize(
    "changes", [{"depth": 20}, {"widths": 64}, {"widths": ["64"] * 3}, {"classes": "10"}, {"classes": None}]
)
def test_a_dictionary_that_is_no_architecture_is_a_model_error(changes: dict[str, Any]) -> None:
    with pytest.raises(ModelError):
        config_from_dict(ResNetConfig().as_dict() | changes)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_classifier_normalizes_before_the_net_sees_anything(channels: int) -> None:
    config = ResNetConfig(widths=(4,), blocks=(1,), strides=(1,), in_channels=channels, classes=2)
    preprocessing = Preprocessing(6, 5, channels, (0.3, 0.4, 0.5)[:channels], (0.2, 0.25, 0.3)[:channels])
    classifier = classifier_from_config(config, preprocessing).eval()
    images = np.random.default_rng(0).integers(0, 256, (3, 6, 5, channels), dtype=np.uint8)
    normalized = (images / 255 - np.array(preprocessing.mean)) / np.array(preprocessing.std)
    with torch.inference_mode():
        expected = classifier.net(torch.from_numpy(normalized.astype(np.float32).transpose(0, 3, 1, 2)))
        got = classifier(torch.from_numpy(images))
    assert torch.allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_plain_memory_is_plain_behind_a_convolution_too(channels: int) -> None:
    # `x.view(x.size(0), -1)` behind the first layers, as every tutorial's network for digits has it
    net = torch.nn.Sequential(torch.nn.Conv2d(channels, 8, 3), _View(), torch.nn.Linear(8 * 6 * 6, 4))
    classifier = Classifier(net, torch.ones(channels), torch.zeros(channels), contiguous=True)
    assert classifier(torch.zeros(2, 8, 8, channels, dtype=torch.uint8)).shape == (2, 4)


class _View(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(x.size(0), -1)


@pytest.mark.parametrize("width", [2, 4, 8])
def test_a_net_of_few_channels_learns_in_an_order_in_which_pytorch_does_not_hang(width: int) -> None:
    config = ResNetConfig(widths=(width, 8), blocks=(1, 1), strides=(1, 2), in_channels=1)
    classifier = classifier_from_config(config, Preprocessing(16, 16, 1, (0.5,), (0.5,)))
    assert classifier.contiguous is (width < 8)
    classifier(torch.zeros(2, 16, 16, 1, dtype=torch.uint8)).sum().backward()
