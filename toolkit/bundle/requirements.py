"""What a bundle must be signed with: by who opens it, and by the workspace's `toolkit.toml`, everywhere one is read.

A folder is known as signed by what `toolkit bundle unpack` left in it: the signature and the manifest that was signed.
Engines that were built since are nobody's but this machine's, so they are taken only from a folder in which nobody
else may write, as the cache is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from toolkit.bundle.manifest import SIGNATURE, SIGNED_MANIFEST
from toolkit.bundle.sealing import DIGEST, manifest_of
from toolkit.bundle.signing import MOST_VERSION, Signed, require_signature, require_signed_manifest
from toolkit.errors import BundleError, ToolkitError
from toolkit.storage.files import Content, content_of, read_toml
from toolkit.storage.limits import KEY_BYTES, MANIFEST_BYTES
from toolkit.workspace import MANIFEST, workspace

SETTINGS = "toolkit.toml"
ALLOWED = 'require_signature = "vendor.pub" and min_version = 3'
WRITE_FOR_OTHERS = 0o022


@dataclass(frozen=True)
class Requirement:
    """Keys that must all have signed a bundle, and the least version that their signatures may say."""

    keys: tuple[Path, ...] = ()
    min_version: int = 0

    def of_any_version(self) -> Requirement:
        """The same keys, for a bundle that another one is compared with."""
        return replace(self, min_version=0)

    def require_tar(self, tar: Content) -> Signed | None:
        """Refuses a tar that is not signed so; nothing in it is looked at.

        Raises:
            BundleError: not signed with these keys, or an older version.
        """
        return self._require(tar.path, (require_signature(tar, key) for key in self.keys))

    def require_folder(self, folder: Path, manifest: Content) -> Signed | None:
        """Refuses a folder whose manifest is not signed so, but for engines that were built here.

        Raises:
            BundleError: not unpacked from a tar that is signed with these keys, changed since, an older version, or
                with engines of its own in a folder that others may write to.
        """
        if not self.keys:
            return None
        if not (folder / SIGNATURE).is_file():
            raise BundleError(
                f"{folder} is not signed",
                found=f"no {SIGNATURE} in it",
                allowed="a tar with its signature, or the folder that such a tar was unpacked to",
                fix=f"pack the folder {folder}, then sign the tar",
            )
        signature = content_of(folder / SIGNATURE, KEY_BYTES, BundleError)
        signed = content_of(folder / SIGNED_MANIFEST, MANIFEST_BYTES, BundleError)
        said = self._require(folder, (require_signed_manifest(signature, signed, key) for key in self.keys))
        if manifest.data != signed.data:
            _require_only_engines_differ(folder, manifest_of(manifest, folder), manifest_of(signed, folder))
        return said

    def _require(self, bundle: Path, found: Iterator[Signed]) -> Signed | None:
        said = list(found)
        oldest = min((one.version for one in said), default=self.min_version)
        if oldest < self.min_version:
            raise BundleError(
                f"{bundle} is older than it may be",
                found=f"version {oldest}" if oldest else "a signature that says no version",
                allowed=f"{self.min_version} and up",
                fix=f"get the newer one from its source, who types: sign the tar `version={self.min_version}`",
            )
        return said[0] if said else None


NOTHING = Requirement()


def requirement(key: str | os.PathLike[str] | None = None, min_version: int | None = None) -> Requirement:
    """What is asked for here, and what `toolkit.toml` of the workspace asks of everybody.

    Raises:
        ToolkitError: a version without a key, or a file that says anything else.
    """
    path = workspace() / SETTINGS
    asked = _settings(path) if path.exists() else {}
    theirs = [path.parent / asked["require_signature"]] if "require_signature" in asked else []
    keys = tuple(dict.fromkeys([*theirs, *([] if key is None else [Path(key)])]))
    least = max(asked.get("min_version", 0), min_version or 0)
    if least and not keys:
        raise ToolkitError(
            "a version counts for nothing unless a key has signed it", found="`min_version=` alone", fix="add `key=`"
        )
    return Requirement(keys, least)


def _settings(path: Path) -> dict[str, Any]:
    """A slip of the pen in this file must not mean that nothing is asked for."""
    asked = read_toml(path, ToolkitError, ALLOWED)
    kinds = {"require_signature": str, "min_version": int}
    for name, value in asked.items():
        if name not in kinds or type(value) is not kinds[name]:
            raise ToolkitError(
                f"{path} says what this version does not know", found=f"{name} = {value!r}", allowed=ALLOWED
            )
    if not 0 <= asked.get("min_version", 0) <= MOST_VERSION:
        raise ToolkitError(
            f"{path}: min_version is no version", found=asked["min_version"], allowed=f"0 to {MOST_VERSION}"
        )
    return asked


def _require_only_engines_differ(folder: Path, now: dict[str, Any], signed: dict[str, Any]) -> None:
    if _without_engines(now) != _without_engines(signed):
        raise BundleError(
            f"{folder} is not what was signed",
            found=f"a {MANIFEST} that differs in more than engines",
            fix="unpack the signed tar again",
        )
    names = [MANIFEST, *(entry["file"] for entry in now.get("engines", []))]
    for path in dict.fromkeys([folder, *(part for name in names for part in (folder / name, (folder / name).parent))]):
        found = path.stat()
        if hasattr(os, "geteuid") and (found.st_uid not in (0, os.geteuid()) or found.st_mode & WRITE_FOR_OTHERS):
            raise BundleError(
                f"{path} may be written by others, and engines in it that nobody signed are run",
                found=f"mode {found.st_mode & 0o777:o}, user {found.st_uid}",
                fix=f"unpack and build again in a folder of your own; chmod -R go-w {folder}",
            )


def _without_engines(manifest: dict[str, Any]) -> dict[str, Any]:
    engines = {name for entry in manifest.get("engines", []) for name in (entry["file"], f"{entry['file']}.json")}
    files = {name: entry for name, entry in manifest["files"].items() if name not in engines}
    return {
        **{key: value for key, value in manifest.items() if key not in (DIGEST, "engines", "format")},
        "files": files,
    }
