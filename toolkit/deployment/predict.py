"""`toolkit predict`: what a bundle, or a model that was just trained, says of image files."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from toolkit.contracts import Float32, Preprocessing, UInt8
from toolkit.data.fit import fitted_image, require_resize
from toolkit.data.image_files import SUFFIXES, Unreadable, read_image
from toolkit.deployment.net import Net, load
from toolkit.errors import DataError, ToolkitError
from toolkit.lazy import needs
from toolkit.models.card import CARD, card_from_folder
from toolkit.runtime.pytorch import TorchRunner
from toolkit.runtime.runner import Runner
from toolkit.storage.documents import Document
from toolkit.storage.files import os_errors
from toolkit.storage.hints import Items, Probability
from toolkit.workspace import bundle_as_typed, bundle_names, find_in_room, names_in_room, nearest

BATCH = 64
Step = Callable[[str, int, int], None]
HEADER = "file,label,probability"  # how a table of answers begins


@dataclass(frozen=True)
class Guess(Document):
    """A label and how sure of it the network is."""

    label: str
    probability: Probability


@dataclass(frozen=True)
class Prediction(Document):
    """What one file shows.

    Attributes:
        top: the likeliest labels, likeliest first.
    """

    file: Path
    label: str
    probability: Probability
    top: Annotated[tuple[Guess, ...], Items(least=1)]


@dataclass(frozen=True)
class Predictions(Document):
    """What toolkit predict prints.

    Attributes:
        ok: every file was read.
        kind: "bundle" or "model": which of the two the name was. model: its name.
        runner: backend, version and file that answered.
        images: a file each, in the order given; those of a folder sorted by path.
        unreadable: files that could not be read, each with the reason.
    """

    SCHEMA = "toolkit/predict/1"
    ok: bool
    kind: str
    source: Path
    model: str
    runner: str
    images: tuple[Prediction, ...]
    unreadable: dict[str, str]

    def as_csv(self) -> str:
        """A line a file: file, label, probability, then the other guesses; RFC 4180."""
        text = io.StringIO()
        lines = csv.writer(text)
        most = max((len(image.top) for image in self.images), default=1)
        others = [name for i in range(2, most + 1) for name in (f"label {i}", f"probability {i}")]
        lines.writerow([*HEADER.split(","), *others])
        for image in self.images:
            guesses = [part for guess in image.top for part in (guess.label, f"{guess.probability:.6f}")]
            lines.writerow([str(image.file), *guesses])
        return text.getvalue()


def predict(
    source: Path,
    files: Sequence[Path],
    *,
    top: int = 3,
    backend: str = "auto",
    precision: str = "best",
    convert: bool = False,
    resize: str | None = None,
    key: Path | None = None,
    min_version: int | None = None,
    on_step: Step = lambda what, done, total: None,
) -> Predictions:
    """Reads image files and classifies them.

    Args:
        source: a bundle's folder or tar, a model's folder, or the name of one in bundles/ or models/.
        files: PNG, JPEG, BMP or WebP files, or folders of such, which are searched through.
        top: how many labels of each.
        backend, precision, key, min_version: as for `toolkit.load`; a model runs on PyTorch in fp32.
        convert, resize: bring images of another size or color to the network's, in its own way unless told another.
        on_step: called with (what is being done, done, total).

    Raises:
        ToolkitError: no such bundle or model; nothing to read; an image that does not fit. BackendUnavailable:
            nothing that was asked for can run.
    """
    if source.suffix.lower() in SUFFIXES and source.is_file():
        raise ToolkitError(f"{source} is an image", allowed="a bundle or a model first, its images behind it")
    found = _files(files)
    signed: dict[str, Any] = {"key": key, "min_version": min_version}
    kind, opened = _opened(source, backend, precision, signed)
    with opened as net:
        fitted = partial(
            _fitted, shape=net.preprocessing.shape, convert=convert or resize is not None, resize=resize or net.resize
        )
        read, pixels, unreadable = _read(found, fitted, on_step)
        probabilities = _probabilities(net, pixels, on_step)
        return Predictions(
            ok=not unreadable,
            kind=kind,
            source=source,
            model=net.model,
            runner=net.description,
            images=tuple(
                _prediction(path, row, net.labels, top) for path, row in zip(read, probabilities, strict=True)
            ),
            unreadable=unreadable,
        )


class _Model(AbstractContextManager["_Model"]):
    """A model folder that answers as a `Net` does."""

    def __init__(self, folder: Path) -> None:
        with needs("run the PyTorch model"):
            from toolkit.models.checkpoint import load_model
        loaded = load_model(folder)
        self.model, self.labels = loaded.card.name, loaded.card.labels
        self.preprocessing: Preprocessing = loaded.card.preprocessing
        self.resize = loaded.card.resize
        self._runner: Runner = TorchRunner(loaded.classifier, label=loaded.card.name)
        self.description = self._runner.description

    def probabilities(self, images: UInt8) -> Float32:
        logits = self._runner.logits(images)
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        found: Float32 = shifted / shifted.sum(axis=1, keepdims=True)
        return found

    def __exit__(self, *error: object) -> None:
        self._runner.close()


def _opened(source: Path, backend: str, precision: str, signed: dict[str, Any]) -> tuple[str, Net | _Model]:
    """The bundle or the model that is meant: a path as it is, a name as a bundle first."""
    with os_errors(source, "read"):
        named = len(source.parts) == 1 and not source.exists()
    bundle = bundle_as_typed(source)
    model = find_in_room("models", source.name) if named else source
    if not bundle.exists() and model is None:
        meant = nearest(source.name, [*bundle_names(), *names_in_room("models")])
        raise ToolkitError(
            f"there is no bundle and no model '{source}'",
            found=f"nothing at {source.absolute()}, in bundles/ or in models/",
            fix="look at what there is" if meant is None else f"did you mean {meant}?",
        )
    if model is None or (bundle.exists() and not (bundle / CARD).is_file()):
        return "bundle", load(bundle, backend=backend, precision=precision, **signed)
    if backend not in ("auto", "torch") or precision not in ("best", "fp32"):
        raise ToolkitError(
            f"'{source}' is a model, not a bundle: it runs on torch in fp32 only",
            found=f"`backend={backend!r}`, `precision={precision!r}`",
            fix=f"`toolkit.export({card_from_folder(model).name!r})` makes a bundle of it",
        )
    return "model", _Model(model)


def _files(given: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
            if not inside:
                raise DataError(f"{path} holds no images", allowed=f"files of {' '.join(sorted(SUFFIXES))}")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise DataError("there is no such image", found=path.absolute(), fix="check the path")
    return found


def _fitted(path: Path, *, shape: tuple[int, int, int], convert: bool, resize: str) -> UInt8:
    return fitted_image(read_image(path, convert), shape, convert, str(path), require_resize(resize))


def _read(
    files: Sequence[Path], fitted: Callable[[Path], UInt8], on_step: Step
) -> tuple[list[Path], list[UInt8], dict[str, str]]:
    """The files that can be read, their pixels, and why the others cannot."""
    read: list[Path] = []
    pixels: list[UInt8] = []
    unreadable: dict[str, str] = {}
    for done, path in enumerate(files, 1):
        try:
            pixels.append(fitted(path))
            read.append(path)
        except Unreadable as error:
            unreadable[str(path)] = str(error)
        on_step("read images", done, len(files))
    return read, pixels, unreadable


def _probabilities(net: Net | _Model, pixels: Sequence[UInt8], on_step: Step) -> list[Float32]:
    rows: list[Float32] = []
    for start in range(0, len(pixels), BATCH):
        part = np.stack(pixels[start : start + BATCH])
        rows += list(net.classify(part).probabilities if isinstance(net, Net) else net.probabilities(part))
        on_step("classify", min(start + BATCH, len(pixels)), len(pixels))
    return rows


def _prediction(path: Path, row: Float32, labels: Sequence[str], top: int) -> Prediction:
    best = np.argsort(-row, kind="stable")[:top]
    guesses = tuple(Guess(labels[i], min(max(float(row[i]), 0.0), 1.0)) for i in best)
    return Prediction(path, guesses[0].label, guesses[0].probability, guesses)
