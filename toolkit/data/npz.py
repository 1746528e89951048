"""An .npz file as a set: arrays checked one by one, each fault said in words, nothing ever unpickled."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.contracts import Dataset, Int64, LabeledImages, UInt8
from toolkit.data.subsets import split
from toolkit.errors import DataError
from toolkit.storage.files import open_regular, os_errors
from toolkit.storage.npz import most_of_images, require_arrays_fit

WHOLE = ("images", "labels")
PARTS = ("train_images", "train_labels", "test_images", "test_labels")
ALLOWED = f"{' and '.join(WHOLE)}; or {', '.join(PARTS)}; and `classes` if you like"


def dataset_from_npz(path: Path, *, seed: int = 0) -> Dataset:
    """Reads `images` and `labels`, split 80/20 by `seed`, or `train_` and `test_` pairs of them.

    Images are uint8 (N, H, W) or (N, H, W, C), labels integers (N,), `classes` strings (K,). Without `classes` the
    labels must use every number from 0 up.

    Raises:
        DataError: the file is damaged, an array is missing or has the wrong type, shape, length or range.
    """
    arrays = _arrays(path)
    pairs = [WHOLE] if "images" in arrays else [PARTS[:2], PARTS[2:]]
    read = [
        (_images(path, image_key, arrays[image_key]), _labels(path, label_key, arrays[label_key]))
        for image_key, label_key in pairs
    ]
    classes = _classes(path, arrays.get("classes"), np.concatenate([labels for _, labels in read]))
    parts = [_part(path, keys, *pair, classes) for keys, pair in zip(pairs, read, strict=True)]
    if len(parts) == 1:
        return Dataset(path.stem, *split(parts[0], seed))
    _require_same_shape(path, *parts)
    return Dataset(path.stem, parts[0], parts[1])


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    with os_errors(path, "read"), open_regular(path, DataError) as stream:
        magic = stream.read(4)
    if magic not in (b"PK\x03\x04", b"PK\x05\x06"):
        raise DataError(
            f"{path} is not an .npz file",
            found="an empty file" if not magic else f"the first bytes {magic!r}",
            allowed=f"a zip of arrays: {ALLOWED}",
            fix="write it with numpy.savez(path, images=..., labels=...)",
        )
    try:
        # our own stream, because numpy leaves the one it opens itself open when the zip is damaged
        with path.open("rb") as stream:
            require_arrays_fit(stream, most_of_images(os.fstat(stream.fileno()).st_size))
            archive = np.load(stream, allow_pickle=False)
            _require_keys(path, set(archive.files))
            return {key: _array(archive, key) for key in archive.files if key in (*WHOLE, *PARTS, "classes")}
    except DataError:
        raise
    except Exception as error:  # zipfile, zlib and numpy's header reader each have their own kinds
        raise _unreadable(path, error) from error


def _array(archive: Any, key: str) -> NDArray[Any]:
    # numpy hands out a member that is no array as its bare bytes
    if not isinstance(array := archive[key], np.ndarray):
        raise ValueError(f"`{key}` is not an array")
    return array


def _unreadable(path: Path, error: Exception) -> DataError:
    if "allow_pickle" in str(error):
        return DataError(
            f"{path} holds pickled objects, which are never loaded",
            found="an array of dtype object",
            allowed="plain numeric arrays, and strings for `classes`",
            fix="write `classes` as numpy.array([...], dtype=str) and images as one uint8 array",
        )
    return DataError(f"{path} is damaged", found=f"{type(error).__name__}: {error}", fix="copy or write the file again")


def _require_keys(path: Path, present: set[str]) -> None:
    mixed = present & set(WHOLE) and present & set(PARTS)
    if not mixed and (present >= set(WHOLE) or present >= set(PARTS)):
        return
    raise DataError(
        f"{path} mixes both forms of a set" if mixed else f"{path} lacks arrays",
        found=", ".join(sorted(present)) or "no arrays",
        allowed=ALLOWED,
        fix="write it with numpy.savez(path, images=..., labels=...)",
    )


def _images(path: Path, key: str, images: NDArray[Any]) -> UInt8:
    name = f"{path}: `{key}`"
    if images.dtype != np.uint8:
        raise DataError(
            f"{name} has the wrong type", found=images.dtype, allowed="uint8, 0 to 255", fix=_to_uint8(images)
        )
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or 0 in images.shape or images.shape[3] not in (1, 3):
        raise DataError(
            f"{name} has the wrong shape",
            found=f"{images.shape}{_layout_hint(images.shape)}",
            allowed="(N, H, W) or (N, H, W, C) with C 1 or 3",
            fix="images.transpose(0, 2, 3, 1)" if _layout_hint(images.shape) else "reshape the array",
        )
    return images


def _to_uint8(images: NDArray[Any]) -> str:
    if images.dtype.kind != "f" or images.size == 0 or not np.isfinite(images).all():
        return "images.astype('uint8'), if the values are 0 to 255"
    if images.min() < 0:
        return "undo the normalization: the toolkit puts it into the graph and wants raw pixels"
    return f"({'images * 255' if images.max() <= 1 else 'images'}).round().astype('uint8')"


def _layout_hint(shape: tuple[int, ...]) -> str:
    is_nchw = len(shape) == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3)
    return ", which looks like NCHW, channels first" if is_nchw else ""


def _labels(path: Path, key: str, labels: NDArray[Any]) -> Int64:
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise DataError(
            f"{path}: `{key}` has the wrong form",
            found=f"{labels.dtype} {labels.shape}",
            allowed="integers (N,)",
            fix="labels.argmax(axis=1)"
            if labels.ndim == 2 and labels.shape[1] > 1
            else "labels.reshape(-1).astype(int)",
        )
    return labels.astype(np.int64)


def _classes(path: Path, classes: NDArray[Any] | None, labels: Int64) -> tuple[str, ...]:
    if classes is None:
        return _numbered(path, labels)
    if classes.dtype.kind not in "US" or classes.ndim != 1 or len(set(classes.tolist())) != len(classes):
        raise DataError(
            f"{path}: `classes` has the wrong form",
            found=f"{classes.dtype} {classes.shape}",
            allowed="different strings (K,)",
            fix="numpy.array(['cat', 'dog'], dtype=str)",
        )
    return tuple(name.decode("utf-8", "replace") if isinstance(name, bytes) else name for name in classes.tolist())


def _numbered(path: Path, labels: Int64) -> tuple[str, ...]:
    present = np.unique(labels)
    if len(present) and not np.array_equal(present, np.arange(len(present))):
        raise DataError(
            f"{path}: the labels leave out numbers",
            found=f"{len(present)} classes, labels {present[0]} to {present[-1]}",
            allowed=f"0 to {len(present) - 1}, each used, where there are no `classes`",
            fix="number the classes from 0, or add their names as `classes`",
        )
    return tuple(map(str, present.tolist()))


def _part(path: Path, keys: tuple[str, ...], images: UInt8, labels: Int64, classes: tuple[str, ...]) -> LabeledImages:
    if len(images) != len(labels):
        raise DataError(
            f"{path}: `{keys[0]}` and `{keys[1]}` differ in length",
            found=f"{len(images)} images, {len(labels)} labels",
            allowed="a label for each image",
            fix="write both arrays from the same list",
        )
    return LabeledImages(images, labels, classes, f"{path}:{keys[0]}")


def _require_same_shape(path: Path, train: LabeledImages, test: LabeledImages) -> None:
    shapes = train.images_nhwc.shape[1:], test.images_nhwc.shape[1:]
    if shapes[0] != shapes[1]:
        raise DataError(
            f"{path}: training and test images differ in shape",
            found=f"{shapes[0]} and {shapes[1]}",
            allowed="one (H, W, C) for both",
            fix="write both parts in the same way",
        )
