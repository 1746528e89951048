"""Which files of a folder are images of which class: a folder a class, under train/ and test/ where there are such."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from toolkit.data.image_files import OTHER_IMAGES, SUFFIXES
from toolkit.errors import DataError
from toolkit.storage.files import os_errors

TEST_NAMES = ("test", "val", "valid", "validation")  # the first that exists is used


@dataclass(frozen=True)
class ClassFolders:
    """The image files of one part, with the index of each one's class; sorted by class, then by path."""

    folder: Path
    classes: tuple[str, ...]
    files: tuple[Path, ...]
    labels: tuple[int, ...]


def parts_of(folder: Path) -> tuple[ClassFolders, ClassFolders | None]:
    """The training part and, where the folder has one, the test part.

    Raises:
        DataError: no class folders, a class without images, fewer than two classes, a training part without a
            test part, or a class that only the test part has.
    """
    train = folder / "train"
    if not (train.is_dir() and _visible_folders(train) and not _images_in(train, deep=False)):
        return class_folders(folder), None
    test = next((folder / name for name in TEST_NAMES if (folder / name).is_dir()), None)
    if test is None:
        raise DataError(
            f"{folder} has train/ and no test part",
            allowed="train/ with one of " + ", ".join(f"{name}/" for name in TEST_NAMES),
            fix=f"give {train} itself to split it 80/20",
        )
    return _with_same_classes(class_folders(train), class_folders(test))


def class_folders(folder: Path) -> ClassFolders:
    """The classes and images of a folder; class names are folder names, sorted by code point.

    Hidden files and folders are skipped, as are files that are no images and images beside the class folders.
    Folders inside a class folder belong to the class. Symbolic links are followed unless they lead back up.

    Raises:
        DataError: as for `parts_of`.
    """
    found = {child.name: _images_in(child) for child in _visible_folders(folder)}
    _require_classes(folder, found)
    classes = tuple(sorted(found))
    pairs = [(path, label) for label, name in enumerate(classes) for path in found[name]]
    files, labels = zip(*pairs, strict=True)
    return ClassFolders(folder, classes, files, labels)


def _require_classes(folder: Path, found: dict[str, list[Path]]) -> None:
    fix = "make a folder a class and put its images there: cat/1.png, dog/1.png"
    if not found:
        loose = len(_images_in(folder, deep=False))
        reason = f"{loose} images and no folders" if loose else "no folders"
        above = folder.parent
        if loose and len(_visible_folders(above)) > 1:
            fix = f"give {above}, if this is one class of it; or {fix}"
        raise DataError(f"{folder} has no class folders", found=reason, allowed="at least 2", fix=fix)
    empty = sorted(name for name, files in found.items() if not files)
    if empty:
        raise DataError(
            f"class folder {folder / empty[0]} has no images",
            found=f"{len(empty)} of {len(found)} class folders without images",
            allowed=f"at least 1 file a class, of {' '.join(sorted(SUFFIXES))}",
            fix="add images or remove the folder",
        )
    if len(found) < 2:
        raise DataError(f"{folder} has only one class", found=next(iter(found)), allowed="at least 2", fix=fix)


def _with_same_classes(train: ClassFolders, test: ClassFolders) -> tuple[ClassFolders, ClassFolders]:
    """Counts the test labels in the classes of the training part, which may have more of them."""
    unknown = sorted(set(test.classes) - set(train.classes))
    if unknown:
        raise DataError(
            f"{test.folder} has a class that {train.folder} lacks",
            found=", ".join(unknown),
            allowed=", ".join(train.classes),
            fix="give both parts the same class folders",
        )
    labels = tuple(train.classes.index(test.classes[label]) for label in test.labels)
    return train, ClassFolders(test.folder, train.classes, test.files, labels)


def _visible_folders(folder: Path) -> list[Path]:
    with os_errors(folder, "read"):
        return [
            child
            for child in sorted(folder.iterdir())
            if child.is_dir() and not child.name.startswith(".") and not _leads_up(child)
        ]


def _images_in(folder: Path, deep: bool = True) -> list[Path]:
    """Image files below a folder, sorted; each real folder is walked once."""
    found: list[Path] = []
    seen = {os.path.realpath(folder)}
    with os_errors(folder, "read"):
        for place, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
            fresh = [name for name in sorted(folders) if deep and _is_fresh(Path(place, name), seen)]
            folders[:] = fresh
            found += [Path(place, name) for name in names if not name.startswith(".") and _is_image(Path(place, name))]
    return sorted(found)


def _is_fresh(folder: Path, seen: set[str]) -> bool:
    real = os.path.realpath(folder)
    if folder.name.startswith(".") or real in seen or _leads_up(folder):
        return False
    seen.add(real)
    return True


def _leads_up(folder: Path) -> bool:
    """Whether a link leads to a folder that contains it: a loop, and other classes' images."""
    real, parent = os.path.realpath(folder), os.path.realpath(folder.parent)
    return real == parent or parent.startswith(real.rstrip(os.sep) + os.sep)


def _is_image(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix in OTHER_IMAGES:
        raise DataError(
            f"{path} is an image of a kind that is not read",
            found=suffix,
            allowed=" ".join(sorted(SUFFIXES)),
            fix="convert it to PNG, or remove it",
        )
    return suffix in SUFFIXES


def _raise(error: OSError) -> None:
    raise error
