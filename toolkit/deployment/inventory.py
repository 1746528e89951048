"""`toolkit list`: the models and bundles of this workspace, and those that are shipped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from toolkit.errors import ToolkitError
from toolkit.models.card import CARD, card_from_folder
from toolkit.storage.documents import Document
from toolkit.storage.files import read_json
from toolkit.storage.hints import Count, Percent
from toolkit.storage.replacing import date_of
from toolkit.workspace import MANIFEST, bundle_names, find_in_room, names_in_room, workspace


@dataclass(frozen=True)
class Entry(Document):
    """A model or a bundle.

    Attributes:
        kind: which of the two. name: what commands call it.
        top1_percent: of its card, or of the bundle's fp32 file at export; null where nobody measured.
        images: how many judged. date: of its card or manifest, local time.
        bytes: of all its files. files: precisions of a bundle. engines: how many it holds.
        fault: why it cannot be used; null where it can.
    """

    kind: Literal["model", "bundle"]
    name: str
    folder: Path
    top1_percent: Percent | None
    images: Count | None
    date: str
    bytes: Count
    files: tuple[str, ...]
    engines: Count
    fault: str | None


@dataclass(frozen=True)
class Inventory(Document):
    """What toolkit list prints."""

    SCHEMA = "toolkit/list/1"
    ok: Literal[True]
    workspace: Path
    entries: tuple[Entry, ...]


def inventory() -> Inventory:
    """Every model in models/ and every bundle in bundles/; what cannot be read is listed with the reason."""
    models = [folder for name in names_in_room("models") if (folder := find_in_room("models", name)) is not None]
    bundles = [workspace() / "bundles" / name for name in bundle_names()]
    entries = [_model(folder) for folder in models if (folder / CARD).is_file()]
    entries += map(_bundle, bundles)
    return Inventory(True, workspace().resolve(), tuple(entries))


def _model(folder: Path) -> Entry:
    try:
        card, fault = card_from_folder(folder), None
    except ToolkitError as error:
        card, fault = None, error.in_one_line()
    accuracy = (card.accuracy if card else None) or {}
    return Entry(
        "model", folder.name, folder, _number(accuracy.get("top1_percent")), _count(accuracy.get("images")),
        date_of(folder / CARD), _bytes(folder), (), 0, fault,
    )  # fmt: skip


def _bundle(folder: Path) -> Entry:
    try:
        manifest, fault = read_json(folder / MANIFEST, ToolkitError), None
    except ToolkitError as error:
        manifest, fault = {}, error.in_one_line()
    accuracy = manifest.get("accuracy")
    accuracy = accuracy if isinstance(accuracy, dict) else {}
    fp32 = accuracy.get("fp32")
    score = fp32.get("candidate_score") if isinstance(fp32, dict) else None
    score = score if isinstance(score, dict) else {}
    engines = manifest.get("engines")
    return Entry(
        "bundle", folder.name, folder, _number(score.get("top1_percent")), _count(score.get("images")),
        date_of(folder / MANIFEST), _bytes(folder), tuple(map(str, accuracy)),
        len(engines) if isinstance(engines, list) else 0, fault,
    )  # fmt: skip


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 <= value <= 100 else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
