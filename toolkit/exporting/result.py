"""What `toolkit export` prints: the bundle's files, what each was judged to be, and what was decided on the way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from toolkit.bundle.entries import FileEntry
from toolkit.compare.classes import Classes
from toolkit.compare.parity import Parity, Score
from toolkit.exporting.artifacts import Graphs
from toolkit.quantization.sensitivity import Point
from toolkit.storage.documents import Document
from toolkit.storage.hints import Apart, Count, Flat, Maybe, Percent


@dataclass(frozen=True)
class Judged(Document):
    """One precision on the evaluation images, against fp32."""

    score: Flat[Score]
    agreement_percent: Percent
    flips: Count


@dataclass(frozen=True, kw_only=True)
class Exported(Document):
    """A bundle that was written, and what was found on the way; what toolkit export prints.

    Attributes:
        bundle: its folder.
        files: of the manifest, by name.
        accuracy: by precision.
        classes: by precision, each class by itself: recall, precision, confusion.
        vanished: by precision, classes that fp32 finds and it never does.
        calibration: of the manifest: what the ranges belong to; null without INT8.
        kept_in_float: convolutions of the INT8 files that are in floating point.
        curve: each share of INT8 that was tried to meet --max-drop; null without it.
        left_out: precisions that have no file, with the reason.
        engines: of the manifest.
        no_engines: why there are none; null where there are.
        notes: what was done to the model and its images, and what the builds of the engines have to say, in sentences.
        decided: what was found or assumed about a model of the user's own, such as the normalization.
        skipped: damaged images that were left out, each with the reason.
        manifest: the whole of it; in memory only.
        parity: each precision against fp32 on the evaluation images; in memory only.
        graphs: what was calibrated and how; in memory only.
    """

    SCHEMA = "toolkit/export/1"
    ok: Literal[True]
    bundle: Path
    files: dict[str, FileEntry]
    accuracy: dict[str, Judged]
    calibration: dict[str, Any] | None
    kept_in_float: tuple[str, ...]
    curve: tuple[Point, ...] | None
    left_out: dict[str, str]
    engines: tuple[dict[str, Any], ...]
    no_engines: str | None
    notes: tuple[str, ...]
    decided: dict[str, Any]
    skipped: tuple[str, ...]
    manifest: Apart[dict[str, Any]]
    parity: Apart[dict[str, Parity]]
    graphs: Apart[Graphs]
    classes: Maybe[dict[str, Classes]] = None
    vanished: Maybe[dict[str, tuple[str, ...]]] = None


def judged(parity: Parity) -> Judged:
    """What is printed of a file's answers."""
    return Judged(parity.candidate_score, parity.agreement_percent, parity.flips)
