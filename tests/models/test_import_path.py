"""Claims about networks by import path: what can go wrong in other people's code ends in one sentence."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from toolkit.contracts import Preprocessing
from toolkit.errors import ModelError
from toolkit.graph.from_torch import onnx_from_torch
from toolkit.models.import_path import classes_of_network, is_import_path, network_from_import_path
from toolkit.models.user_network import classifier_of
from toolkit.runtime.ort.runner import OrtRunner

SOURCE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes=3, width=4):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x):
        return self.fc(self.body(x))

class Holder:
    inner = Net

def build(num_classes=3):
    return Net(num_classes)

def wrapped():
    return nn.DataParallel(Net().half())

def raises(depth):
    raise ValueError(f"depth {depth}\\nis not one")

def nothing():
    return {"net": 1}

instance = Net(5)
number = 3
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `zoo_net.py`, and no module of an earlier test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("zoo_net", "faulty"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "zoo_net.py").write_text(SOURCE)
    return tmp_path


def test_an_import_path_has_a_colon_and_is_no_folder(here: Path) -> None:
    assert is_import_path("zoo_net:build")
    assert not is_import_path("my-net")
    (here / "odd:name").mkdir()
    assert not is_import_path("odd:name")


@pytest.mark.parametrize(
    ("name", "kwargs", "classes"),
    [
        ("build", {"num_classes": 7}, 7),
        ("Net", {"width": 8}, 3),
        ("Holder.inner", {}, 3),
        ("instance", {}, 5),
        ("wrapped", {}, 3),
    ],
)
def test_a_function_a_class_and_an_instance_give_a_network(
    here: Path, name: str, kwargs: dict[str, Any], classes: int
) -> None:
    net, _ = network_from_import_path(f"zoo_net:{name}", kwargs)
    assert not net.training
    assert {value.dtype for value in net.parameters()} == {torch.float32}
    assert not isinstance(net, nn.DataParallel)
    assert classes_of_network(net, (8, 10, 3)) == classes


@pytest.mark.parametrize(
    ("spec", "kwargs", "parts"),
    [
        ("zoo_net:", {}, ("is not the import path", "mynet:ResNet")),
        (":build", {}, ("is not the import path",)),
        ("zoo-net:build", {}, ("is not the import path",)),
        ("zoo_nett:build", {}, ("no Python module 'zoo_nett'", "did you mean zoo_net")),
        ("zoo_net.sub:build", {}, ("no Python module 'zoo_net.sub'",)),
        ("zoo_net:biuld", {}, ("zoo_net has no 'biuld'", "zoo_net:build")),
        ("zoo_net:number", {}, ("is no network", "int", "callable")),
        ("zoo_net:nothing", {}, ("is no network", "dict", "torch.nn.Module")),
        ("zoo_net:raises", {"depth": 5}, ("zoo_net:raises(depth=5) failed", "ValueError: depth 5 is not one")),
        ("zoo_net:build", {"classes": 5}, ("failed", "TypeError", "(num_classes=3)")),
    ],
)
def test_a_path_that_leads_to_no_network_is_one_sentence(
    here: Path, spec: str, kwargs: dict[str, Any], parts: tuple[str, ...]
) -> None:
    with pytest.raises(ModelError) as caught:
        network_from_import_path(spec, kwargs)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("import nosuchpackage.deep", ("needs the package 'nosuchpackage'", "pip install nosuchpackage")),
        ("def broken(:", ("importing faulty failed", "SyntaxError")),
        ("raise RuntimeError('no dataset here')", ("importing faulty failed", "RuntimeError: no dataset here")),
        ("import sys; sys.exit(3)", ("importing faulty failed", "SystemExit: 3")),
        ("from zoo_net import nosuch", ("importing faulty failed", "ImportError", "nosuch")),
    ],
)
def test_a_module_that_cannot_be_imported_says_why(here: Path, text: str, parts: tuple[str, ...]) -> None:
    (here / "faulty.py").write_text(text)
    with pytest.raises(ModelError) as caught:
        network_from_import_path("faulty:build", {})
    assert all(part in str(caught.value) for part in parts), str(caught.value)


class Answers(nn.Module):
    """Answers what a function makes of images (N, C, H, W) and features (N, 4)."""

    def __init__(self, answer: Callable[[Tensor, Tensor], Any], channels: int = 3) -> None:
        super().__init__()
        self.conv, self.answer = nn.Conv2d(channels, 4, 3), answer

    def forward(self, x: Tensor) -> Any:
        return self.answer(x, self.conv(x).mean((2, 3)))


@pytest.mark.parametrize(
    ("answer", "parts"),
    [
        (lambda x, f: (f, f), ("a tuple of 2: a tensor of (3, 4), a tensor of (3, 4)", "logits alone")),
        (lambda x, f: {"out": f, "aux": f}, ("a dict of out, aux",)),
        (lambda x, f: f.squeeze(), ("a tensor of (4,)", "`squeeze()`")),
        (lambda x, f: f[:, :, None, None], ("a tensor of (3, 4, 1, 1)", "AdaptiveAvgPool2d")),
        (lambda x, f: f[:, :1], ("a tensor of (3, 1)", "at least 2 classes")),
        (lambda x, f: f.mean(0), ("a tensor of (4,)",)),
        (lambda x, f: f.T @ f, ("a tensor of (4, 4)",)),
        (lambda x, f: "cat", ("a str",)),
        (lambda x, f: f + torch.rand(4), ("asked again", "eval()")),
        (lambda x, f: f - f.mean(0), ("other images are beside it", "track_running_stats")),
        (lambda x, f: x.flatten(1) @ torch.ones(9, 2), ("does not take images of 8x8x3", "RuntimeError", "`size=")),
        (lambda x, f: f * torch.nan, ("asked again",)),
        (lambda x, f: f.half() @ torch.ones(4, 2), ("another type than float32 inside", "without half()")),
        (lambda x: x, ("takes more than images", "wrap it")),
    ],
)
def test_what_does_not_answer_with_logits_is_refused_in_words(
    answer: Callable[[Tensor, Tensor], Any], parts: tuple[str, ...]
) -> None:
    with pytest.raises(ModelError) as caught:
        classes_of_network(Answers(answer).eval(), (8, 8, 3))
    assert all(part in str(caught.value) for part in parts), str(caught.value)


@dataclass
class Output:
    """As of transformers' networks."""

    logits: Tensor


@pytest.mark.parametrize(
    "answer",
    [
        lambda x, f: [f],
        lambda x, f: (f, None),
        lambda x, f: {"out": f},
        lambda x, f: {"loss": None, "logits": f, "hidden": x},
        lambda x, f: Output(f),
    ],
)
def test_the_logits_of_an_answer_in_parts_are_taken(answer: Callable[[Tensor, Tensor], Any]) -> None:
    net = Answers(answer).eval()
    assert classes_of_network(net, (8, 8, 3)) == 4
    classifier = classifier_of(net, Preprocessing(8, 8, 3, (0.5,) * 3, (0.25,) * 3))
    images = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8)
    model = onnx_from_torch(classifier, Preprocessing(8, 8, 3, (0.5,) * 3, (0.25,) * 3), {})
    with OrtRunner(model.SerializeToString()) as runner:
        assert np.allclose(runner.logits(images.numpy()), classifier(images).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.optim.swa_utils.AveragedModel])
def test_a_network_is_taken_out_of_what_stands_around_it(wrap: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "wrapped", wrap(Answers(lambda x, f: f)), raising=False)
    assert isinstance(network_from_import_path(f"{__name__}:wrapped", {})[0], Answers)


def test_wrong_channels_are_named_with_the_size_that_fits() -> None:
    with pytest.raises(ModelError, match="does not take images of 8x9x1") as caught:
        classes_of_network(Answers(lambda x, f: f), (8, 9, 1))
    assert "convolution of 3 channels: `size=(8, 9, 3), convert=True`" in str(caught.value.fix)
