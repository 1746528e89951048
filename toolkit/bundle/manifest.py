"""What a bundle is made of: its file variants in one table, and which files of a folder are the bundle's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import BundleError
from toolkit.storage.files import read_json
from toolkit.storage.limits import MANIFEST_BYTES
from toolkit.storage.replacing import date_of, named, others_in, require_replaceable
from toolkit.workspace import MANIFEST

FORMAT = 2
WITHOUT_DIGEST = 1  # the format before it: a manifest without a digest over itself
GOLDEN = "golden.npz"
SAVED = "selftest-"  # how the names of what `toolkit selftest --save` writes begin: beside the manifest, not in it
SIGNATURE, SIGNED_MANIFEST = f"{MANIFEST}.sig", f"{MANIFEST}.signed"  # in a folder that was unpacked
KINDS = (".onnx", ".npz", ".json", ".cache", ".png", ".sig", ".signed")  # of files, where a manifest cannot say which


@dataclass(frozen=True)
class Variant:
    """One ONNX file of a bundle.

    Attributes:
        name: as the manifest, options and runners have it.
        file: its name in the bundle.
        precision: what its convolutions compute in, "fp32", "fp16" or "int8": what `toolkit build --precision` takes.
        half: its other layers, and the scales of its Q/DQ, are float16.
        for_tensorrt: TensorRT builds from it, as does what else computes on a GPU.
        for_cpu: to be preferred on a CPU, where ONNX Runtime runs the others too, and slower.
        optimize: ONNX Runtime reads it rightly with its own optimizations.
        golden_distance: the largest relative L2 of an engine's or a runner's logits from the golden ones.
        golden_flips: the largest part of answers, 0..1, that may differ from the golden ones.
        layer_floor: the relative L2 that a layer of a healthy net may be off (docs/verify.md); more is a fault.
    """

    name: str
    file: str
    precision: str
    half: bool
    for_tensorrt: bool
    for_cpu: bool
    optimize: bool
    golden_distance: float
    golden_flips: float
    layer_floor: float

    @property
    def is_int8(self) -> bool:
        """Its convolutions read int8."""
        return self.precision == "int8"

    @property
    def types(self) -> tuple[str, ...]:
        """What it holds beside float32, by TensorRT's names."""
        return ("FP16",) * self.half + ("INT8",) * self.is_int8

    @property
    def builder_flags(self) -> tuple[str, ...]:
        """What a weakly typed TensorRT must be allowed for it; layers that are not INT8 may run in FP16 there."""
        return ("FP16", "INT8") if self.is_int8 else self.types

    @property
    def engine_file(self) -> str:
        """The name of the engine that is built from it as it stands."""
        return self.file.removesuffix("onnx") + "engine"

    @property
    def export_options(self) -> str:
        """The argument that makes `toolkit.export` write it, as Python; nothing for the file that every bundle has."""
        return "" if self.precision == "fp32" else f"options=ExportOptions({self.precision}=True)"


# Relative L2 of the logits from the golden ones of the same file, and the part of the images that may answer otherwise.
# float32 may be computed in TF32 (10 bits of mantissa); FP16 has 11 bits; an INT8 engine may tip roundings, and may not
# be further from the golden logits than INT8 itself is from fp32 on the reference models, 0.02 to 0.035.
# ONNX Runtime from 1.21 on computes int8-fp16 wrongly with its own defaults (see `toolkit.runtime.ort.quirks`). Without
# any optimization it answers as the graph stands, to the last bit, and is as fast as with the others.
# fmt: off
_TABLE = (
    #       name         file                    precision half   tensorrt cpu  optimize distance flips floor
    Variant("fp32",      "model.onnx",           "fp32",   False, True,  True,  True,  2e-3, 0.0,  1e-4),
    Variant("fp16",      "model.fp16.onnx",      "fp16",   True,  True,  False, True,  1e-2, 0.02, 1e-2),
    Variant("int8",      "model.int8.onnx",      "int8",   False, True,  False, True,  5e-2, 0.05, 0.1),
    Variant("int8-fp16", "model.int8-fp16.onnx", "int8",   True,  True,  False, False, 5e-2, 0.05, 0.1),
    Variant("int8-cpu",  "model.int8-cpu.onnx",  "int8",   False, False, True,  True,  5e-2, 0.05, 0.1),
)
# fmt: on
VARIANTS = {variant.name: variant for variant in _TABLE}
FOR_TENSORRT = tuple(name for name, variant in VARIANTS.items() if variant.for_tensorrt)
PRECISIONS = tuple(dict.fromkeys(variant.precision for variant in VARIANTS.values()))


def variant_of_file(file: str) -> Variant | None:
    """The variant whose file in a bundle has this name; None for any other file."""
    return next((variant for variant in VARIANTS.values() if variant.file == file), None)


def best_first(on_cpu: bool) -> tuple[str, ...]:
    """What to run where nothing is said, the smallest numbers first: INT8, and FP16 in the other layers."""
    ordered = sorted(VARIANTS.values(), key=lambda variant: (not variant.is_int8, not variant.half))
    return tuple(one.name for one in ordered if (one.for_cpu if on_cpu else one.for_tensorrt))


@dataclass(frozen=True)
class OldBundle:
    """What lies where a bundle will be written.

    Attributes:
        manifest: empty where there is none, or none that can be read.
    """

    folder: Path
    manifest: dict[str, Any]

    def own(self, name: str) -> bool:
        """Whether a file is the bundle's: named in its manifest, or made in it by `build`, `unpack` and `selftest`."""
        if not self.manifest:
            return name.startswith("engines/") or name.endswith(KINDS)
        apart = (MANIFEST, SIGNATURE, SIGNED_MANIFEST)
        beside = name.startswith(("engines/", SAVED)) or name in apart
        return beside or name in self.manifest.get("files", {})

    def said(self, engines: set[str]) -> str:
        """What became of it, for people; nothing where nothing was lost and nothing was kept."""
        lost = [entry["file"] for entry in self.manifest.get("engines", []) if entry["file"] not in engines]
        kept = others_in(self.folder, self.own) if self.manifest else []
        parts = [f"{len(lost)} engine{'s' * (len(lost) != 1)} removed"] if lost else []
        parts += [f"kept {named(kept)}, which is not the bundle's"] if kept else []
        return f"Replaced the bundle of {date_of(self.folder / MANIFEST)}: {', '.join(parts)}." if parts else ""


def old_bundle(folder: Path, model: str) -> OldBundle:
    """What a bundle of a model would replace.

    Raises:
        ToolkitError: the manifest.json there is no bundle's. BundleError: a bundle of another model; says which, how
            good, of when, with what beside it.
    """
    require_replaceable(folder / MANIFEST, "manifest of a bundle", _may_be_ours)
    try:
        manifest = read_json(folder / MANIFEST, BundleError, MANIFEST_BYTES) if (folder / MANIFEST).is_file() else {}
        there = str(manifest["model"]["name"]) if manifest else model
        old = OldBundle(folder, manifest)
        others = others_in(folder, old.own) if there != model else []
    except (BundleError, KeyError, TypeError, AttributeError):  # damaged: whoever exports again mends it
        return OldBundle(folder, {})
    if there != model:
        raise BundleError(
            f"{folder} holds a bundle of another model, '{there}'",
            found=", ".join(filter(None, (_of(manifest), date_of(folder / MANIFEST), named(others)))),
            allowed=f"a bundle of '{model}', or a folder that is not there",
            fix="choose another `bundle=`, or move the folder away",
        )
    return old


def _may_be_ours(data: bytes) -> bool:
    """Also of one that was damaged since."""
    return all(word in data for word in (b'"format"', b'"model"', b'"files"'))


def _of(manifest: dict[str, Any]) -> str:
    """Accuracy and number of engines, as far as they are there."""
    score = manifest.get("accuracy", {}).get("fp32", {}).get("candidate_score", {}).get("top1_percent")
    engines = manifest.get("engines") or []
    return ", ".join([*([f"top-1 {score} %"] if score is not None else []), f"{len(engines)} engines"])
