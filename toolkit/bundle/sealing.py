"""What must hold before a manifest is believed: its form, its own digest, its names, and what it must list.

The digest is over the manifest's values, so that a bit that flipped anywhere in it is seen, in a folder as in a tar. It
guards against damage, not against somebody: who can write a manifest can write its digest. Signatures are for that.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from toolkit.bundle.entries import Manifest
from toolkit.bundle.manifest import FORMAT, VARIANTS, WITHOUT_DIGEST
from toolkit.errors import BundleError, ToolkitError
from toolkit.lazy import requirement
from toolkit.storage.files import Content, json_object, json_text
from toolkit.storage.limits import BUNDLE_FILES
from toolkit.workspace import MANIFEST, require_name

DIGEST = "digest"
AGAIN = "copy the bundle again, or export again"


def manifest_text(manifest: dict[str, Any]) -> str:
    """`manifest.json` of a manifest, in this version's format and with its digest."""
    rest = {key: value for key, value in manifest.items() if key not in ("format", DIGEST)}
    return json_text({"format": FORMAT, DIGEST: digest_of({"format": FORMAT, **rest}), **rest})


def digest_of(manifest: dict[str, Any]) -> str:
    """Hex sha256 of a manifest without its digest: JSON with sorted keys, no white space, all but ASCII escaped."""
    values = {key: value for key, value in manifest.items() if key != DIGEST}
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def manifest_of(content: Content, bundle: Path) -> dict[str, Any]:
    """The manifest in some bytes.

    Args:
        bundle: the folder or the tar that it is in.

    Raises:
        BundleError: see `require_manifest`.
    """
    manifest = json_object(content, BundleError)
    require_manifest(manifest, bundle)
    return manifest


def require_manifest(manifest: dict[str, Any], bundle: Path) -> None:
    """Refuses a manifest that a later version wrote, that was damaged, or that cannot be one.

    Raises:
        BundleError: names the entry, what is there and what must be.
    """
    if type(manifest.get("format")) is not int or manifest["format"] not in (WITHOUT_DIGEST, FORMAT):
        raise BundleError(
            f"{bundle} has a bundle format that this version cannot read",
            found=manifest.get("format"),
            allowed=f"{WITHOUT_DIGEST} or {FORMAT}",
            fix=f"pip install -U {requirement()}",
        )
    what = f"{MANIFEST} of {bundle}"
    _require_digest(manifest, what)
    Manifest.from_dict(manifest, what, error=BundleError, fix=AGAIN)
    logits = (manifest.get("output", {}).get("shape") or [len(manifest["labels"])])[-1]
    if not manifest["labels"] or logits != len(manifest["labels"]):
        raise BundleError(
            f"{what} has another number of labels than logits",
            found=f"{len(manifest['labels'])} labels",
            allowed=logits,
        )
    try:
        require_name(manifest["model"]["name"])
    except ToolkitError as error:
        raise BundleError(f"{what}: the model's name is none", found=error.found, allowed=error.allowed) from error
    _require_files(manifest, what)


def require_member(name: str, what: str) -> None:
    """Refuses a name that would leave a bundle's folder or means another file on another system."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or re.search(r"[\\:\x00-\x1f]", name) or name == MANIFEST:
        raise BundleError(f"{what} names a file that a bundle cannot hold", found=repr(name))


def _require_digest(manifest: dict[str, Any], what: str) -> None:
    """Manifests of the first format have none, and are taken without; one that is there is checked."""
    if manifest["format"] == WITHOUT_DIGEST and DIGEST not in manifest:
        return
    wanted = digest_of(manifest)
    if manifest.get(DIGEST) != wanted:
        raise BundleError(
            f"{what} changed since the bundle was written",
            found=f"digest {manifest.get(DIGEST)}",
            allowed=wanted,
            fix=AGAIN,
        )


def _require_files(manifest: dict[str, Any], what: str) -> None:
    """Plain names, a model, and every engine with its sidecar among the files, so that a hash binds it."""
    files = manifest["files"]
    if len(files) > BUNDLE_FILES:
        raise BundleError(f"{what} lists too many files", found=f"{len(files):,}", allowed=f"{BUNDLE_FILES:,}")
    for name in files:
        require_member(name, what)
    needed = (VARIANTS["fp32"].file,) if "stripped" not in manifest else tuple(v.file for v in VARIANTS.values())
    if not any(name in files for name in needed):
        raise BundleError(f"{what} lists no model", found=f"no {' or '.join(needed)}", fix=AGAIN)
    for entry in manifest.get("engines", []):
        missing = [name for name in (entry["file"], f"{entry['file']}.json") if name not in files]
        if missing:
            raise BundleError(
                f"{what} names an engine that is bound by no hash",
                found=f"{missing[0]!r} is not among its files",
                fix="`toolkit.build(BUNDLE)`",
            )
