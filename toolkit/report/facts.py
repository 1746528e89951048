"""What the documents of verify and bench say, as values; what a document lacks is None or empty, never a guess."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from toolkit.compare.gate import FAIL, PASS
from toolkit.verification.hypotheses import Cause

QUANTILES = 101


@dataclass(frozen=True)
class ClassChange:
    """One class in a candidate: of `images`, `lost` only the reference had right, `gained` only the candidate."""

    label: int
    images: int
    lost: int
    gained: int
    moved: bool


@dataclass(frozen=True)
class Flip:
    """One image that both answer differently; answers are class indices, -1 for logits that are not finite.

    Attributes:
        margin: how sure the reference was: its largest logit minus the second; None where it was not written.
    """

    index: int
    label: int
    reference_answer: int
    candidate_answer: int
    margin: float | None


@dataclass(frozen=True)
class Accuracy:
    """One runner against the reference on the same images.

    Attributes:
        low_percent, high_percent: Wilson's 95 % interval of top-1.
        retention_low_percent, retention_high_percent: the paired 95 % interval of the retention.
        gate: "pass", "fail", "undecided" or "" where nothing judged.
        holds: whether the gate let it through; an undecided one may hold.
    """

    runner: str
    reference: str
    images: int
    top1_percent: float
    low_percent: float
    high_percent: float
    reference_top1_percent: float
    agreement_percent: float
    flips: int
    lost: int
    gained: int
    mcnemar_p: float
    relative_l2: float | None
    max_abs_dlogit: float | None
    retention_percent: float
    retention_low_percent: float | None
    retention_high_percent: float | None
    gate: str
    holds: bool
    images_needed: int | None
    per_class: tuple[ClassChange, ...]
    flipped: tuple[Flip, ...]

    @property
    def change_points(self) -> float:
        """Percentage points of top-1 above the reference."""
        return self.top1_percent - self.reference_top1_percent

    @property
    def change_interval(self) -> tuple[float, float] | None:
        """The paired 95 % interval of the change, in points: that of the retention, at the reference's top-1."""
        if self.retention_low_percent is None or self.retention_high_percent is None:
            return None
        low, high = self.retention_low_percent, self.retention_high_percent
        return (low / 100 - 1) * self.reference_top1_percent, (high / 100 - 1) * self.reference_top1_percent


@dataclass(frozen=True)
class Latency:
    """One runner at one batch size, milliseconds a call.

    Attributes:
        p50_interval_ms: the 95 % interval of the median.
        quantiles_ms: the 0th to 100th percentile, 101 values; empty where they were not written.
        phases_ms: parts of a call by name, in order.
        first_ms: the very first call; energy_mj: above idle, of one call.
        rate_hz: calls came on a schedule; None where they came back to back.
    """

    runner: str
    batch: int
    p50_ms: float
    p50_interval_ms: tuple[float, float] | None
    percentiles_ms: tuple[tuple[str, float], ...]
    images_per_s: float | None
    calls: int | None
    stable: bool
    quantiles_ms: tuple[float, ...]
    phases_ms: tuple[tuple[str, float], ...]
    first_ms: float | None
    energy_mj: float | None
    threads: int
    rate_hz: float | None


@dataclass(frozen=True)
class Source:
    """One step on the way from the fp32 model to a runner, and what it alone changes."""

    kind: str
    before: str
    after: str
    flips: int
    images: int
    relative_l2: float | None
    max_abs_dlogit: float | None


def accuracies_from_document(verify: dict[str, Any] | None) -> tuple[Accuracy, ...]:
    """Every runner that verify compared, in its order."""
    if verify is None:
        return ()
    passed = verify.get("passed") or {}
    return tuple(_accuracy(row, passed) for row in verify.get("parity", ()))


def sources_from_document(verify: dict[str, Any] | None) -> tuple[Source, ...]:
    """The steps that verify took apart: export, quantization, half precision, backend."""
    return tuple(
        Source(
            kind=str(row["kind"]),
            before=str(row["reference"]),
            after=str(row["candidate"]),
            flips=int(row["flips"]),
            images=int(row["candidate_score"]["images"]),
            relative_l2=_number(row.get("relative_l2")),
            max_abs_dlogit=_number(row.get("max_abs_dlogit")),
        )
        for row in (verify or {}).get("sources") or ()
    )


def causes_from_document(verify: dict[str, Any] | None) -> tuple[Cause, ...]:
    """The faults that verify named."""
    rows = (verify or {}).get("likely_causes") or ()
    return tuple(Cause(*(str(row.get(name) or "") for name in ("name", "where", "evidence", "fix"))) for row in rows)


def _accuracy(row: dict[str, Any], passed: dict[str, bool]) -> Accuracy:
    runner, score, before = str(row["candidate"]), row["candidate_score"], row["reference_score"]
    gate, held = row.get("verdict") or {}, passed.get(runner)
    word = str(gate.get("word") or {True: PASS, False: FAIL, None: ""}[held])
    return Accuracy(
        runner=runner,
        reference=str(row["reference"]),
        images=int(score["images"]),
        top1_percent=float(score["top1_percent"]),
        low_percent=float(score["low_percent"]),
        high_percent=float(score["high_percent"]),
        reference_top1_percent=float(before["top1_percent"]),
        agreement_percent=float(row["agreement_percent"]),
        flips=int(row["flips"]),
        lost=int(row["lost"]),
        gained=int(row["gained"]),
        mcnemar_p=float(row["mcnemar_p"]),
        relative_l2=_number(row.get("relative_l2")),
        max_abs_dlogit=_number(row.get("max_abs_dlogit")),
        retention_percent=float(row["retention_percent"]),
        retention_low_percent=_number(row.get("retention_low_percent")),
        retention_high_percent=_number(row.get("retention_high_percent")),
        gate=word,
        holds=bool(held),
        images_needed=gate.get("images_needed"),
        per_class=tuple(_class_change(entry) for entry in row.get("per_class") or ()),
        flipped=tuple(_flip(entry) for entry in row.get("flipped") or ()),
    )


def _class_change(entry: dict[str, Any]) -> ClassChange:
    lost, gained = int(entry["lost"]), int(entry["gained"])
    return ClassChange(int(entry["label"]), int(entry["images"]), lost, gained, bool(entry.get("moved")))


def _flip(entry: dict[str, Any]) -> Flip:
    index, label, before, after = (
        int(entry[name]) for name in ("index", "label", "reference_answer", "candidate_answer")
    )
    return Flip(index, label, before, after, _number(entry.get("margin")))


def latencies_from_document(bench: dict[str, Any] | None) -> tuple[Latency, ...]:
    """Every runner and batch size that bench measured, in its order."""
    return () if bench is None else tuple(_latency(row) for row in bench.get("latency", ()))


def _latency(row: dict[str, Any]) -> Latency:
    quantiles = tuple(float(value) for value in row.get("quantiles_ms") or ())
    middle = (row.get("intervals_ms") or {}).get("p50")
    names = [key.removesuffix("_ms") for key in row if key.startswith("p") and key[1:2].isdigit()]
    found = [(name.replace("_", "."), _number(row[f"{name}_ms"])) for name in names]
    phases = row.get("phases") or {}
    return Latency(
        runner=str(row["runner"]),
        batch=int(row["batch"]),
        p50_ms=float(row["p50_ms"]),
        p50_interval_ms=(float(middle[0]), float(middle[1])) if middle else None,
        percentiles_ms=tuple((name, value) for name, value in found if value is not None),
        images_per_s=_number(row.get("images_per_s")),
        calls=row.get("calls"),
        stable=bool(row.get("stable", True)),
        quantiles_ms=quantiles if len(quantiles) == QUANTILES else (),
        phases_ms=tuple((str(name), value) for name, value in phases.items() if _number(value) is not None),
        first_ms=_number(row.get("first_ms")),
        energy_mj=_number(row.get("energy_mj")),
        threads=int(row.get("threads") or 1),
        rate_hz=_number(row.get("rate_hz")),
    )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
