"""What a bundle is made of: its file variants in one table, and the form of `manifest.json`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from toolkit.documents import Document
from toolkit.hints import Maybe

FORMAT = 1
GOLDEN = "golden.npz"
RECORDS = "selftest-"  # how the names of `toolkit selftest --record` begin: beside the manifest, not in it


@dataclass(frozen=True)
class Variant:
    """One ONNX file of a bundle.

    Attributes:
        name: as the manifest, options and runners have it.
        file: its name in the bundle.
        precision: what its convolutions compute in: "fp32", "fp16" or "int8".
        for_tensorrt: TensorRT builds from it; the other is for ONNX Runtime on the CPU.
        optimize: ONNX Runtime reads it rightly with its own optimizations.
        golden_distance: the largest relative L2 of an engine's or a runner's logits from the golden ones.
        golden_flips: the largest part of answers, 0..1, that may differ from the golden ones.
        layer_floor: the relative L2 that a layer of a healthy net may be off (docs/verify.md); more is a fault.
    """

    name: str
    file: str
    precision: str
    for_tensorrt: bool
    optimize: bool
    golden_distance: float
    golden_flips: float
    layer_floor: float

    @property
    def is_int8(self) -> bool:
        """Its convolutions read int8."""
        return self.precision == "int8"


# Relative L2 of the logits from the golden ones of the same file, and the part of the images that may answer otherwise.
# float32 may be computed in TF32 (10 bits of mantissa); FP16 has 11 bits; an INT8 engine may tip roundings, and may not
# be further from the golden logits than INT8 itself is from fp32 on the reference models, 0.02 to 0.035.
# ONNX Runtime from 1.21 on computes int8-fp16 wrongly with its own defaults (see `toolkit.runtime.ort.quirks`). Without
# any optimization it answers as the graph stands, to the last bit, and is as fast as with the others.
VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("fp32", "model.onnx", "fp32", True, True, 2e-3, 0.0, 1e-4),
        Variant("fp16", "model.fp16.onnx", "fp16", True, True, 1e-2, 0.02, 1e-2),
        Variant("int8", "model.int8.onnx", "int8", True, True, 5e-2, 0.05, 0.1),
        Variant("int8-fp16", "model.int8-fp16.onnx", "int8", True, False, 5e-2, 0.05, 0.1),
        Variant("int8-cpu", "model.int8-cpu.onnx", "int8", False, True, 5e-2, 0.05, 0.1),
    )
}
FOR_TENSORRT = tuple(name for name, variant in VARIANTS.items() if variant.for_tensorrt)


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


@dataclass(frozen=True)
class Output(Document):
    """The logits."""

    name: str
    dtype: str
    shape: tuple[Any, ...]


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
class EngineEntry(Document):
    """One engine of the bundle."""

    file: str
    precision: str
    target: Maybe[str] = None
    tensorrt: Maybe[Maker] = None


@dataclass(frozen=True)
class TopOne(Document):
    """Top-1 of a file."""

    top1_percent: float
    images: int


@dataclass(frozen=True)
class AccuracyEntry(Document):
    """What a file was judged to be when the bundle was written."""

    candidate_score: TopOne
    agreement_percent: float


@dataclass(frozen=True)
class EvaluationEntry(Document):
    """The images that judged."""

    source: str
    sha256: str


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
