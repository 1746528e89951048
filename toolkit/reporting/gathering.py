"""What a report is made of: a bundle's files, and documents of verify and bench, saved or measured now."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from toolkit.benchmarking.bench import bench
from toolkit.benchmarking.result import Benchmark
from toolkit.bundle.manifest import VARIANTS
from toolkit.bundle.reading import Bundle
from toolkit.calibration.record import RECORD, Record, record_from_content
from toolkit.contracts import UInt8
from toolkit.errors import EngineError, ToolkitError
from toolkit.quantization.sensitivity import Sensitivities
from toolkit.reporting.words import options_that_draw
from toolkit.runtime.trt.sidecar import Sidecar
from toolkit.storage.documents import Document, named
from toolkit.storage.files import from_json, json_object, os_errors
from toolkit.verification.images import evaluation_images
from toolkit.verification.result import Verification
from toolkit.verification.verify import GATE, verify
from toolkit.workspace import workspace

Read = TypeVar("Read", bound=Document)
PathLike = str | os.PathLike[str]
Step = Callable[[str, int, int], None]
# By the class of a document: what measures it again.
AGAIN = {
    Verification: "verify it again into",
    Benchmark: "bench it again into",
    Sensitivities: "measure what each layer costs into",
}


def read_or_given(value: Read | PathLike | None, kind: type[Read]) -> Read | None:
    """A document as a value, or from a file that holds one."""
    return value if value is None or isinstance(value, kind) else document_from_file(Path(os.fspath(value)), kind)  # type: ignore[arg-type]


def document_from_file(path: Path, kind: type[Read]) -> Read:
    """A document alone, or what a command printed: the last line of its stdout.

    Raises:
        ToolkitError: the file cannot be read, is no such document, or the command had failed.
    """
    with os_errors(path, "read"):
        text = path.read_text(encoding="utf-8", errors="replace").strip()
    last = text if text.startswith("{") else "".join(text.splitlines()[-1:])
    fix = f"{AGAIN[kind]} {path.name}"
    try:
        document = from_json(last)
    except ValueError as error:
        raise ToolkitError(f"{path} is not a document of {named(kind.SCHEMA)}", found=error, fix=fix) from error
    return kind.from_dict(document, str(path), fix=fix)


def sensitivity_of_model(given: Sensitivities | PathLike | None, bundle: Bundle) -> Sensitivities | None:
    """What INT8 costs in each layer of the bundle's network; where nothing is given what the workspace has, if it fits.

    Raises:
        ToolkitError: what is given belongs to another calibration.
    """
    key = (bundle.manifest.get("calibration") or {}).get("key")
    if given is None:
        lying = (document_from_file(path, Sensitivities) for path in _lying(bundle) if path.is_file())
        return next((found for found in lying if found.key == key), None)  # others are of another calibration
    found = read_or_given(given, Sensitivities)
    assert found is not None
    if found.key == key:
        return found
    what = "this sensitivity" if isinstance(given, Sensitivities) else os.fspath(given)
    raise ToolkitError(
        f"{what} was measured with another calibration than this bundle's",
        found=f"key {found.key}",
        allowed=f"key {key}",
        fix=f"measure what each layer costs {bundle.model}",
    )


def _lying(bundle: Bundle) -> list[Path]:
    """Where it is left: under the model's name, or under that of the bundle's file, for a network of one's own."""
    names = (bundle.model, Path(VARIANTS["fp32"].file).stem)
    return [workspace() / "calibration" / f"{name}.sensitivity" / "sensitivity.json" for name in names]


@dataclass(frozen=True)
class Asked:
    """Which images judge, in the words of `toolkit.verify`."""

    data: str | None = None
    sample: int | None = None
    convert: bool = False
    skip_bad: bool = False
    resize: str | None = None

    @property
    def reading(self) -> dict[str, Any]:
        """How they are read, as `toolkit.verify` takes it."""
        return {"convert": self.convert or self.resize is not None, "skip_bad": self.skip_bad, "resize": self.resize}


@dataclass(frozen=True)
class Judged:
    """The images that a document of verify judged, uint8 (N, H, W, C) in its order, and the options that draw them."""

    pixels_nhwc: UInt8
    options: str


def judged_images(bundle: Bundle, verified: Verification, asked: Asked) -> Judged | None:
    """Draws the images that a document of verify judged again; None where they are not at hand.

    Raises:
        ToolkitError: `data` or `sample` was given, and the document judged others.
    """
    wanted = verified.images
    told = asked.data is not None or asked.sample is not None
    for count in (asked.sample,) if asked.sample is not None else (None, wanted.count):
        try:
            found = evaluation_images(bundle, asked.data, count, **asked.reading)
        except ToolkitError:
            if told:
                raise
            continue  # the images have gone, or were never here: the page says so
        if found.sha256 == wanted.sha256:
            return Judged(found.images_nhwc, options_that_draw(asked.data, count, asked.reading))
    if not told:
        return None
    raise ToolkitError(
        "these are not the images that `toolkit.verify` judged",
        found=f"`data={asked.data!r}, sample={asked.sample}`",
        allowed=f"{wanted.count} images of {wanted.source}, sha256 {wanted.sha256}",
        fix="the same `data=` and `sample=` as for `toolkit.verify`",
    )


def sidecars_of(bundle: Bundle) -> dict[str, dict[str, Any]]:
    """Each engine's JSON sidecar, by the engine's file."""
    found = {}
    for engine in bundle.engines():
        name = str(engine["file"])
        content = bundle.files.content(f"{name}.json")
        found[name] = json_object(content, EngineError)
        rebuild = f"`toolkit.build({str(bundle.folder)!r})`"
        Sidecar.from_dict(found[name], str(content.path), error=EngineError, fix=rebuild)
    return found


def record_of(bundle: Bundle) -> Record | None:
    """The calibration record, checked; None where the bundle has none."""
    return record_from_content(bundle.files.content(RECORD)) if RECORD in bundle.files else None


def verified_now(bundle: Bundle, asked: Asked, gate: float | None, on_step: Step) -> Verification:
    """What `toolkit.verify` finds on every backend here."""
    gate = GATE if gate is None else gate
    return verify(bundle, data=asked.data, sample=asked.sample, gate=gate, on_step=on_step, **asked.reading)


def benched_now(bundle: Bundle, on_step: Step) -> Benchmark:
    """What `toolkit.bench` finds."""
    return bench(bundle, on_progress=lambda done, total: on_step("measure", done, total))
