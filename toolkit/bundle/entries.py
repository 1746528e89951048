"""What this version reads of `manifest.json`, checked before anything in it is believed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from toolkit.storage.documents import Document
from toolkit.storage.hints import Maybe


@dataclass(frozen=True)
class ModelEntry(Document):
    """The model: its name, and what it was made of."""

    name: str
    arch: dict[str, Any] = field(default_factory=dict)
    weights_sha256: str = ""
    folder_hint: str | None = None


@dataclass(frozen=True)
class Pixels(Document):
    """What images must be, and how they are normalized in the graph."""

    height: int
    width: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    network_channels: Maybe[str] = None


@dataclass(frozen=True)
class Output(Document):
    """What a file answers with.

    Attributes:
        kind: where these are no logits, see `toolkit.compare.answers`.
        stripped: the operators that followed the logits in the network and are in no file.
    """

    name: str
    dtype: str
    shape: tuple[Any, ...]
    kind: Maybe[str] = None
    stripped: Maybe[str] = None


@dataclass(frozen=True)
class FileEntry(Document):
    """One file of the bundle."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Maker(Document):
    """The TensorRT that built an engine."""

    kind: str
    version: str


@dataclass(frozen=True)
class KindOfLayers(Document):
    """Layers of an engine that are alike."""

    kind: str
    reads: str
    writes: str
    count: int


@dataclass(frozen=True)
class LayerReportEntry(Document):
    """What an engine is made of."""

    layers: int
    convolutions: int
    conversions: int
    convolutions_reading: dict[str, int]
    kinds: tuple[KindOfLayers, ...]


@dataclass(frozen=True)
class EngineEntry(Document):
    """One engine of the bundle."""

    file: str
    precision: str
    target: Maybe[str] = None
    tensorrt: Maybe[Maker] = None
    census: LayerReportEntry | None = None
    census_reason: str | None = None
    build_seconds: Maybe[float] = None


@dataclass(frozen=True)
class TopOne(Document):
    """Top-1 of a file."""

    top1_percent: float
    images: int
    correct: Maybe[int] = None


@dataclass(frozen=True)
class AccuracyEntry(Document):
    """What a file was judged to be when the bundle was written."""

    candidate_score: TopOne
    agreement_percent: float
    lost: Maybe[int] = None
    gained: Maybe[int] = None


@dataclass(frozen=True)
class EvaluationEntry(Document):
    """The images that judged.

    Attributes:
        read: where they were and how they were read, see `toolkit.data.model_images.Origin`.
    """

    source: str
    sha256: str
    images: Maybe[int] = None
    read: Maybe[dict[str, Any]] = None


@dataclass(frozen=True)
class CalibrationEntry(Document):
    """What the ranges belong to."""

    key: Maybe[str] = None
    method: Maybe[str] = None


@dataclass(frozen=True)
class StrippedEntry(Document):
    """Which precisions and targets were left in."""

    only: tuple[str, ...]


@dataclass(frozen=True)
class Manifest(Document):
    """What this version reads of `manifest.json`; what older ones lack has a default."""

    model: ModelEntry
    labels: tuple[str, ...]
    preprocessing: Pixels
    files: dict[str, FileEntry]
    output: Maybe[Output] = None
    engines: tuple[EngineEntry, ...] = ()
    accuracy: dict[str, AccuracyEntry] = field(default_factory=dict)
    evaluation: Maybe[EvaluationEntry] = None
    calibration: CalibrationEntry | None = None
    stripped: Maybe[StrippedEntry] = None
