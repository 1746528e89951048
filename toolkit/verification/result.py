"""What `toolkit verify` found, as values: pairs of runners, the steps between them, causes, and one verdict."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.compare.flips import Flips
from toolkit.compare.gate import UNDECIDED, Verdict
from toolkit.compare.parity import Parity
from toolkit.contracts import LabeledImages
from toolkit.verification.hypotheses import Cause
from toolkit.verification.layers import Layers
from toolkit.version import __version__

SCHEMA = "toolkit/verify/1"


@dataclass(frozen=True)
class Pair:
    """A candidate against its reference on the same images, judged."""

    parity: Parity
    flips: Flips
    verdict: Verdict

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**self.parity.as_dict(), **self.flips.as_dict(), "verdict": self.verdict.as_dict()}


@dataclass(frozen=True)
class Source:
    """One step of the way from the fp32 model to a runner, and what it alone changes.

    Attributes:
        kind: "export" (PyTorch to ONNX Runtime), "quantisation" or "half precision" (another file on the same engine),
            "backend" (the same file on another engine).
        parity: what lies before the step against what lies behind it.
    """

    kind: str
    parity: Parity

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"kind": self.kind, **self.parity.as_dict()}


@dataclass(frozen=True)
class Verification:
    """What was compared, and what came of it.

    Attributes:
        other: the second bundle or file, where one was given.
        reference: the fp32 runner that the others are held against; those of `other` each against its like.
        pairs: one a runner, by name.
        sources: quantization error and backend error apart.
        causes: what is wrong, named; empty where nothing is.
        not_checked: what could not be looked at here, with the reason.
        unavailable: backends and runners that cannot run here, with the reason.
        missing: one that was asked for by name is among them.
    """

    bundle: Path
    other: Path | None
    model: str
    labels: tuple[str, ...]
    manifest_sha256: str
    images: LabeledImages
    gate_percent: float
    strict: bool
    reference: str
    pairs: dict[str, Pair]
    sources: tuple[Source, ...]
    causes: tuple[Cause, ...]
    not_checked: dict[str, str]
    layers: tuple[Layers, ...]
    unavailable: dict[str, str]
    missing: bool

    @property
    def passed(self) -> dict[str, bool]:
        """By runner: the measured retention reaches the gate; with `strict`, its whole interval does."""
        return {name: pair.verdict.holds(self.strict) for name, pair in self.pairs.items()}

    @property
    def undecided(self) -> tuple[str, ...]:
        """Runners that these images are too few to judge."""
        return tuple(name for name, pair in self.pairs.items() if pair.verdict.word == UNDECIDED)

    @property
    def ok(self) -> bool:
        """Every runner passed, nothing that was asked for is missing, and no fault was found."""
        return all(self.passed.values()) and not self.missing and not self.causes

    def as_dict(self) -> dict[str, Any]:
        """The document of docs/schema/verify.v1.json."""
        return {
            "schema": SCHEMA,
            "ok": self.ok,
            "bundle": str(self.bundle.resolve()),
            "other": None if self.other is None else str(self.other.resolve()),
            "model": self.model,
            "labels": list(self.labels),
            "manifest_sha256": self.manifest_sha256,
            "tool": __version__,
            "images": {"source": self.images.source, "count": len(self.images), "sha256": self.images.sha256},
            "gate_percent": self.gate_percent,
            "strict": self.strict,
            "reference": self.reference,
            "passed": self.passed,
            "verdicts": {name: pair.verdict.word for name, pair in self.pairs.items()},
            "parity": [pair.as_dict() for pair in self.pairs.values()],
            "sources": [source.as_dict() for source in self.sources],
            "likely_causes": [cause.as_dict() for cause in self.causes],
            "not_checked": self.not_checked,
            "layers": [layers.as_dict() for layers in self.layers],
            "unavailable": self.unavailable,
        }
