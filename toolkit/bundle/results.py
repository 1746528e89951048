"""What the commands of toolkit bundle print: a tar that was written, signed, checked, shown or unpacked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from toolkit.bundle.entries import FileEntry
from toolkit.bundle.signing import Signed
from toolkit.storage.documents import Document
from toolkit.storage.hints import Count, Maybe, Sha256

Signature = Literal["signed with this key", "not signed", "signed; not checked without a key"]


@dataclass(frozen=True)
class PackedBundle(Document):
    """What toolkit bundle pack prints.

    Attributes:
        sha256: of the tar's bytes.
        only: the precisions and targets that were asked for; null for all.
    """

    SCHEMA = "toolkit/bundle-pack/1"
    ok: Literal[True]
    tar: Path
    bytes: Count
    sha256: Sha256
    only: str | None


@dataclass(frozen=True)
class UnpackedBundle(Document):
    """What toolkit bundle unpack prints.

    Attributes:
        bundle: the folder.
        files: so many, the manifest among them.
        signed: what the signature says, where it was checked.
    """

    SCHEMA = "toolkit/bundle-unpack/1"
    ok: Literal[True]
    bundle: Path
    files: Count
    signature: Signature
    signed: Maybe[Signed] = None


@dataclass(frozen=True)
class CheckedBundle(Document):
    """What toolkit bundle check prints.

    Attributes:
        bundle: the folder or tar.
        files: so many have the hashes of the manifest.
        signed: what the signature says, where it was checked.
    """

    SCHEMA = "toolkit/bundle-check/1"
    ok: Literal[True]
    bundle: Path
    files: Count
    signature: Signature
    signed: Maybe[Signed] = None


@dataclass(frozen=True)
class SignedBundle(Document):
    """What toolkit bundle sign prints.

    Attributes:
        signature: the file beside the tar.
        signed: what it says.
    """

    SCHEMA = "toolkit/bundle-sign/1"
    ok: Literal[True]
    tar: Path
    signature: Path
    signed: Maybe[Signed] = None


@dataclass(frozen=True)
class ShownBundle(Document):
    """What toolkit bundle show prints: entries of the manifest, as they stand there.

    Attributes:
        bundle: the folder or tar.
    """

    SCHEMA = "toolkit/bundle-show/1"
    ok: Literal[True]
    bundle: Path
    model: dict[str, Any]
    labels: tuple[str, ...]
    preprocessing: dict[str, Any]
    files: dict[str, FileEntry]
    engines: Maybe[tuple[dict[str, Any], ...]] = None
    accuracy: Maybe[dict[str, Any]] = None
    stripped: Maybe[dict[str, Any]] = None


def shown_bundle(bundle: Path, manifest: dict[str, Any]) -> ShownBundle:
    """Those entries of a checked manifest."""
    files = {name: FileEntry(entry["sha256"], entry["bytes"]) for name, entry in manifest["files"].items()}
    return ShownBundle(
        ok=True,
        bundle=bundle,
        model=manifest["model"],
        labels=tuple(manifest["labels"]),
        preprocessing=manifest["preprocessing"],
        files=files,
        **{name: manifest.get(name) for name in ("engines", "accuracy", "stripped")},
    )
