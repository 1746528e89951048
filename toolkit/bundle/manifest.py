"""What a bundle is made of: its file variants in one table, and the form of `manifest.json`."""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.documents import Each, Maybe

FORMAT = 2
WITHOUT_DIGEST = 1  # the format before it: a manifest without a digest over itself
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
# What this version reads of a manifest; older ones lack what ends in "?".
MANIFEST_SHAPE = {
    "model": {"name": str, "arch?": dict, "weights_sha256?": str, "folder_hint?": Maybe(str)},
    "labels": [str],
    "preprocessing": {"height": int, "width": int, "channels": int, "mean": [float], "std": [float]},
    "output?": {"name": str, "dtype": str, "shape": list},
    "files": Each({"sha256": str, "bytes": int}),
    "engines?": [{"file": str, "precision": str, "target?": str, "tensorrt?": {"kind": str, "version": str}}],
    "accuracy?": Each({"candidate_score": {"top1_percent": float, "images": int}, "agreement_percent": float}),
    "evaluation?": {"source": str, "sha256": str},
    "calibration?": Maybe({"key?": str, "method?": str}),
    "stripped?": {"only": [str]},
}
