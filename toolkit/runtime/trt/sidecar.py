"""What this version reads of an engine's JSON sidecar, before anything in it is believed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from toolkit.storage.documents import Document
from toolkit.storage.hints import Maybe


@dataclass(frozen=True)
class Maker(Document):
    """The TensorRT that built the plan."""

    kind: str
    version: str


@dataclass(frozen=True)
class Builder(Document):
    """The machine that it was built on."""

    machine: str | None = None
    device: str | None = None
    compute_capability: str | None = None


@dataclass(frozen=True)
class Source(Document):
    """The ONNX file that it was built from."""

    file: str


@dataclass(frozen=True)
class Plan(Document):
    """The bytes that TensorRT wrote."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class LayerKind(Document):
    """Layers of one kind that read and write the same types."""

    kind: str
    reads: str
    writes: str
    count: int


@dataclass(frozen=True)
class Fused(Document):
    """The ONNX nodes of one layer."""

    layer: str
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Layers(Document):
    """What the engine is made of."""

    kinds: tuple[LayerKind, ...]
    fused: tuple[Fused, ...] = ()


@dataclass(frozen=True)
class OnDla(Document):
    """What went to a DLA."""

    core: int
    layers: int
    layers_on_gpu: tuple[str, ...]


@dataclass(frozen=True)
class Draw(Document):
    """One of several builds, judged."""

    build_seconds: float
    p50_ms: float | None
    relative_l2: float | None
    reason: str
    batch: int


@dataclass(frozen=True)
class Sidecar(Document):
    """What is read of it; what not every sidecar has, has a default."""

    tensorrt: Maker
    builder: Builder
    compute_capabilities: tuple[str, ...]
    onnx: Source
    plan: Plan
    flags: tuple[str, ...]
    profile: dict[str, Any]
    census: Layers | None = None
    dla: OnDla | None = None
    trials: tuple[Draw, ...] = ()
    trials_kept: Maybe[int] = None
