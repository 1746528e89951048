"""What one device needs of a bundle: some precisions, the engines of some targets, and a manifest that says so."""

from __future__ import annotations

from typing import Any

from toolkit.bundle.manifest import VARIANTS
from toolkit.bundle.reading import Bundle, names_of
from toolkit.bundle.sealing import manifest_text
from toolkit.errors import EngineError, ToolkitError
from toolkit.target import target_from_name


def stripped_manifest(bundle: Bundle, only: str) -> dict[str, Any]:
    """The manifest of the part that `only` names; its `stripped` entry says what it is a part of.

    Names of precisions keep their ONNX files ("int8" also the int8-fp16 file, which TensorRT 10 and later build from)
    and engines; names of targets keep the engines that were built for them. Without the one kind of name, all of that
    kind stay. Golden vectors, calibration cache and record always stay.

    Raises:
        ToolkitError: a name that is neither, or nothing would be left.
    """
    names = names_of(only)
    targets = tuple(name for name in names if name not in VARIANTS)
    for target in targets:
        _require_target(target, bundle, names)
    # `toolkit build --precision int8` takes one or the other of two files, as the device's TensorRT wants it.
    wanted = {v.name for v in VARIANTS.values() if v.name in names or (v.for_tensorrt and v.precision in names)}
    precisions = tuple(p for p in bundle.precisions if not wanted or p in wanted)
    if not precisions or not names:
        raise ToolkitError(
            "`only=` leaves nothing of this bundle", found=only, allowed=", ".join(bundle.precisions) + ", and targets"
        )
    engines = [
        entry
        for entry in bundle.engines()
        if entry["precision"] in precisions and (not targets or entry.get("target") in targets)
    ]
    return _manifest_of(bundle, names, precisions, engines)


def _manifest_of(
    bundle: Bundle, names: tuple[str, ...], precisions: tuple[str, ...], engines: list[dict[str, Any]]
) -> dict[str, Any]:
    gone = {VARIANTS[p].file for p in bundle.precisions if p not in precisions}
    for entry in bundle.engines():
        if entry not in engines:
            gone |= {name for name in bundle.manifest["files"] if name.startswith(entry["file"])}  # its sidecar, too
    manifest = bundle.manifest
    return {
        **manifest,
        "files": {name: entry for name, entry in manifest["files"].items() if name not in gone},
        "engines": engines,
        "accuracy": {p: found for p, found in manifest.get("accuracy", {}).items() if p in precisions},
        "stripped": {
            "only": list(names),
            "without": sorted(gone & manifest["files"].keys()),
            "of_manifest_sha256": bundle.manifest_sha256,
        },
    }


def _require_target(name: str, bundle: Bundle, names: tuple[str, ...]) -> None:
    """A target whose engines are here, or one that is known, so that a bundle without engines can go to its device."""
    if any(entry.get("target") == name for entry in bundle.engines()):
        return
    try:
        target_from_name(name)
    except EngineError as error:
        raise ToolkitError(
            f"`only=` names neither a precision nor a target: {name}",
            found=", ".join(names),
            allowed=f"{', '.join(VARIANTS)}; {error.allowed}",
        ) from error


def manifest_bytes(bundle: Bundle, only: str | None) -> bytes:
    """The manifest to pack: as it stands, or stripped."""
    if only is None:
        return bundle.manifest_content.data
    return manifest_text(stripped_manifest(bundle, only)).encode()
