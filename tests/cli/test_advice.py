"""Claims about advice: what an error says to type is typed, in the state that printed it, and mends that error."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.advice import lines_of_advice, parsed
from tests.cli.conftest import Toolkit

ERRORS = [
    "calibrate nosuch",
    "calibrate bundles/tiny",
    "calibrate tiny --data large -o ranges --images 8",
    "verify bundles/tny --backend ort --precision fp32",
    "verify tinny --card",
    "verify bundles/tiny --data large --backend ort --precision fp32",
    "predict tiny large/north/0.png",
    "predict bundles/tiny large",
    "data damaged",
    "data larg",
    "predict tinny large/north/0.png",
    "bundle unpack tar",
    "bundle check bundles/tiny --key k.pub",
    "report bundles/tiny --verify nothing.json",
]
PLACES = {"FOLDER": "out", "TAR": "my.tar", "KEY.pem": "k.pem"}  # what words in capitals stand for


@pytest.fixture
def workshop(toolkit: Toolkit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_workspace: Path) -> Toolkit:
    """The tiny workspace's files beside folders of images that do not fit, where a test may write."""
    for name in ("models", "bundles", "calibration", "set.npz"):
        (tmp_path / name).symlink_to(tiny_workspace / name)
    draws = np.random.default_rng(0)
    for index in range(24):
        for folder, side in (("large", 50), ("damaged", 32)):
            file = tmp_path / folder / ["north", "south", "upper", "lower"][index % 4] / f"{index}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draws.integers(0, 255, (side, side), np.uint8)).save(file)
    (tmp_path / "damaged/north/x.png").write_bytes(b"no image")
    (tmp_path / "nothing.json").write_text("{")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOOLKIT_WORKSPACE", str(tmp_path))
    assert toolkit("bundle", "pack", "bundles/tiny", "-o", "my.tar").code == 0
    (tmp_path / "tar").write_bytes((tmp_path / "my.tar").read_bytes())
    assert toolkit("bundle", "sign", "my.tar", "--private-key", "k.pem", "--new-key").code == 0
    return toolkit


def follow_ups(typed: list[str], advice: str) -> list[list[str]]:
    """What is typed next by somebody who takes advice by its word."""
    for word, place in PLACES.items():
        advice = advice.replace(word, place)
    if meant := re.search(r"did you mean (\S+)\?", advice):
        wrong = next(place for place, word in enumerate(typed) if place and not word.startswith("--"))
        return [[*typed[:wrong], meant[1], *typed[wrong + 1 :]]]
    before, *commands = re.split(r"\btoolkit (?=[a-z]+\b)", advice)
    found = [words for command in commands if (words := parsed(command.partition(" > ")[0]))]
    options = re.findall(r"(?<![\w-])(--?[a-z][a-z-]*(?: (?:[a-z0-9/.]+)(?=$|[,;]))?)", before)
    return found + [[*typed, *shlex.split(option)] for option in options if not re.search(r"\bleave\b", before)]


@pytest.mark.slow
@pytest.mark.parametrize("line", ERRORS)
def test_advice_that_is_taken_mends_what_was_wrong(workshop: Toolkit, line: str) -> None:
    answer = workshop(*line.split())
    assert answer.code == 1
    nexts = [words for advice in lines_of_advice(answer.document, "") for words in follow_ups(line.split(), advice)]
    assert nexts, answer.text
    for words in nexts:
        again = workshop(*words)
        assert again.code != 2, (words, again.text)
        assert again.code == 0 or again.document.get("what") != answer.document["what"], (words, again.text)
