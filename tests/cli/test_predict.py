"""Claims about `toolkit predict`: the labels are those of toolkit.load, for a bundle and for a model."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Toolkit, structured_set
from toolkit import load

LABELS = ["north", "upper", "lower", "south"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Eight images as PNG, 0.png to 7.png, two of each class."""
    images, _ = structured_set(8, 4, seed=5)
    for index, image in enumerate(images):
        Image.fromarray(image[..., 0]).save(tmp_path / f"{index}.png")
    return tmp_path


def test_files_are_answered_as_in_a_program(toolkit: Toolkit, photos: Path) -> None:
    answer = toolkit("predict", "bundles/tiny", photos, "--backend", "ort", "--precision", "fp32", "--top", "2")
    assert answer.code == 0, answer.text
    with load("bundles/tiny", backend="ort", precision="fp32") as net:
        wanted = net.classify(structured_set(8, 4, seed=5)[0])
    assert [image["label"] for image in answer.document["images"]] == wanted.labels
    assert [image["file"] for image in answer.document["images"]] == [str(photos / f"{i}.png") for i in range(8)]
    for image, row in zip(answer.document["images"], wanted.probabilities, strict=True):
        assert [guess["label"] for guess in image["top"]] == [LABELS[i] for i in np.argsort(-row)[:2]]
        assert image["probability"] == pytest.approx(float(row.max()), abs=1e-6)


def test_a_name_is_a_bundle_first_and_a_model_answers_alike(toolkit: Toolkit, photos: Path) -> None:
    as_bundle = toolkit("predict", "tiny", photos, "--backend", "ort", "--precision", "fp32")
    as_model = toolkit("predict", "models/tiny", photos)
    assert (as_bundle.document["kind"], as_model.document["kind"]) == ("bundle", "model")
    assert "bundle: tiny" in as_bundle.text
    assert [i["label"] for i in as_bundle.document["images"]] == [i["label"] for i in as_model.document["images"]]


def test_the_csv_has_a_line_a_file(toolkit: Toolkit, photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "answers.csv"
    answer = toolkit("predict", "tiny", photos, "--csv", file)
    rows = list(csv.DictReader(io.StringIO(file.read_text())))
    assert [row["label"] for row in rows] == [image["label"] for image in answer.document["images"]]
    assert set(rows[0]) == {"file", "label", "probability", "label 2", "probability 2", "label 3", "probability 3"}


def test_a_damaged_file_is_named_and_the_others_are_answered(toolkit: Toolkit, photos: Path) -> None:
    (photos / "x.png").write_text("no image")
    answer = toolkit("predict", "tiny", photos)
    assert answer.code == 1
    assert len(answer.document["images"]) == 8
    assert list(answer.document["unreadable"]) == [str(photos / "x.png")]
    quiet = toolkit("predict", "tiny", photos, "--quiet")
    assert quiet.code == 1
    assert "x.png cannot be read" in "".join(quiet.text.splitlines())
    assert "probability" not in quiet.text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("nobody", "."), "there is no bundle and no model 'nobody'"),
        (("tiny", "no.png"), "there is no such image"),
        (("models/tiny", "0.png", "--backend", "trt"), "it runs on torch in fp32 only"),
        (("tiny", "large.png"), "--convert"),
    ],
)
def test_what_cannot_be_is_one_error(toolkit: Toolkit, photos: Path, words: tuple[str, ...], says: str) -> None:
    Image.new("RGB", (64, 48)).save(photos / "large.png")
    source, file, *others = words
    answer = toolkit("predict", source, photos / file, *others)
    assert answer.code == 1
    assert says in answer.text
