"""Claims about one word for images: what `data` accepts, train, export and verify accept; what one refuses, all do."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import structured_set
from toolkit.bundle.reading import bundle_from_folder
from toolkit.data.model_images import images_of_model
from toolkit.data.source import inspect_data
from toolkit.errors import ToolkitError
from toolkit.models.card import card_from_folder
from toolkit.training.options import TrainOptions
from toolkit.training.train import train
from toolkit.verification.images import evaluation_images

CLASSES = ("lower", "north", "south", "upper")  # those of the tiny model, as folders sort them
SHAPE = (32, 32, 1)
Draw = Callable[[Path], Path]


class Enough(Exception):
    """A training run has taken its first step: the images were accepted."""


def pictures(folder: Path, seed: int = 0, size: int = 32, each: int = 6, suffix: str = "png") -> Path:
    """A folder a class."""
    images, labels = structured_set(4 * each, 4, seed, size)
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        file = folder / CLASSES[label] / f"{index}.{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(file)
    return folder


def parts(folder: Path, test: str = "test") -> Path:
    """train/ and a part that judges."""
    pictures(folder / "train", 0)
    pictures(folder / test, 1)
    return folder


def flat(folder: Path) -> Path:
    """Images and no classes."""
    for index, file in enumerate(sorted(pictures(folder / "as").rglob("*.png"))):
        file.rename(folder / f"{index}.png")
    shutil.rmtree(folder / "as")
    return folder


def one_class(folder: Path) -> Path:
    """The others are gone."""
    pictures(folder)
    for name in CLASSES[1:]:
        shutil.rmtree(folder / name)
    return folder


def beside(folder: Path, name: str, content: bytes = b"") -> Path:
    """Whole class folders, and another file among them."""
    file = pictures(folder) / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return folder


def two_sizes(folder: Path) -> Path:
    """One image is larger."""
    Image.new("L", (40, 40), 90).save(pictures(folder) / "north" / "large.png")
    return folder


def empty_class(folder: Path) -> Path:
    """A folder that waits for images."""
    (pictures(folder) / "west").mkdir()
    return folder


def npz(folder: Path, classes: int = 4, **changes: Any) -> Path:
    """Arrays."""
    folder.mkdir()
    images, labels = structured_set(24, classes, 0)
    arrays = {"images": images, "labels": labels, "classes": np.array(CLASSES)} | changes
    np.savez(folder / "set.npz", **arrays)
    return folder / "set.npz"


def linked(folder: Path) -> Path:
    """A class that leads back up, and one that lies elsewhere."""
    shutil.move(pictures(folder) / "north", folder.parent / "far")
    (folder / "north").symlink_to(folder.parent / "far")
    (folder / "again").symlink_to(folder)
    return folder


def deeper(folder: Path) -> Path:
    """A class whose images lie in a folder of their own."""
    files = sorted((pictures(folder) / "north").iterdir())
    (folder / "north" / "2026").mkdir()
    for file in files:
        file.rename(file.parent / "2026" / file.name)
    return folder


ACCEPTED: dict[str, Draw] = {
    "class folders": pictures,
    "upper-case suffixes": lambda folder: pictures(folder, suffix="PNG"),
    "jpeg": lambda folder: pictures(folder, suffix="JPG"),
    "train and test": parts,
    "train and val": lambda folder: parts(folder, "val"),
    "hidden files": lambda folder: beside(folder, "north/.DS_Store", b"x"),
    "a hidden folder": lambda folder: beside(folder, ".cache/x.png", b"x"),
    "a text among the images": lambda folder: beside(folder, "north/Thumbs.db", b"x"),
    "an image beside the classes": lambda folder: beside(folder, "overview.png", b"no image"),
    "folders in a class": deeper,
    "links": linked,
    "spaces and letters of others": lambda folder: pictures(folder / "mes images é ü [1]"),
    "npz": npz,
    "npz without a dimension for gray": lambda folder: npz(folder, images=structured_set(24, 4, 0)[0][..., 0]),
}
REFUSED: dict[str, tuple[Draw, str]] = {
    "nothing there": (lambda folder: folder, "does not exist"),
    "a flat folder": (flat, "has no class folders"),
    "one class": (one_class, "has only one class"),
    "one class in an npz": (lambda folder: npz(folder, 1), "images of one class only"),
    "an empty class": (empty_class, "has no images"),
    "a broken image": (lambda folder: beside(folder, "north/x.png", b"no image"), "1 of 25 image files cannot be read"),
    "an empty image": (lambda folder: beside(folder, "north/x.png"), "1 of 25 image files cannot be read"),
    "a kind that is not read": (lambda folder: beside(folder, "north/x.gif", b"GIF89a"), "a kind that is not read"),
    "two sizes": (two_sizes, "has another size than the model takes"),
    "train alone": (lambda folder: pictures(folder / "train").parent, "has train/ and no test part"),
    "an image a class": (lambda folder: pictures(folder, each=1), "too few images to split"),
    "no npz": (lambda folder: beside(folder, "set.npz", b"PNG") / "set.npz", "is not an .npz file"),
    "floats": (lambda folder: npz(folder, images=np.zeros((24, 32, 32, 1), np.float32)), "has the wrong type"),
    "fewer labels": (lambda folder: npz(folder, labels=np.arange(23) % 4), "differ in length"),
}


@pytest.fixture
def answers(tiny_workspace: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., dict[str, str]]:
    """What each command says to a set, "" where it takes it."""
    monkeypatch.setenv("TOOLKIT_WORKSPACE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    card = card_from_folder(tiny_workspace / "models/tiny")
    bundle = bundle_from_folder(tiny_workspace / "bundles/tiny")

    def learn(data: str, **reading: Any) -> None:
        def stop(progress: Any) -> None:
            raise Enough

        small: dict[str, Any] = {"arch": "resnet8", "widths": (2, 2), "blocks": (1, 1), "strides": (2, 2), "batch": 2}
        options = TrainOptions(**small, images=4, size=SHAPE, replace=True, **reading)
        with pytest.raises(Enough):
            train("learned", data, options, on_progress=stop)

    def ask(data: Path, **reading: Any) -> dict[str, str]:
        ways: dict[str, Callable[[], object]] = {
            "data": lambda: inspect_data(str(data), size=SHAPE, **reading),
            "train": lambda: learn(str(data), **reading),
            "export": lambda: images_of_model(
                card.name, card.labels, card.preprocessing, data=str(data), count=4, **reading
            ),
            "verify": lambda: evaluation_images(bundle, str(data), None, **reading),
        }
        return {name: _said(way) for name, way in ways.items()}

    return ask


def _said(way: Callable[[], object]) -> str:
    try:
        way()
    except ToolkitError as error:
        return error.what
    return ""


@pytest.mark.parametrize("kind", ACCEPTED)
def test_what_one_command_accepts_all_do(kind: str, answers: Callable[..., dict[str, str]], tmp_path: Path) -> None:
    assert set(answers(ACCEPTED[kind](tmp_path / "set")).values()) == {""}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_one_command_refuses_all_refuse_in_the_same_words(
    kind: str, answers: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    draw, words = REFUSED[kind]
    (said,) = set(answers(draw(tmp_path / "set")).values())
    assert words in said


@pytest.mark.parametrize(
    ("kind", "reading"),
    [
        ("two sizes", {"convert": True}),
        ("a broken image", {"skip_bad": True}),
        ("two sizes", {"convert": True, "resize": "crop"}),
    ],
)
def test_what_makes_one_command_accept_it_makes_all(
    kind: str, reading: dict[str, Any], answers: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    assert set(answers(REFUSED[kind][0](tmp_path / "set"), **reading).values()) == {""}
