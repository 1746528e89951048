"""Somebody's own PyTorch goes the same walk; what does not fit ends in one error and leaves nothing behind."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.cli.conftest import Toolkit, structured_set
from tests.cli.test_bad_input import leftovers, refused
from tests.manifests import rehashed
from toolkit.bundle import bundle_from_folder
from toolkit.models.import_path import network_from_import_path
from toolkit.storage.files import sha256_of_file

OWN = """
from torch import nn

class Net(nn.Module):
    '''Idioms that the toolkit's own nets lack: a mean, a view, a gate, a norm in front.'''

    def __init__(self, num_classes=4, channels=1, width=8):
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.body = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, groups=2), nn.Hardswish())
        self.gate = nn.Sequential(nn.Conv2d(width, width, 1), nn.Sigmoid())
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.body(nn.functional.relu(self.norm(x)))
        x = x * self.gate(x.mean((2, 3), keepdim=True))
        return self.fc(x.mean((2, 3)).view(x.size(0), -1))

def build(**kwargs):
    return Net(**kwargs)
"""


@pytest.fixture(autouse=True)
def fresh_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test finds another's modules."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_net", raising=False)


@pytest.fixture
def own(tmp_path: Path, toolkit: Toolkit, monkeypatch: pytest.MonkeyPatch, tiny_workspace: Path) -> Path:
    """A folder with `own_net.py`, `w.pth` as a DataParallel run leaves it, and `set.npz`; the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOOLKIT_WORKSPACE", str(tmp_path))
    (tmp_path / "own_net.py").write_text(OWN)
    shutil.copy(tiny_workspace / "set.npz", tmp_path / "set.npz")
    torch.manual_seed(1)
    net, _ = network_from_import_path("own_net:Net", {})
    save(tmp_path / "w.pth", calibrated(net, structured_set(64, 4, seed=3)[0]))
    return tmp_path


def calibrated(net: torch.nn.Module, images: Any) -> torch.nn.Module:
    """Random weights whose norms have seen images."""
    x = torch.from_numpy(images.transpose(0, 3, 1, 2)).float() / 255
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the plain mean of all batches
    with torch.no_grad():
        net.train()((x - x.mean()) / x.std())
    return net.eval()


def save(path: Path, net: torch.nn.Module) -> None:
    torch.save({"state_dict": {f"module.{name}": value for name, value in net.state_dict().items()}, "epoch": 1}, path)


def export(toolkit: Toolkit, *words: str | Path) -> Any:
    """Exports `own_net:Net`, whose weights are random, so that it takes --force; later words win."""
    given = ["--checkpoint", "w.pth", "--data", "set.npz", "--no-engines", "--force", "-o", "b"]
    return toolkit("export", "own_net:Net", *given, *words)


@pytest.mark.slow
def test_a_class_of_ones_own_becomes_a_bundle_in_every_precision(toolkit: Toolkit, own: Path) -> None:
    answer = export(toolkit, "--int8", "--fp16")
    assert answer.code == 0, answer.text
    bundle = bundle_from_folder(own / "b")
    assert (bundle.model, bundle.labels) == ("own_net", ("north", "upper", "lower", "south"))
    assert set(bundle.precisions) == {"fp32", "fp16", "int8", "int8-fp16", "int8-cpu"}
    assert bundle.preprocessing.shape == (32, 32, 1)
    model = bundle.manifest["model"]
    assert model["arch"] == {
        "family": "python",
        "builder": "own_net:Net",
        "kwargs": {},
        "checkpoint": str(own / "w.pth"),
    }
    assert model["weights_sha256"] == sha256_of_file(own / "w.pth")
    assert answer.document["accuracy"]["int8"]["agreement_percent"] > 80


def test_what_was_measured_and_found_is_said_aloud_and_written_down(toolkit: Toolkit, own: Path) -> None:
    answer = export(toolkit)
    text = " ".join(answer.text.split())
    assert "measured on the 320 training images" in text
    assert "--mean and --std" in text
    assert "state_dict, without 'module.'" in text
    decided = bundle_from_folder(own / "b").manifest["model"]["decided"]
    assert decided == answer.document["decided"]
    assert decided["normalisation"].startswith("measured on the 320 training images of")


@pytest.mark.slow
def test_mean_std_labels_name_and_arguments_are_taken_as_given(toolkit: Toolkit, own: Path) -> None:
    net, _ = network_from_import_path("own_net:build", {"num_classes": 6, "channels": 3})
    save(own / "six.pth", calibrated(net, structured_set(64, 4, seed=3, channels=3)[0]))
    answer = export(
        toolkit, "--checkpoint", "six.pth", "--kwargs", '{"num_classes": 6, "channels": 3}', "--size", "24x20x3",
        "--convert", "--labels", "north,east,south,west,upper,lower", "--mean", "0.4,0.5,0.6", "--std", "0.2,0.3,0.25",
        "--name", "compass",
    )  # fmt: skip
    assert answer.code == 0, answer.text
    bundle = bundle_from_folder(own / "b")
    assert bundle.model == "compass"
    assert bundle.preprocessing.shape == (24, 20, 3)
    assert (bundle.preprocessing.mean, bundle.preprocessing.std) == ((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
    assert bundle.manifest["model"]["decided"]["normalisation"] == "given"
    golden, _ = bundle.golden()
    assert set(golden.labels.tolist()) == {0, 2, 4, 5}  # by name, not by place


@pytest.mark.slow
def test_labels_name_the_classes_of_a_set_that_has_only_numbers(toolkit: Toolkit, own: Path) -> None:
    images, labels = structured_set(80, 4, seed=5)
    np.savez(own / "plain.npz", images=images, labels=labels)
    assert export(toolkit, "--data", "plain.npz", "--labels", "a,b,c,d").code == 0
    assert bundle_from_folder(own / "b").labels == ("a", "b", "c", "d")
    assert toolkit("verify", "b", "--backend", "ort", "--data", "plain.npz").code == 0


@pytest.mark.slow
def test_verify_runs_ones_own_python_only_when_it_is_told_to(toolkit: Toolkit, own: Path) -> None:
    assert export(toolkit, "--int8").code == 0
    answer = toolkit("verify", "b")
    assert answer.code == 0
    assert "not in models/" in answer.document["unavailable"]["torch"]
    assert "own_net:Net" in answer.document["unavailable"]["torch"]
    refused(toolkit("verify", "b", "--backend", "torch"), "not in models/", "--run-builder")
    answer = toolkit("verify", "b", "--backend", "torch,ort", "--run-builder")
    assert answer.code == 0
    assert set(answer.document["passed"]) == {"torch fp32", "ort fp32", "ort int8", "ort int8-fp16", "ort int8-cpu"}
    assert [p["flips"] for p in answer.document["parity"]][:2] == [0, 0]
    answer = toolkit("bench", "b", "--run-builder", "--backend", "torch", "--batch", "1", "--seconds", "0.05")
    assert answer.code == 0


@pytest.mark.slow
def test_a_bundle_from_elsewhere_cannot_make_verify_run_code(toolkit: Toolkit, own: Path) -> None:
    assert export(toolkit).code == 0
    manifest = json.loads((own / "b/manifest.json").read_text())
    manifest["model"]["arch"] |= {"builder": "os:mkdir", "kwargs": {"path": str(own / "ran")}}
    rehashed(own / "b", model=manifest["model"])
    assert toolkit("verify", "b", "--gate", "0").code == 0
    assert not (own / "ran").exists()


@pytest.mark.slow
def test_a_checkpoint_that_changed_or_went_is_said_by_verify(toolkit: Toolkit, own: Path) -> None:
    assert export(toolkit).code == 0
    save(own / "w.pth", network_from_import_path("own_net:Net", {})[0])
    words = ("verify", "b", "--backend", "torch", "--run-builder")
    refused(toolkit(*words), "changed since the bundle was written")
    (own / "w.pth").unlink()
    refused(toolkit(*words), "w.pth", "does not exist")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--checkpoint", "nosuch.pth"], ["nosuch.pth", "does not exist"]),
        (["--data", "nosuch.npz"], ["does not exist"]),
        (["--kwargs", "{num_classes: 4}"], ["--kwargs", "JSON object"]),
        (["--kwargs", "[4]"], ["--kwargs", "JSON object"]),
        (["--kwargs", '{"num_classes": 9}'], ["another number of classes", '{"num_classes": 4}']),
        (["--kwargs", '{"depth": 9}'], ["own_net:Net(depth=9) failed", "TypeError", "num_classes=4"]),
        (["--kwargs", '{"width": 16}'], ["tensors of other shapes", "stem.weight (8, 1, 3, 3)"]),
        (["--labels", "a,b"], ["4 logits for 2 labels"]),
        (["--labels", "a,b,c,d"], ["other classes", "north"]),
        (["--labels", "a,a,b,c"], ["--labels"]),
        (["--mean", "0.5"], ["belong together", "--mean alone"]),
        (["--mean", "x", "--std", "1"], ["--mean cannot be read"]),
        (["--mean", "125", "--std", "60"], ["scaled to 0..1", "divide mean and std by 255"]),
        (["--mean", "0.5,0.5,0.5", "--std", "1,1,1"], ["one mean and one std a channel"]),
        (["--mean", "0.5", "--std", "0"], ["--std is what pixels are divided by"]),
        (["--size", "32"], ["--size cannot be read", "32x32x3"]),
        (["--size", "32x32x3"], ["grayscale", "--convert"]),
        (["--size", "32x32x3", "--convert"], ["does not take images of 32x32x3", "--size 32x32x1"]),
        (["--name", "../net"], ["usable as a folder"]),
        (["--int8", "--images", "5000"], ["cannot draw 5000"]),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_error(toolkit: Toolkit, own: Path, words: list[str], parts: list[str]) -> None:
    answer = export(toolkit, *words)
    refused(answer)
    assert all(part in " ".join(answer.text.split()) for part in parts), answer.text
    assert not (own / "b").exists()
    assert leftovers(own) == []


@pytest.mark.parametrize("missing", ["--data", "--checkpoint"])
def test_images_and_weights_are_needed(toolkit: Toolkit, own: Path, missing: str) -> None:
    given = {"--data": "set.npz", "--checkpoint": "w.pth"}
    del given[missing]
    words = [word for pair in given.items() for word in pair]
    refused(toolkit("export", "own_net:Net", *words), f"own_net:Net needs {missing}")


def test_options_of_ones_own_network_are_not_swallowed_by_a_model_folder(toolkit: Toolkit) -> None:
    refused(
        toolkit("export", "tiny", "--mean", "0.5", "--std", "0.2"), "--mean, --std belongs to a network of your own"
    )


@pytest.mark.slow
def test_damaged_files_are_left_out_aloud(toolkit: Toolkit, own: Path) -> None:
    from PIL import Image

    images, labels = structured_set(48, 4, seed=7)
    names = ("north", "upper", "lower", "south")
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        (own / "photos" / names[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(own / "photos" / names[label] / f"{index}.png")
    (own / "photos/upper/1.png").write_bytes(b"\x89PNG")
    words = ("--data", "photos", "--labels", "north,upper,lower,south")
    refused(export(toolkit, *words), "1 of 48 image files", "--skip-bad")
    answer = export(toolkit, *words, "--skip-bad")
    assert answer.code == 0, answer.text
    assert "1 damaged files left out" in answer.text
    assert len(answer.document["skipped"]) == 1
    assert "1.png" in answer.document["skipped"][0]
    refused(toolkit("verify", "b", "--backend", "ort", "--data", "photos"), "1 of 48 image files")
    assert toolkit("verify", "b", "--backend", "ort", "--data", "photos", "--skip-bad").code == 0


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("pytorchcv") is None, reason="pip install --no-deps pytorchcv")
def test_a_net_of_another_package_goes_the_whole_walk(toolkit: Toolkit, own: Path) -> None:
    train, test = structured_set(80, 10, seed=0, channels=3), structured_set(50, 10, seed=1, channels=3)
    np.savez(own / "ten.npz", train_images=train[0], train_labels=train[1], test_images=test[0], test_labels=test[1])
    spec = "pytorchcv.models.seresnet_cifar:seresnet20_cifar10"
    torch.manual_seed(1)
    built, _ = network_from_import_path(spec, {"pretrained": False})
    save(own / "w.pth", calibrated(built, train[0]))
    answer = toolkit(
        "export", spec, "--checkpoint", "w.pth", "--data", "ten.npz", "--kwargs", '{"pretrained": false}',
        "--int8", "--fp16", "--images", "32", "--force", "-o", "b",
    )  # fmt: skip
    assert answer.code == 0, answer.text
    assert bundle_from_folder(own / "b").model == "seresnet20_cifar10"
    assert answer.document["accuracy"]["fp16"]["agreement_percent"] >= 98
    assert answer.document["accuracy"]["int8"]["agreement_percent"] >= 80
    checked = toolkit("verify", "b", "--backend", "torch,ort", "--run-builder", "--gate", "0")
    assert checked.code == 0, checked.text
    assert set(checked.document["passed"]) >= {"torch fp32", "ort fp32", "ort fp16", "ort int8"}
    if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        pytest.skip("engines need the TensorRT-RTX wheels (extra rtx)")
    engines = {entry["precision"]: entry["census"] for entry in answer.document["engines"]}
    assert {"fp32", "fp16", "int8"} <= set(engines)
    for precision, reads in (("fp32", "Float"), ("fp16", "Half")):
        assert engines[precision]["convolutions_reading"][reads] == engines[precision]["convolutions"] > 0
    reading = engines["int8"]["convolutions_reading"]
    # The gates of a squeeze and excitation are products with a vector, and stay in floating point.
    assert reading["Int8"] >= 20
    assert os.path.getsize(own / "b/engines/model.int8.engine") > 1000
