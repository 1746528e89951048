"""Claims about model folders: the same bits back, every kind of damage one error, no half-written model."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from toolkit.errors import ModelError, ToolkitError
from toolkit.models.card import CARD, WEIGHTS, card_from_folder
from toolkit.models.checkpoint import folder_of_model, load_model, save_model, tensors_from_file
from toolkit.models.resnet import Classifier


def _changed_card(folder: Path, **changes: Any) -> None:
    document = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps(document | changes))


def _with_weights(folder: Path, tensors: dict[str, Tensor]) -> Path:
    """Other weights, with a card that vouches for them."""
    save_file(tensors, folder / WEIGHTS)
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    _changed_card(folder, weights={"file": WEIGHTS, "sha256": digest})
    return folder


def _content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_model_comes_back_bit_for_bit_and_in_evaluation_mode(
    tiny_model_folder: Path, tiny_classifier: Classifier
) -> None:
    loaded = load_model(tiny_model_folder)
    expected = tiny_classifier.state_dict()
    assert loaded.classifier.state_dict().keys() == expected.keys()
    for name, value in loaded.classifier.state_dict().items():
        assert value.dtype == expected[name].dtype
        assert torch.equal(value, expected[name]), name
    assert not loaded.classifier.training
    assert (loaded.card.name, loaded.folder) == ("tiny", tiny_model_folder)


def test_weights_in_channels_last_come_back_the_same(tiny_model_folder: Path, tiny_classifier: Classifier) -> None:
    before = tiny_classifier.net.state_dict()
    moved = {k: v.to(memory_format=torch.channels_last) if v.ndim == 4 else v for k, v in before.items()}
    card = load_model(tiny_model_folder).card
    assert save_model(tiny_model_folder, card, moved) == card


def test_saving_writes_a_card_that_vouches_for_its_weights(tiny_model_folder: Path) -> None:
    digest = hashlib.sha256((tiny_model_folder / WEIGHTS).read_bytes()).hexdigest()
    assert card_from_folder(tiny_model_folder).weights_sha256 == digest
    assert sorted(_content(tiny_model_folder)) == [CARD, WEIGHTS]
    assert list(tiny_model_folder.parent.iterdir()) == [tiny_model_folder]


@pytest.mark.parametrize("part", [0.0, 0.001, 0.3, 0.99])
def test_truncated_weights_are_no_whole_file(tiny_model_folder: Path, part: float) -> None:
    path = tiny_model_folder / WEIGHTS
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(ModelError, match="is not a whole safetensors file") as caught:
        load_model(tiny_model_folder)
    assert str(path) in caught.value.what


def test_one_changed_bit_of_a_weight_is_noticed(tiny_model_folder: Path) -> None:
    path = tiny_model_folder / WEIGHTS
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"is not the file that card\.json describes") as caught:
        load_model(tiny_model_folder)
    assert hashlib.sha256(data).hexdigest() in str(caught.value.found)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_numbers_are_refused_by_name(tiny_model_folder: Path, value: float) -> None:
    tensors = load_file(tiny_model_folder / WEIGHTS)
    tensors["fc.weight"][1, 2] = value
    with pytest.raises(ModelError, match=r"tensor 'fc\.weight' holds NaN or infinity") as caught:
        load_model(_with_weights(tiny_model_folder, tensors))
    assert caught.value.found == f"1 of {tensors['fc.weight'].numel()} values"


def test_weights_of_another_architecture_are_refused(tiny_model_folder: Path) -> None:
    tensors = load_file(tiny_model_folder / WEIGHTS)
    tensors["stages.7.0.conv1.weight"] = tensors.pop("fc.bias")
    with pytest.raises(ModelError, match="belongs to another architecture") as caught:
        load_model(_with_weights(tiny_model_folder, tensors))
    assert "1 tensors missing (fc.bias), 1 unknown (stages.7.0.conv1.weight)" in str(caught.value.found)


def test_weights_of_another_width_are_refused(tiny_model_folder: Path) -> None:
    tensors = load_file(tiny_model_folder / WEIGHTS)
    tensors["fc.bias"] = torch.zeros(4)
    with pytest.raises(ModelError, match=r"tensor 'fc\.bias' has another shape") as caught:
        load_model(_with_weights(tiny_model_folder, tensors))
    assert (caught.value.found, caught.value.allowed) == ("(4,)", "(3,)")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"arch": {"family": "vgg"}}, "architecture is unknown"),
        ({"arch": {"family": "resnet", "depth": 3}}, "architecture cannot be read"),
        ({"arch": {"family": "resnet", "widths": [8.5, 16, 16]}}, "whole numbers"),
        ({"labels": ["a", "b"]}, "labels and classes differ"),
        ({"format": 99}, "format that this version cannot read"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(tiny_model_folder: Path, changes: dict[str, Any], words: str) -> None:
    _changed_card(tiny_model_folder, **changes)
    with pytest.raises(ModelError, match=words):
        load_model(tiny_model_folder)


def test_preprocessing_of_another_number_of_channels_is_refused(tiny_model_folder: Path) -> None:
    grayscale = {"height": 16, "width": 16, "channels": 1, "mean": [0.5], "std": [0.5]}
    _changed_card(tiny_model_folder, preprocessing=grayscale)
    with pytest.raises(ModelError, match="differ in channels") as caught:
        load_model(tiny_model_folder)
    assert caught.value.found == "1 and 3"


@pytest.mark.parametrize("missing", [CARD, WEIGHTS])
def test_a_folder_that_lacks_a_file_names_it(tiny_model_folder: Path, missing: str) -> None:
    (tiny_model_folder / missing).unlink()
    with pytest.raises(ModelError) as caught:
        load_model(tiny_model_folder)
    assert caught.value.found == f"no {missing}"


def test_a_failed_save_leaves_the_old_model(tiny_model_folder: Path, tiny_classifier: Classifier) -> None:
    before, card = _content(tiny_model_folder), load_model(tiny_model_folder).card
    spoiled = replace(card, accuracy={"top1_percent": float("nan")})  # JSON has no NaN: fails behind the weights
    with pytest.raises(ValueError, match="JSON compliant"):
        save_model(tiny_model_folder, spoiled, tiny_classifier.net.state_dict())
    assert _content(tiny_model_folder) == before
    assert list(tiny_model_folder.parent.iterdir()) == [tiny_model_folder]


def test_a_model_is_not_written_over_somebody_elses_folder(tiny_model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_text("precious")
    with pytest.raises(ToolkitError, match=r"holds no card\.json"):
        save_model(tmp_path / "photos", load_model(tiny_model_folder).card, {})
    assert _content(tmp_path / "photos") == {"holiday.jpg": b"precious"}


def test_a_model_is_found_by_name_and_by_path(workspace: Path, tiny_model_folder: Path) -> None:
    assert folder_of_model("tiny") == workspace / "models" / "tiny"
    assert folder_of_model(str(tiny_model_folder)) == tiny_model_folder


def test_an_unknown_model_lists_those_there_are(workspace: Path, tiny_model_folder: Path) -> None:
    with pytest.raises(ModelError, match="there is no model 'tinny'") as caught:
        folder_of_model("tinny")
    assert "tiny" in str(caught.value.allowed)
    assert "did you mean tiny?" in str(caught.value.fix)


def test_a_missing_tensor_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ToolkitError, match=r"cannot read .*none\.safetensors"):
        tensors_from_file(tmp_path / "none.safetensors")
