"""Claims about cards: what is written is what is read, and whatever is wrong with a card is one error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from toolkit.contracts import Preprocessing
from toolkit.errors import ModelError
from toolkit.lazy import requirement
from toolkit.models.card import CARD, FORMAT, Card, card_from_folder

CARD_OF_A_NET = Card(
    name="net",
    arch={"family": "resnet", "widths": [8, 16]},
    labels=("Äpfel", "Birnen"),
    preprocessing=Preprocessing(16, 16, 1, (0.25,), (0.5,)),
    weights_sha256="ab" * 32,
    accuracy={"top1_percent": 93.25},
    training={"seed": 0},
)


def _document(**changes: Any) -> str:
    document = {**json.loads(CARD_OF_A_NET.text()), **changes}
    return json.dumps({key: value for key, value in document.items() if value != "left out"})


def test_a_card_that_was_written_is_read_back(tmp_path: Path) -> None:
    (tmp_path / CARD).write_text(CARD_OF_A_NET.text(), encoding="utf-8")
    assert card_from_folder(tmp_path) == CARD_OF_A_NET


def test_a_card_keeps_the_letters_of_its_labels() -> None:
    assert "Äpfel" in CARD_OF_A_NET.text()


@pytest.mark.parametrize("optional", ["accuracy", "training"])
def test_a_card_may_lack_what_nobody_measured(tmp_path: Path, optional: str) -> None:
    (tmp_path / CARD).write_text(_document(**{optional: "left out"}))
    assert getattr(card_from_folder(tmp_path), optional) is None


@pytest.mark.parametrize("entry", ["name", "arch", "labels", "preprocessing", "weights"])
def test_a_card_without_an_entry_names_it(tmp_path: Path, entry: str) -> None:
    (tmp_path / CARD).write_text(_document(**{entry: "left out"}))
    with pytest.raises(ModelError, match="lacks an entry") as caught:
        card_from_folder(tmp_path)
    assert entry in str(caught.value.found)


@pytest.mark.parametrize(
    "changes",
    [
        {"arch": 3},
        {"labels": None},
        {"weights": []},
        {"weights": {}},
        {"preprocessing": {"height": 3}},
        {"training": -1},
        {"training": []},
        {"accuracy": {}},
        {"accuracy": 90},
        {"accuracy": {"top1_percent": "x"}},
        {"accuracy": {"top1_percent": 101}},
    ],
)
def test_a_card_with_a_wrong_entry_is_a_model_error(tmp_path: Path, changes: dict[str, Any]) -> None:
    (tmp_path / CARD).write_text(_document(**changes))
    with pytest.raises(ModelError):
        card_from_folder(tmp_path)


@pytest.mark.parametrize("text", ["", "{", '{"format": 1', "\x00\x01", "[" * 100_000])
def test_a_card_that_is_not_json_is_a_model_error(tmp_path: Path, text: str) -> None:
    (tmp_path / CARD).write_text(text)
    with pytest.raises(ModelError, match="is not JSON"):
        card_from_folder(tmp_path)


def test_a_card_that_is_a_list_is_a_model_error(tmp_path: Path) -> None:
    (tmp_path / CARD).write_text("[]")
    with pytest.raises(ModelError, match="not a JSON object"):
        card_from_folder(tmp_path)


@pytest.mark.parametrize("newer", [FORMAT + 1, "2", None])
def test_a_card_of_a_newer_format_says_to_upgrade(tmp_path: Path, newer: Any) -> None:
    (tmp_path / CARD).write_text(_document(format=newer))
    with pytest.raises(ModelError, match="format that this version cannot read") as caught:
        card_from_folder(tmp_path)
    assert caught.value.fix == f"pip install -U {requirement()}"


def test_a_folder_without_a_card_is_no_model_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a model folder"):
        card_from_folder(tmp_path)
    with pytest.raises(ModelError, match="is not a model folder"):
        card_from_folder(tmp_path / "nowhere")
