"""Joins a bundle's files with documents of verify and bench, saved or measured now, into a report's evidence."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from toolkit.documents import Document
from toolkit.errors import ToolkitError

Read = TypeVar("Read", bound=Document)

if TYPE_CHECKING:
    from toolkit.benchmarking.result import Benchmark
    from toolkit.bundle.reading import Bundle
    from toolkit.calibration.record import Record
    from toolkit.contracts import UInt8
    from toolkit.quantization.sensitivity import Sensitivities
    from toolkit.verification.result import Verification


def document_from_file(path: Path, kind: type[Read], command: str) -> Read:
    """What a command printed: the last line of its stdout, or that document alone.

    Raises:
        ToolkitError: the file cannot be read, is no such document, or the command had failed.
    """
    from toolkit.files import from_json, os_errors

    with os_errors(path, "read"):
        text = path.read_text(encoding="utf-8", errors="replace").strip()
    last = text if text.startswith("{") else "".join(text.splitlines()[-1:])
    fix = f"toolkit {command} > {path.name}"
    try:
        document = from_json(last)
    except ValueError as error:
        raise ToolkitError(f"{path} is not a document of toolkit {command}", found=error, fix=fix) from error
    return kind.from_dict(document, str(path), fix=fix)


def sensitivity_of_model(path: Path | None, bundle: Bundle) -> Sensitivities | None:
    """A document of toolkit sensitivity for the bundle's network; without `path` what the workspace has, if it fits.

    Raises:
        ToolkitError: `path` belongs to another calibration.
    """
    from toolkit.quantization.sensitivity import Sensitivities
    from toolkit.workspace import workspace

    lying = workspace() / "calibration" / f"{bundle.model}.sensitivity" / "sensitivity.json"
    if path is None and not lying.is_file():
        return None
    found = document_from_file(path or lying, Sensitivities, "sensitivity")
    key = (bundle.manifest.get("calibration") or {}).get("key")
    if found.key == key:
        return found
    if path is None:
        return None  # of another calibration of this model: it says nothing about this bundle
    raise ToolkitError(
        f"{path} was measured with another calibration than this bundle's",
        found=f"key {found.key}",
        allowed=f"key {key}",
        fix=f"toolkit sensitivity {bundle.model}",
    )


@dataclass(frozen=True)
class Judged:
    """The images that a document of verify judged, uint8 (N, H, W, C) in its order, and the options that draw them."""

    pixels_nhwc: UInt8
    options: str


def judged_images(bundle: Bundle, verified: Verification, data: str | None, images: int | None) -> Judged | None:
    """Draws the images that a document of verify judged again; None where they are not at hand.

    Raises:
        ToolkitError: `data` or `images` was given, and the document judged others.
    """
    from toolkit.verification.images import evaluation_images

    wanted = verified.images
    asked = data is not None or images is not None
    for count in (images,) if images is not None else (None, wanted.count):
        try:
            found = evaluation_images(bundle, data, count)
        except ToolkitError:
            if asked:
                raise
            continue  # the images have gone, or were never here: the page says so
        if found.sha256 == wanted.sha256:
            return Judged(found.images_nhwc, _options(data, count))
    if not asked:
        return None
    raise ToolkitError(
        "these are not the images that toolkit verify judged",
        found=_options(data, images),
        allowed=f"{wanted.count} images of {wanted.source}, sha256 {wanted.sha256}",
        fix="the same --data and --images as for toolkit verify",
    )


def _options(data: str | None, images: int | None) -> str:
    """As they are typed."""
    parts = [f"--data {shlex.quote(data)}"] if data is not None else []
    return " ".join([*parts, *([f"--images {images}"] if images is not None else [])])


def sidecars_of(bundle: Bundle) -> dict[str, dict[str, Any]]:
    """Each engine's JSON sidecar, by the engine's file."""
    from toolkit.errors import EngineError
    from toolkit.files import json_object
    from toolkit.runtime.trt.sidecar import Sidecar

    found = {}
    for engine in bundle.engines():
        name = str(engine["file"])
        content = bundle.files.content(f"{name}.json")
        found[name] = json_object(content, EngineError)
        rebuild = f"toolkit build {bundle.folder}"
        Sidecar.from_dict(found[name], str(content.path), error=EngineError, fix=rebuild)
    return found


def record_of(bundle: Bundle) -> Record | None:
    """The calibration record, checked; None where the bundle has none."""
    from toolkit.calibration.record import RECORD, record_from_content

    return record_from_content(bundle.files.content(RECORD)) if RECORD in bundle.files else None


def verified_now(bundle: Bundle, data: str | None, images: int | None, gate: float | None) -> Verification:
    """What toolkit verify would find."""
    from toolkit.cli.console import steps
    from toolkit.verification.verify import GATE, verify

    with steps() as step:
        return verify(bundle, data=data, images=images, gate=GATE if gate is None else gate, on_step=step)


def benched_now(bundle: Bundle) -> Benchmark:
    """What toolkit bench would find."""
    from toolkit.benchmarking.bench import bench
    from toolkit.cli.console import steps

    with steps() as step:
        return bench(bundle, on_progress=lambda done, total: step("measure", done, total))
