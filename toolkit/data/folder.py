"""A folder of class folders as a set: every file read, damaged ones named and counted, one shape for all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toolkit.contracts import Dataset, LabeledImages, UInt8, sha256_of_each
from toolkit.data.class_folders import ClassFolders, parts_of
from toolkit.data.download import Progress
from toolkit.data.fit import SQUASH, fitted_image, gray_as_rgb, is_out_of_proportion, note_on_proportions
from toolkit.data.image_files import Unreadable, read_image
from toolkit.data.subsets import split
from toolkit.errors import DataError


@dataclass(frozen=True)
class _Image:
    """A file's pixels as a model takes them.

    Attributes:
        is_misfit: the file has other proportions.
        sha256: of the file's pixels, where it was resized.
    """

    pixels: UInt8
    is_misfit: bool = False
    sha256: bytes = b""


def dataset_from_folder(
    folder: Path,
    *,
    seed: int = 0,
    shape: tuple[int, int, int] | None = None,
    convert: bool = False,
    skip_bad: bool = False,
    on_progress: Progress | None = None,
    resize: str = SQUASH,
) -> Dataset:
    """Reads `folder/CLASS/*.png`, or `folder/train/CLASS/*` and `folder/test/CLASS/*` (or val, valid, validation).

    Args:
        seed: decides the 80/20 split of a folder without a test part: by the files' own pixels, so that it is the same
            for every size and way to resize.
        shape: the (H, W, C) wanted; None takes the files' common size, with 3 channels unless all are grayscale.
        convert: resize and convert what does not fit `shape`, and kinds of files that are refused otherwise.
        skip_bad: leave damaged files out and name them in `skipped`, instead of refusing the folder.
        on_progress: called with (files read, files).
        resize: how `convert` brings images of other proportions to `shape`, see `toolkit.data.fit`.

    Raises:
        DataError: the layout is wrong, files are damaged or of a refused kind, sizes do not fit, or all files of a
            class are damaged.
        MissingPackage: Pillow is not installed.
    """
    name = folder.resolve().name
    train, test = parts_of(folder)
    files = [*train.files, *(test.files if test else ())]
    read, damaged = _read(files, shape, convert, on_progress, resize)
    if damaged and not skip_bad:
        raise _damage(folder, damaged, len(files))
    pixels = _in_one_shape({path: image.pixels for path, image in read.items()})
    skipped = tuple(f"{path} ({error})" for path, error in damaged.items())
    misfits = sum(image.is_misfit for image in read.values())
    notes = () if shape is None else note_on_proportions(misfits, resize, shape)
    if test is None:
        digests = [read[path].sha256 or _sha256(pixels[path]) for path in train.files if path not in damaged]
        return Dataset(name, *split(_labeled(train, pixels, damaged), seed, digests), skipped, notes)
    return Dataset(name, _labeled(train, pixels, damaged), _labeled(test, pixels, damaged), skipped, notes)


def _labeled(part: ClassFolders, pixels: dict[Path, UInt8], damaged: dict[Path, Unreadable]) -> LabeledImages:
    """The part less its damaged files; the source says how many those are."""
    pairs = [(path, label) for path, label in zip(part.files, part.labels, strict=True) if path not in damaged]
    lost = sorted(set(part.labels) - {label for _, label in pairs})
    if lost:
        raise DataError(
            f"every image of class '{part.classes[lost[0]]}' in {part.folder} is damaged",
            found=f"{part.labels.count(lost[0])} files that cannot be read",
            allowed="at least 1 image a class",
            fix="restore these files, or remove the class folder",
        )
    left_out = len(part.files) - len(pairs)
    source = f"{part.folder} ({left_out} damaged files left out)" if left_out else str(part.folder)
    images = np.stack([pixels[path] for path, _ in pairs])
    return LabeledImages(images, np.array([label for _, label in pairs], np.int64), part.classes, source)


def _read(
    files: list[Path],
    shape: tuple[int, int, int] | None,
    convert: bool,
    on_progress: Progress | None,
    resize: str,
) -> tuple[dict[Path, _Image], dict[Path, Unreadable]]:
    """Reads all files, so that damaged ones are reported together; a file that does not fit stops it at once."""
    images: dict[Path, _Image] = {}
    damaged: dict[Path, Unreadable] = {}
    first: tuple[Path, UInt8] | None = None
    for done, path in enumerate(files, 1):
        try:
            image = _Image(read_image(path, convert))
            if shape is not None:
                image = _fitted(image.pixels, shape, convert, str(path), resize)
            first = first or (path, image.pixels)
            _require_same_size(first, (path, image.pixels))
            images[path] = image
        except Unreadable as error:
            damaged[path] = error
        if on_progress:
            on_progress(done, len(files))
    return images, damaged


def _fitted(pixels: UInt8, shape: tuple[int, int, int], convert: bool, name: str, resize: str) -> _Image:
    inside = fitted_image(pixels, shape, convert, name, resize)
    as_they_were = b"" if pixels.shape[:2] == shape[:2] else _sha256(pixels)
    return _Image(inside, is_out_of_proportion(pixels, shape), as_they_were)


def _sha256(pixels: UInt8) -> bytes:
    return sha256_of_each(pixels[None])[0]


def _require_same_size(first: tuple[Path, UInt8], other: tuple[Path, UInt8]) -> None:
    if first[1].shape[:2] != other[1].shape[:2]:
        raise DataError(
            "the images differ in size",
            found=f"{_size(first[1])} in {first[0]}, {_size(other[1])} in {other[0]} (height x width)",
            allowed="one size for all",
            fix="bring them to one size; `convert=True` does it where the model's size is known",
        )


def _size(pixels: UInt8) -> str:
    return f"{pixels.shape[0]}x{pixels.shape[1]}"


def _damage(folder: Path, damaged: dict[Path, Unreadable], total: int) -> DataError:
    shown = "; ".join(f"{path} ({error})" for path, error in list(damaged.items())[:3])
    more = f"; and {len(damaged) - 3} more" if len(damaged) > 3 else ""
    count = f"{len(damaged)} of {total} image files cannot be read"
    fix = "restore these files or remove them; `skip_bad=True` leaves them out"
    return DataError(f"{folder}: {count}", found=shown + more, fix=fix)


def _in_one_shape(images: dict[Path, UInt8]) -> dict[Path, UInt8]:
    """Gray among color becomes RGB, exactly; all gray stays gray."""
    if {pixels.shape[2] for pixels in images.values()} == {1, 3}:
        return {path: gray_as_rgb(pixels) for path, pixels in images.items()}
    return images
