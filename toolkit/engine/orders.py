"""Which engines a bundle gets: from which of its files, under which name, and what a DLA needs beside the file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from toolkit.bundle.manifest import VARIANTS
from toolkit.bundle.reading import Bundle
from toolkit.engine.dla import Dla
from toolkit.engine.resolver import Resolved, resolve, resolve_for_dla
from toolkit.files import os_errors
from toolkit.runtime.trt.module import TensorRT
from toolkit.target import Target

CALIB_CACHE = "calib.cache"  # as `toolkit.quantization.calib_cache` names it, which a device need not import


@dataclass(frozen=True)
class Order:
    """One engine to build.

    Attributes:
        source: the precision of its ONNX file, a key of `VARIANTS`.
        precision: its own; INT8 for a DLA may come from the fp32 file and `calib.cache`.
        name: of the plan in `engines/`.
    """

    source: str
    precision: str
    name: str
    dla: Dla | None = None


def resolved_for(
    bundle: Bundle, precisions: tuple[str, ...], tensorrt: TensorRT, target: Target
) -> tuple[Resolved, ...]:
    """What each precision means for this TensorRT and target, each engine once."""
    answers = []
    for precision in precisions:
        if target.dla_core is None:
            answers.append(resolve(tensorrt, precision, bundle.precisions))
        else:
            has_cache = (bundle.folder / CALIB_CACHE).is_file()
            answers.append(resolve_for_dla(tensorrt, precision, bundle.precisions, has_cache))
    return tuple({(answer.source, answer.flags): answer for answer in answers}.values())


def order_of_file(source: str) -> Order:
    """The engine of an ONNX file as it stands."""
    return Order(source, source, f"{Path(VARIANTS[source].file).stem}.engine")


def order_from_resolved(bundle: Bundle, answer: Resolved, target: Target, tensorrt: TensorRT) -> Order:
    """The engine that an answer of the resolver asks for.

    Raises:
        CalibrationError: the bundle's `calib.cache` is none.
    """
    if target.dla_core is None:
        return order_of_file(answer.source)
    cache = _calib_cache(bundle.folder / CALIB_CACHE, tensorrt) if answer.calib_cache else None
    precision = answer.precision if answer.source == "fp32" else answer.source
    name = f"model.{answer.precision}.dla{target.dla_core}.engine"
    return Order(answer.source, precision, name, Dla(target.dla_core, answer.flags, cache))


def _calib_cache(path: Path, tensorrt: TensorRT) -> bytes:
    """The bundle's ranges under the header of this TensorRT, which refuses any other version's."""
    from toolkit.quantization.calib_cache import header, scales_from_cache

    with os_errors(path, "read"):
        text = path.read_text()
    scales_from_cache(text)
    version = tuple(int(part) for part in tensorrt.version.split(".")[:3])
    return "\n".join([header(version), *text.splitlines()[1:], ""]).encode()
