"""A packed bundle as a folder again: where somebody wants it, or in a cache for a program that opens the tar."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from toolkit.bundle.packing import Packed, files_of_tar, packed_from_tar
from toolkit.bundle.reading import require_manifest
from toolkit.bundle.signing import require_signature
from toolkit.files import sha256_of_file
from toolkit.folders import folder_replaced, make_private
from toolkit.workspace import MANIFEST, cache_folder


def unpack(tar: Path, target: Path, key: Path | None = None) -> Packed:
    """Every file of a tar in `target`, or nothing of it; an older bundle there is replaced.

    Args:
        key: a public key; the tar's signature is checked with it before anything in the tar is read.

    Raises:
        BundleError: not signed with that key, or not a whole packed bundle. ToolkitError: `target` cannot be written.
    """
    if key is not None:
        require_signature(tar, key)
    packed = packed_from_tar(tar)
    require_manifest(packed.manifest, tar)
    with folder_replaced(target, owned_by=MANIFEST) as fresh:
        _write(packed, fresh)
    return packed


def folder_in_cache(tar: Path, again: bool = False) -> Path:
    """A folder with the files of a tar, kept for later calls under the sha256 of the tar's bytes.

    It lies in `toolkit.workspace.cache_folder`; where that cannot be written, in a temporary folder that goes with the
    process. Whoever opens the folder checks every hash, and the manifest is compared here.

    Args:
        again: unpack it even if it is there, because it was damaged.
    """
    packed = packed_from_tar(tar)
    root = _private_folder()
    if root is None:
        root = Path(tempfile.mkdtemp(prefix="toolkit-"))
        atexit.register(shutil.rmtree, root, ignore_errors=True)
    folder = root / sha256_of_file(tar)
    manifest = folder / MANIFEST
    if again or not manifest.is_file() or manifest.read_bytes() != packed.manifest_bytes:
        _clear_wreck(folder)
        unpack(tar, folder)
    return folder


def _clear_wreck(folder: Path) -> None:
    """Takes away what stands in the cache in a bundle's place and is none, and so would never be replaced."""
    if folder.is_symlink() or folder.is_file():
        folder.unlink(missing_ok=True)
    elif folder.is_dir() and not (folder / MANIFEST).is_file():
        shutil.rmtree(folder, ignore_errors=True)


def _write(packed: Packed, folder: Path) -> None:
    for name, content in files_of_tar(packed):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as stream:
            for chunk in content:
                stream.write(chunk)
    (folder / MANIFEST).write_bytes(packed.manifest_bytes)


def _private_folder() -> Path | None:
    """The cache, if it is this user's own and can be written."""
    folder = cache_folder()
    try:
        make_private(folder)
        mine = not hasattr(os, "geteuid") or folder.stat().st_uid == os.geteuid()
    except OSError:
        return None
    return folder if mine and os.access(folder, os.W_OK | os.X_OK) else None
