"""One word says which images: a named set, a folder of class folders, or an .npz file."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from toolkit.contracts import Dataset
from toolkit.data import cifar10, fashion_mnist
from toolkit.data.describe import Finding, findings, require_two_classes, summary
from toolkit.data.download import Progress
from toolkit.data.fit import SQUASH, fitted, is_out_of_proportion, note_on_proportions, require_resize, require_shape
from toolkit.data.folder import dataset_from_folder
from toolkit.data.npz import dataset_from_npz
from toolkit.errors import DataError
from toolkit.storage.documents import Document
from toolkit.storage.hints import Maybe
from toolkit.workspace import nearest

NAMED: dict[str, Callable[[bool, Progress | None], Dataset]] = {
    fashion_mnist.NAME: fashion_mnist.load,
    cifar10.NAME: cifar10.load,
}


def dataset_from_spec(
    spec: str,
    *,
    seed: int = 0,
    shape: tuple[int, int, int] | None = None,
    convert: bool = False,
    download: bool = False,
    skip_bad: bool = False,
    on_progress: Progress | None = None,
    resize: str = SQUASH,
) -> Dataset:
    """The training and test images that `spec` names.

    Args:
        spec: `fashion-mnist`, `cifar10`, the path of a folder, or the path of an .npz file. A folder that has the
            name of a set is reached as `./cifar10`.
        seed: decides the 80/20 split where the source has no test part.
        shape: the (H, W, C) that a model takes; None keeps what the source has.
        convert: resize and convert images that do not fit `shape`, instead of refusing them.
        download: fetch a named set that is not installed.
        skip_bad: leave the damaged files of a folder out and name them in the set's `skipped`.
        on_progress: called with (done, total): files of a folder, bytes of each file downloaded.
        resize: how `convert` brings images of other proportions to `shape`: "squash", "crop" or "pad".

    Raises:
        DataError: the set is not installed, a file is damaged, images do not fit, or fewer than two classes occur.
        MissingPackage: image files are to be read or resized and Pillow is not installed.
    """
    if shape is not None:
        require_shape(shape)
    require_resize(resize)
    dataset = _load(spec, seed, shape, convert, download, skip_bad, on_progress, resize)
    if shape is not None:
        parts = dataset.train, dataset.test
        misfits = sum(len(part) for part in parts if is_out_of_proportion(part.images_nhwc[0], shape))
        train, test = (fitted(part, shape, convert, resize) for part in parts)
        notes = dataset.notes or note_on_proportions(misfits, resize, shape)
        dataset = replace(dataset, train=train, test=test, notes=notes)
    require_two_classes(dataset)
    return dataset


def _load(
    spec: str,
    seed: int,
    shape: tuple[int, int, int] | None,
    convert: bool,
    download: bool,
    skip_bad: bool,
    on_progress: Progress | None,
    resize: str,
) -> Dataset:
    if spec in NAMED:
        return NAMED[spec](download, on_progress)
    path = Path(spec).expanduser()
    if not spec or not path.exists():
        raise _unknown(spec, path)
    if not path.is_dir():
        return dataset_from_npz(path, seed=seed)
    if cifar10.is_folder(path):
        return cifar10.from_folder(path)
    if fashion_mnist.is_folder(path):
        return fashion_mnist.from_folder(path)
    return dataset_from_folder(
        path, seed=seed, shape=shape, convert=convert, skip_bad=skip_bad, on_progress=on_progress, resize=resize
    )


def _unknown(spec: str, path: Path) -> DataError:
    fix = "check the path"
    if meant := nearest(spec.lower().replace("_", "-"), NAMED):
        fix = f"`data={meant!r}`"
    elif beside := _beside(path):
        fix = f"did you mean {shlex.quote(str(beside))}?"
    is_path = path.suffix or "/" in spec
    return DataError(
        f"{spec!r} does not exist" if is_path else f"there is no data set, folder or file {spec!r}",
        found=f"nothing at {path.absolute()}" if spec else "an empty name",
        allowed=f"{', '.join(NAMED)}, a folder of class folders, or an .npz file",
        fix=fix,
    )


def _beside(path: Path) -> Path | None:
    """What lies where the path leads, under a name that is nearly its own."""
    try:
        names = {entry.name.lower(): entry for entry in sorted(path.parent.iterdir())}
    except OSError:
        return None
    near = nearest(path.name.lower(), names, cutoff=0.7)
    return names[near] if near else None


@dataclass(frozen=True)
class DataReport(Document):
    """What toolkit data prints.

    Attributes:
        ok: the set can be used; findings are advice, not faults.
        sets: named sets by name: where they are, or what installs them.
        data: what is in the set that was asked for: counts, hashes, duplicates, mean and std.
        findings: what deserves a look.
    """

    SCHEMA = "toolkit/data/1"
    ok: Literal[True]
    sets: dict[str, str]
    data: Maybe[dict[str, Any]] = None
    findings: tuple[Finding, ...] = ()


def inspect_data(
    spec: str | None = None,
    *,
    download: bool = False,
    convert: bool = False,
    resize: str | None = None,
    size: tuple[int, int, int] | None = None,
    skip_bad: bool = False,
    on_progress: Progress | None = None,
) -> DataReport:
    """Says which named sets are here; of one set, or of a folder or an .npz, what is in it and what looks wrong.

    Args:
        spec, download, convert, skip_bad, on_progress: as for `dataset_from_spec`; no spec looks at no set.
        size: (H, W, C) that images are brought to with `convert`.

    Raises:
        DataError: the set is not there or cannot be read.
    """
    if spec is None:
        return DataReport(True, {name: _where(name) for name in NAMED})
    dataset = dataset_from_spec(
        spec, shape=size or ((32, 32, 3) if convert and spec not in NAMED else None),
        convert=convert or resize is not None, resize=resize or SQUASH, download=download, skip_bad=skip_bad,
        on_progress=on_progress,
    )  # fmt: skip
    facts = summary(dataset)
    return DataReport(True, {}, facts, tuple(findings(facts)))


def _where(name: str) -> str:
    """'60,000 + 10,000 images' or what is missing and how it comes."""
    try:
        dataset = NAMED[name](False, None)
    except DataError as error:
        return f"{error.what}: fetch the set {name}"
    return f"{len(dataset.train):,} + {len(dataset.test):,} images"
