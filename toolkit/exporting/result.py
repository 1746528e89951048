"""What `toolkit export` prints: the bundle's files, what each was judged to be, and what was decided on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from toolkit.bundle.entries import FileEntry
from toolkit.compare.parity import Parity, Score
from toolkit.documents import Document
from toolkit.exporting.writing import Written
from toolkit.hints import Apart, Count, Flat, Percent
from toolkit.quantization.sensitivity import Point


@dataclass(frozen=True)
class Judged(Document):
    """One precision on the evaluation images, against fp32."""

    score: Flat[Score]
    agreement_percent: Percent
    flips: Count


@dataclass(frozen=True)
class Exported(Document):
    """What `toolkit.export` returns, and toolkit export prints: a bundle that was written.

    Attributes:
        bundle: its folder.
        files: of the manifest, by name.
        accuracy: by precision.
        calibration: of the manifest: what the ranges belong to; null without INT8.
        kept_in_float: convolutions of the INT8 files that are in floating point.
        curve: each share of INT8 that was tried to meet --max-drop; null without it.
        left_out: precisions that have no file, with the reason.
        engines: of the manifest.
        no_engines: why there are none; null where there are.
        notes: what the builds of the engines have to say, in sentences.
        decided: what nobody said and was measured or taken for granted, such as the normalization.
        skipped: damaged files of the images that were left out, with reasons.
        written: what was calculated on the way; in memory only.
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
    written: Apart[Written | None] = None


def exported(written: Written, decided: dict[str, Any], skipped: Sequence[str]) -> Exported:
    """What is printed of a bundle that was written.

    Args:
        decided: what nobody said about the model.
        skipped: files of the images that were left out.
    """
    manifest, budget = written.manifest, written.graphs.budget
    return Exported(
        ok=True,
        bundle=written.folder.resolve(),
        files={name: FileEntry(**entry) for name, entry in manifest["files"].items()},
        accuracy={precision: _judged(parity) for precision, parity in written.parity.items()},
        calibration=manifest["calibration"],
        kept_in_float=tuple(manifest["kept_in_float"]),
        curve=None if budget is None else budget.curve,
        left_out=manifest["left_out"],
        engines=tuple(written.engines),
        no_engines=written.no_engines or None,
        notes=written.notes,
        decided=decided,
        skipped=tuple(skipped),
        written=written,
    )


def _judged(parity: Parity) -> Judged:
    return Judged(parity.candidate_score, parity.agreement_percent, parity.flips)
