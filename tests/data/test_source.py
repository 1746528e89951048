"""The one word that names a set, and the facts that are told of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.contracts import Dataset, LabeledImages
from toolkit.data import dataset_from_spec, summary
from toolkit.data.fit import RESIZES, fitted
from toolkit.errors import DataError


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("fashion_mnist", "`data='fashion-mnist'`"),
        ("CIFAR10", "`data='cifar10'`"),
        ("cifar-10", "`data='cifar10'`"),
        ("no/such/folder", "does not exist"),
        ("missing.npz", "does not exist"),
        ("", "an empty name"),
    ],
)
def test_an_unknown_name_is_refused_with_what_is_allowed(spec: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"(?s)fashion-mnist, cifar10, a folder.*{says}|{says}.*an .npz file"):
        dataset_from_spec(spec)


def test_a_file_that_is_no_npz_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match=r"is not an .npz file"):
        dataset_from_spec(str(tmp_path / "photo.png"))


@pytest.mark.parametrize("shape", [(32, 32, 4), (0, 32, 3), (32, 32)])
def test_a_shape_that_no_image_has_is_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(DataError, match="cannot have this shape"):
        dataset_from_spec("cifar10", shape=shape)


def test_a_summary_counts_classes_duplicates_and_leaks() -> None:
    pixels = np.arange(6, dtype=np.uint8).repeat(4).reshape(6, 2, 2, 1)
    classes = ("cat", "dog")
    train = LabeledImages(pixels[[0, 1, 1, 2]], np.array([0, 1, 1, 1]), classes, "train")
    test = LabeledImages(pixels[[1, 2, 5]], np.array([1, 0, 0]), classes, "test")
    facts = json.loads(json.dumps(summary(Dataset("six", train, test))))
    assert facts["train"]["per_class"] == {"cat": 1, "dog": 3}
    assert (facts["train"]["duplicates"], facts["test"]["duplicates"]) == (1, 0)
    assert facts["test_images_also_in_train"] == 2
    assert facts["images_with_two_labels"] == 1
    assert facts["mean"] == pytest.approx([1 / 255], abs=1e-6)
    assert (facts["train"]["sha256"], facts["test"]["sha256"]) == (train.sha256, test.sha256)


def test_importing_the_room_imports_nothing_heavy() -> None:
    heavy = ["PIL", "urllib.request", "http.client", "torch", "onnx", "onnxruntime"]
    code = f"import sys, toolkit.data; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert done.stdout.strip() == "[]"


def _marked(height: int, width: int) -> LabeledImages:
    """Two images of which only the middle square is bright, with one row and column of gray around all."""
    images = np.full((2, height, width, 3), 90, np.uint8)
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    images[:, top : top + side, left : left + side] = 200
    return LabeledImages(images, np.array([0, 1], np.int64), ("a", "b"), "marked")


@pytest.mark.parametrize(("height", "width"), [(32, 48), (48, 32), (64, 96), (20, 21)])
def test_a_crop_keeps_the_middle_a_pad_keeps_all_and_a_squash_mixes(height: int, width: int) -> None:
    shape, images = (16, 16, 3), _marked(height, width)
    crop, pad, squash = (fitted(images, shape, True, how).images_nhwc for how in RESIZES[1:] + RESIZES[:1])
    assert (crop == 200).mean() > 0.85
    assert 0 < (pad == 0).mean() < 0.4
    assert not (squash == 0).any()
    assert crop.shape == pad.shape == squash.shape == (2, *shape)


def test_images_in_proportion_are_resized_alike_in_every_way_and_nothing_is_said(tmp_path: Path) -> None:
    images = _marked(32, 32)
    first, *rest = (fitted(images, (16, 16, 3), True, how).images_nhwc for how in RESIZES)
    assert all(np.array_equal(first, other) for other in rest)
    _write_npz(tmp_path / "square.npz", images)
    assert dataset_from_spec(str(tmp_path / "square.npz"), shape=(16, 16, 3), convert=True).notes == ()


@pytest.mark.parametrize(("how", "words"), [("squash", "`resize='crop'`"), ("crop", "cropped"), ("pad", "black")])
def test_a_change_of_proportions_is_said(how: str, words: str, tmp_path: Path) -> None:
    _write_npz(tmp_path / "wide.npz", _marked(32, 48))
    dataset = dataset_from_spec(str(tmp_path / "wide.npz"), shape=(16, 16, 3), convert=True, resize=how)
    (note,) = dataset.notes
    assert words in note
    assert "4 images have other proportions than 16x16" in note


def test_an_unknown_way_to_resize_is_refused(tmp_path: Path) -> None:
    _write_npz(tmp_path / "wide.npz", _marked(32, 48))
    with pytest.raises(DataError, match="squash, crop, pad"):
        dataset_from_spec(str(tmp_path / "wide.npz"), shape=(16, 16, 3), convert=True, resize="stretch")


def _write_npz(path: Path, images: LabeledImages) -> None:
    part: dict[str, Any] = {"images": images.images_nhwc, "labels": images.labels}
    np.savez(path, **{f"{kind}_{name}": value for kind in ("train", "test") for name, value in part.items()})
