"""Which file of a bundle the TensorRT that is here should build for a precision, and how: read off what it has."""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.bundle.manifest import PRECISIONS, VARIANTS
from toolkit.engine.dla import IMPLICIT, dla_form, why_no_dla
from toolkit.engine.network import has_strong_typing
from toolkit.errors import EngineError
from toolkit.runtime.trt.module import NEEDS_NO_GPU, TensorRT
from toolkit.storage.documents import Document

WEAK_OPSET_LIMIT = 17  # TensorRT 8 reduces over all axes where opset 18's axes input names some, without a word


@dataclass(frozen=True)
class Resolved(Document):
    """What to build, and why.

    Attributes:
        precision: what was asked for, "best" resolved.
        source: the precision of the ONNX file, a key of `toolkit.bundle.manifest.VARIANTS`.
        strongly_typed: the file's types are the engine's; else builder flags allow them.
        flags: names of builder flags that the file needs.
        opset_limit: the newest opset that is read rightly; null where the parser names its own.
        reasons: a sentence for each choice.
        calib_cache: the ranges come from the bundle's `calib.cache`, not from the file.
    """

    precision: str
    source: str
    strongly_typed: bool
    flags: tuple[str, ...]
    opset_limit: int | None
    reasons: tuple[str, ...]
    calib_cache: bool = False


def resolve(tensorrt: TensorRT, precision: str, in_bundle: tuple[str, ...]) -> Resolved:
    """Chooses by attribute, never by version: wheels of one version differ in what they have.

    Args:
        precision: "fp32", "fp16", "int8" or "best".
        in_bundle: precisions of the ONNX files that are there.

    Raises:
        EngineError: unknown, or the bundle has no file for it.
    """
    reasons: list[str] = []
    if precision == "best":
        precision = _best(tensorrt, in_bundle, reasons)
    _require_known(precision)
    strong = has_strong_typing(tensorrt.module)
    source = _source(precision, strong, in_bundle, reasons)
    _require_file(source, precision, in_bundle)
    if strong:
        only = ", and has no other way" if tensorrt.strongly_typed_only else ""
        reasons.append(f"strongly typed: {tensorrt.name} takes the precision from the file{only}")
        return Resolved(precision, source, True, (), None, tuple(reasons))
    flags = VARIANTS[source].builder_flags
    reasons.append(f"weakly typed: {tensorrt.name} has no STRONGLY_TYPED; flags {', '.join(flags) or 'none'}")
    reasons.append(f"opset {WEAK_OPSET_LIMIT} at most: its ReduceMean ignores the axes input of opset 18")
    return Resolved(precision, source, False, flags, WEAK_OPSET_LIMIT, tuple(reasons))


def why_not_read(tensorrt: TensorRT, source: str) -> str:
    """Why this TensorRT reads a file of a bundle wrongly, or not at all; empty where it reads it.

    Args:
        source: the precision of the file, a key of `toolkit.bundle.manifest.VARIANTS`.
    """
    variant = VARIANTS[source]
    if not variant.for_tensorrt:
        return f"{tensorrt.name} quantizes to int8 alone, and this file computes in uint8"
    if variant.is_int8 and variant.half and not has_strong_typing(tensorrt.module):
        return f"{tensorrt.name} reads its FP16 scales as float32; {VARIANTS['int8'].file} has such"
    return ""


def resolve_for_dla(
    tensorrt: TensorRT, precision: str, in_bundle: tuple[str, ...], has_calib_cache: bool = False
) -> Resolved:
    """The same for an engine whose layers go to a DLA, which computes FP16 and INT8 only.

    Whether the device has a DLA is asked of the builder, later: `toolkit.engine.dla.require_dla`.

    Args:
        has_calib_cache: the bundle holds a `calib.cache`.

    Raises:
        EngineError: this TensorRT serves no DLA, the precision is none of a DLA, or the bundle lacks what it needs.
    """
    reason = why_no_dla(tensorrt)
    if reason:
        raise EngineError("no engine for the DLA can be built here", found=reason, fix="leave `dla_core=` out")
    implicit = dla_form(tensorrt) == IMPLICIT
    ready = has_calib_cache if implicit else "int8" in in_bundle
    if precision == "best":
        precision = "int8" if ready else "fp16"
    _require_known(precision)
    if precision == "fp32":
        raise EngineError("the DLA computes no float32", found=precision, allowed="fp16, int8 or best")
    if not implicit:
        found = resolve(tensorrt, precision, in_bundle)
        how = f"{tensorrt.name} has no calibrators: INT8 reaches its DLA by Q/DQ"
        return Resolved(precision, found.source, True, (), None, (*found.reasons, how))
    if precision == "int8" and not has_calib_cache:
        raise EngineError(
            "INT8 on this DLA needs calib.cache",
            found="none in the bundle",
            fix="`toolkit.export(options=ExportOptions(int8=True))`",
        )
    _require_file("fp32", precision, in_bundle)
    int8 = precision == "int8"
    flags, file = VARIANTS[precision].builder_flags, VARIANTS["fp32"].file
    reasons = [f"weakly typed: the DLA of {tensorrt.name} takes its precision from flags {', '.join(flags)} and {file}"]
    reasons += ["INT8 is implicit there: the ranges come from calib.cache, not from Q/DQ"] if int8 else []
    limit = None if has_strong_typing(tensorrt.module) else WEAK_OPSET_LIMIT
    return Resolved(precision, "fp32", False, flags, limit, tuple(reasons), calib_cache=int8)


def _require_known(precision: str) -> None:
    if precision not in PRECISIONS:
        raise EngineError("unknown precision", found=precision, allowed=", ".join((*PRECISIONS, "best")))


def _require_file(source: str, precision: str, in_bundle: tuple[str, ...]) -> None:
    if source in in_bundle:
        return
    raise EngineError(
        f"this bundle has no {precision} model",
        found=", ".join(in_bundle),
        fix=f"`toolkit.export({VARIANTS[precision].export_options})`",
    )


def _best(tensorrt: TensorRT, in_bundle: tuple[str, ...], reasons: list[str]) -> str:
    """INT8 where it fuses. TensorRT-RTX writes Float behind every INT8 convolution, with a kernel to requantize."""
    order = ("fp16", "int8", "fp32") if tensorrt.kind == NEEDS_NO_GPU else ("int8", "fp16", "fp32")
    chosen = next(precision for precision in order if precision in in_bundle)
    why = "it does not fuse INT8 convolutions" if tensorrt.kind == NEEDS_NO_GPU else "it fuses INT8 convolutions"
    reasons.append(
        f"best is {chosen} of {', '.join(in_bundle)}: {tensorrt.name}, and {why}; `toolkit.bench` measures it"
    )
    return chosen


def _source(precision: str, strong: bool, in_bundle: tuple[str, ...], reasons: list[str]) -> str:
    """INT8 has two files: FP16 scales and layers where types are in the file, float32 scales for TensorRT 8."""
    if precision != "int8":
        return precision
    if strong and "int8-fp16" in in_bundle:
        reasons.append("model.int8-fp16.onnx: what is not INT8 runs in FP16 there")
        return "int8-fp16"
    if strong:
        reasons.append("model.int8.onnx: the bundle has no int8-fp16 file, so what is not INT8 runs in FP32")
    else:
        reasons.append("model.int8.onnx: TensorRT 8 wants float32 scales")
    return "int8"
