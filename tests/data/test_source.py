"""The one word that names a set, and the facts that are told of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from toolkit.contracts import Dataset, LabeledImages
from toolkit.data import dataset_from_spec, summary
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
