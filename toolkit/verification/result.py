"""What `toolkit verify` found, as values: pairs of runners, the steps between them, causes, and one verdict."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from toolkit.compare.classes import Classes
from toolkit.compare.flips import Flips
from toolkit.compare.gate import UNDECIDED, Verdict, Word
from toolkit.compare.parity import Parity, Score
from toolkit.contracts import LabeledImages
from toolkit.storage.documents import Document
from toolkit.storage.hints import Apart, Count, Flat, Items, Limits, Maybe, Percent, Sha256
from toolkit.verification.hypotheses import Cause
from toolkit.verification.layers import Layers

Kind = Literal["export", "quantisation", "half precision", "backend"]


@dataclass(frozen=True)
class JudgingImages(Document):
    """The images that judged.

    Attributes:
        source: where they come from, in words.
        sha256: of their pixels and labels.
    """

    source: str
    count: Annotated[int, Limits(least=1)]
    sha256: Sha256


def judging(images: LabeledImages) -> JudgingImages:
    """What a document says of the images that judged."""
    return JudgingImages(images.source, len(images), images.sha256)


@dataclass(frozen=True)
class ModelVerification(Document):
    """What toolkit verify MODEL prints: whether a model folder still gives the accuracy that its card claims.

    Attributes:
        ok: it does, or these are not the card's images.
        model: its folder.
        card_top1_percent: what the card claims of these very images; null where they are others.
        classes: each by itself.
    """

    SCHEMA = "toolkit/verify-model/1"
    ok: bool
    model: Path
    images: JudgingImages
    score: Score
    card_top1_percent: Percent | None
    classes: Maybe[Classes] = None


@dataclass(frozen=True)
class Pair(Document):
    """A candidate against its reference on the same images, judged."""

    parity: Flat[Parity]
    flips: Flat[Flips]
    verdict: Verdict

    @property
    def runner(self) -> str:
        """The candidate's name."""
        return self.parity.candidate

    @property
    def score(self) -> Score:
        """The candidate's top-1."""
        return self.parity.candidate_score


@dataclass(frozen=True)
class Source(Document):
    """One step of the way from the fp32 model to a runner, and what it alone changes.

    Attributes:
        kind: "export" (PyTorch to ONNX Runtime), "quantisation" or "half precision" (another file on the same engine),
            "backend" (the same file on another engine).
        parity: what lies before the step against what lies behind it.
    """

    kind: Kind
    parity: Flat[Parity]


@dataclass(frozen=True, kw_only=True)
class Verification(Document):
    """What toolkit verify prints and toolkit.verify(...) returns; docs/verify.md says what each number means.

    Attributes:
        ok: every runner passed, nothing that was asked for is missing, and no fault was found: the exit code is 0.
        bundle: its folder.
        other: the second bundle or ONNX file, where one was given.
        manifest_sha256: of manifest.json's bytes.
        tool: version.
        gate_percent: least top-1, in percent of the reference's.
        strict: the whole interval must reach the gate.
        reference: the fp32 runner that the others are held against; those of `other` each against its like.
        passed: by runner: the measured retention reaches the gate; with `strict`, its whole interval does.
        verdicts: by runner.
        parity: one entry a runner.
        sources: each step from the fp32 model to a runner, alone: quantization error and backend error apart.
        classes: by runner, each class by itself: recall, precision, confusion.
        vanished: by runner, classes that its reference finds and it never does.
        beyond: by runner, logits that are further from its reference's than atol + rtol * |reference|, where either was
            given; any at all is not ok.
        likely_causes: named faults; any at all is not ok.
        not_checked: what could not be looked at here, with the reason.
        layers: what was found layer by layer, where that was asked for.
        unavailable: backends and runners that cannot run here, with the reason.
        sheets: PNG files of --save-worst; the command line only.
        judged: the images themselves; in memory only.
        missing: a backend that was asked for by name is unavailable; in memory only.
    """

    SCHEMA = "toolkit/verify/1"
    ok: bool
    bundle: Path
    other: Path | None
    model: str
    labels: Annotated[tuple[str, ...], Items(least=1)]
    manifest_sha256: Sha256
    tool: str
    images: JudgingImages
    gate_percent: Percent
    strict: bool
    reference: str
    passed: dict[str, bool]
    verdicts: dict[str, Word]
    parity: tuple[Pair, ...]
    sources: tuple[Source, ...]
    likely_causes: tuple[Cause, ...]
    not_checked: dict[str, str]
    layers: tuple[Layers, ...]
    unavailable: dict[str, str]
    classes: Maybe[dict[str, Classes]] = None
    vanished: Maybe[dict[str, tuple[str, ...]]] = None
    beyond: Maybe[dict[str, Count]] = None
    sheets: Maybe[tuple[Path, ...]] = None
    judged: Apart[LabeledImages | None] = None
    missing: Apart[bool] = False

    @property
    def pairs(self) -> dict[str, Pair]:
        """By runner."""
        return {pair.parity.candidate: pair for pair in self.parity}

    @property
    def undecided(self) -> tuple[str, ...]:
        """Runners that these images are too few to judge."""
        return tuple(name for name, word in self.verdicts.items() if word == UNDECIDED)
