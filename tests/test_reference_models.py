"""The reference models: small together, each card belongs to its weights and says what these reach."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.data import dataset_from_spec
from toolkit.data.model_images import CALIBRATION, EVALUATION, RECIPE, recipe_from_file
from toolkit.errors import DataError
from toolkit.models.card import Card, card_from_folder
from toolkit.models.checkpoint import load_model
from toolkit.workspace import DEFAULT_MODEL

ROOT = Path(__file__).parent.parent
FOLDERS = sorted((ROOT / "models").iterdir())
CARDS: list[Card] = [card_from_folder(folder) for folder in FOLDERS]
names = [folder.name for folder in FOLDERS]


def test_they_are_under_ten_megabytes_together() -> None:
    assert sum(path.stat().st_size for path in (ROOT / "models").rglob("*") if path.is_file()) < 10_000_000


@pytest.mark.parametrize("folder", FOLDERS, ids=names)
def test_the_weights_are_those_of_the_card(folder: Path) -> None:
    loaded = load_model(folder)  # refuses weights of another sha256 or shape
    assert loaded.card.name == folder.name


@pytest.mark.parametrize("card", CARDS, ids=names)
def test_a_card_says_how_its_number_came_about(card: Card) -> None:
    assert card.accuracy is not None
    assert card.training is not None
    low, high = card.accuracy["interval95_percent"]
    assert low < card.accuracy["top1_percent"] < high
    assert card.accuracy["images"] == 10_000
    assert card.accuracy["top1_percent"] == pytest.approx(100 * card.accuracy["correct"] / 10_000)
    assert {"command", "data_sha256", "recipe", "device", "torch"} <= card.training.keys()
    assert "seed" in card.training["recipe"]
    assert card.training["seconds"] > 0


@pytest.mark.parametrize("name", names)
def test_only_images_that_may_be_passed_on_are_here(name: str) -> None:
    folder = ROOT / "calibration" / name
    images = [folder / part for part in (CALIBRATION, EVALUATION)]
    if recipe_from_file(folder / RECIPE).data == "cifar10":
        assert not any(path.exists() for path in images)
    else:
        assert all(path.exists() for path in images)
        assert (folder / "LICENSE").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("card", [card for card in CARDS if card.name != DEFAULT_MODEL], ids=lambda card: card.name)
def test_the_command_says_that_the_card_is_true(card: Card) -> None:
    assert card.accuracy is not None
    data = str(card.accuracy["data"]).partition("/")[0]
    try:
        dataset_from_spec(data)
    except DataError as error:
        pytest.skip(f"{error.what} ({error.fix})")
    words = [sys.executable, "-m", "toolkit", "verify", str(ROOT / "models" / card.name), "--data", data]
    done = subprocess.run(words, capture_output=True, text=True)
    document = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 0, done.stderr
    assert document["card_top1_percent"] == pytest.approx(card.accuracy["top1_percent"])
