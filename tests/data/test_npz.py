"""Arrays of an .npz: what fits is read back equal, and every fault is a sentence."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from toolkit.data import dataset_from_spec
from toolkit.data.npz import dataset_from_npz
from toolkit.errors import DataError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (20, 8, 8, 3), np.uint8)
LABELS = np.arange(20) % 2


def saved(tmp_path: Path, **arrays: Any) -> Path:
    path = tmp_path / "set.npz"
    np.savez(path, **arrays)
    return path


@given(
    images=hnp.arrays(np.uint8, st.tuples(st.integers(2, 9), st.integers(1, 5), st.integers(1, 5), st.just(3))),
    dtype=st.sampled_from([np.uint8, np.int16, np.int64, np.uint64]),
)
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_was_saved_is_read_back(tmp_path: Path, images: np.ndarray[Any, Any], dtype: Any) -> None:
    labels = (np.arange(len(images)) % 2).astype(dtype)
    path = saved(tmp_path, train_images=images, train_labels=labels, test_images=images[::-1], test_labels=labels[::-1])
    dataset = dataset_from_npz(path)
    np.testing.assert_array_equal(dataset.train.images_nhwc, images)
    np.testing.assert_array_equal(dataset.test.labels, labels[::-1])
    assert dataset.train.classes == ("0", "1")


def test_images_without_a_channel_axis_are_grayscale_and_split_by_the_seed(tmp_path: Path) -> None:
    path = saved(tmp_path, images=IMAGES[..., 0], labels=LABELS, classes=np.array(["cat", "dog"]))
    dataset = dataset_from_spec(str(path), seed=3)
    assert dataset.train.images_nhwc.shape == (16, 8, 8, 1)
    assert dataset.test.images_nhwc.shape == (4, 8, 8, 1)
    assert dataset.train.classes == ("cat", "dog")
    assert dataset.train.sha256 == dataset_from_spec(str(path), seed=3).train.sha256


FAULTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "no labels": ({"images": IMAGES}, "lacks arrays", "images"),
    "other names": ({"x_train": IMAGES, "y_train": LABELS}, "lacks arrays", "x_train, y_train"),
    "half of a pair": ({"train_images": IMAGES, "train_labels": LABELS}, "lacks arrays", "train_images"),
    "both forms": ({"images": IMAGES, "labels": LABELS, "train_images": IMAGES}, "mixes both forms", "train_images"),
    "floats of 0 to 1": ({"images": IMAGES / 255, "labels": LABELS}, "wrong type", r"images \* 255"),
    "floats of 0 to 255": ({"images": IMAGES.astype("f4"), "labels": LABELS}, "wrong type", r"\(images\)\.round"),
    "normalized": ({"images": IMAGES / 255 - 0.5, "labels": LABELS}, "wrong type", "undo the normalization"),
    "NaN": ({"images": IMAGES * np.nan, "labels": LABELS}, "wrong type", "float64"),
    "int64 pixels": ({"images": IMAGES.astype(int), "labels": LABELS}, "wrong type", "astype"),
    "NCHW": ({"images": IMAGES.transpose(0, 3, 1, 2), "labels": LABELS}, "wrong shape", "NCHW.*"),
    "four channels": ({"images": np.zeros((4, 2, 2, 4), "u1"), "labels": LABELS[:4]}, "wrong shape", "C 1 or 3"),
    "one image": ({"images": IMAGES[0, 0], "labels": LABELS}, "wrong shape", "N, H, W"),
    "no images": ({"images": IMAGES[:0], "labels": LABELS[:0]}, "wrong shape", r"\(0, 8, 8, 3\)"),
    "short labels": ({"images": IMAGES, "labels": LABELS[:-1]}, "differ in length", "20 images, 19 labels"),
    "one-hot": ({"images": IMAGES, "labels": np.eye(2, dtype=int)[LABELS]}, "wrong form", "argmax"),
    "a column": ({"images": IMAGES, "labels": LABELS[:, None]}, "wrong form", "reshape"),
    "float labels": ({"images": IMAGES, "labels": LABELS * 1.0}, "wrong form", "integers"),
    "labels from 1": ({"images": IMAGES, "labels": LABELS + 1}, "leave out numbers", "1 to 2"),
    "negative labels": ({"images": IMAGES, "labels": LABELS - 1}, "leave out numbers", "-1 to 0"),
    "label over": ({"images": IMAGES, "labels": LABELS * 2, "classes": ["a", "b"]}, "outside the classes", "0 to 1"),
    "huge label": ({"images": IMAGES, "labels": LABELS.astype("u8") * (2**64 - 1)}, "leave out", "allowed"),
    "classes twice": ({"images": IMAGES, "labels": LABELS, "classes": ["a", "a"]}, "`classes` has", "different"),
    "numbered classes": ({"images": IMAGES, "labels": LABELS, "classes": [0, 1]}, "`classes` has", "strings"),
    "objects": ({"images": IMAGES, "labels": LABELS, "classes": np.array(["a", None])}, "pickled objects", "dtype=str"),
    "one class": ({"images": IMAGES, "labels": LABELS * 0}, "one class only", "at least 2"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_in_words(tmp_path: Path, fault: str) -> None:
    arrays, what, detail = FAULTS[fault]
    with pytest.raises(DataError, match=rf"(?s){what}.*{detail}"):
        dataset_from_spec(str(saved(tmp_path, **arrays)))


def test_parts_of_different_shape_are_refused(tmp_path: Path) -> None:
    pairs = {"train_images": IMAGES, "train_labels": LABELS, "test_images": IMAGES[..., :1], "test_labels": LABELS}
    with pytest.raises(DataError, match="differ in shape"):
        dataset_from_npz(saved(tmp_path, **pairs))


@pytest.mark.parametrize("kept", [0, 1, 3, 100, 0.5, 0.99])
def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path: Path, kept: float) -> None:
    path = saved(tmp_path, images=IMAGES, labels=LABELS)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    with pytest.raises(DataError, match=r"damaged|is not an .npz file"):
        dataset_from_npz(path)


def test_a_flipped_byte_is_found_by_the_checksum(tmp_path: Path) -> None:
    path = saved(tmp_path, images=IMAGES, labels=LABELS)
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="is damaged"):
        dataset_from_npz(path)


def test_an_npy_file_and_a_zip_of_other_things_are_no_sets(tmp_path: Path) -> None:
    with (tmp_path / "one.npz").open("wb") as stream:
        np.save(stream, IMAGES)
    with pytest.raises(DataError, match=r"is not an .npz file"):
        dataset_from_npz(tmp_path / "one.npz")
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as archive:
        archive.writestr("images", "no array")
        archive.writestr("labels", "no array")
    with pytest.raises(DataError, match="`images` is not an array"):
        dataset_from_npz(tmp_path / "text.npz")


def test_another_shape_is_refused_or_converted(tmp_path: Path) -> None:
    path = str(saved(tmp_path, images=IMAGES[..., 0], labels=LABELS))
    with pytest.raises(DataError, match=r"(?s)another size.*8x8.*16x16.*`convert=True`"):
        dataset_from_spec(path, shape=(16, 16, 3))
    with pytest.raises(DataError, match=r"(?s)is grayscale and the model takes RGB.*`convert=True`"):
        dataset_from_spec(path, shape=(8, 8, 3))
    converted = dataset_from_spec(path, shape=(16, 16, 3), convert=True)
    assert converted.test.images_nhwc.shape == (4, 16, 16, 3)
