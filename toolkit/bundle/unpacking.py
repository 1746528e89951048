"""A packed bundle as a folder again: where somebody wants it, or in a cache for a program that opens the tar."""

from __future__ import annotations

import shutil
from pathlib import Path

from toolkit.bundle.packing import Packed, files_of_tar, packed_from_tar
from toolkit.errors import BundleError, ToolkitError
from toolkit.storage.cache import private_folder, temporary_folder
from toolkit.storage.folders import folder_replaced
from toolkit.workspace import MANIFEST


def unpack(tar: Path, target: Path, key: Path | None = None) -> Packed:
    """Every file of a tar in `target`, or nothing of it; an older bundle there is replaced.

    Args:
        key: a public key; the tar's signature is checked with it before anything in the tar is looked at.

    Raises:
        BundleError: not signed with that key, or not a whole packed bundle. ToolkitError: `target` cannot be written.
    """
    packed = packed_from_tar(tar, key)
    _unpack(packed, target)
    return packed


def folder_in_cache(packed: Packed, again: bool = False) -> Path:
    """A folder with the files of a tar, kept for later calls under the sha256 of the tar's bytes.

    It lies in `toolkit.workspace.cache_folder`; where that cannot be written, in a temporary folder that goes with the
    process. Whoever opens the folder checks every hash against the manifest of the tar.

    Args:
        again: unpack it even if it is there, because it was damaged.
    """
    folder = private_folder() / packed.content.sha256
    manifest = folder / MANIFEST
    if again or not manifest.is_file() or manifest.read_bytes() != packed.manifest_content.data:
        _clear_wreck(folder)
        try:
            _unpack(packed, folder)
        except BundleError:
            raise
        except ToolkitError:  # a cache on a full disk
            folder = temporary_folder() / packed.content.sha256
            _unpack(packed, folder)
    return folder


def _unpack(packed: Packed, target: Path) -> None:
    with folder_replaced(target, owned_by=MANIFEST) as fresh:
        for name, data in files_of_tar(packed):
            path = fresh / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as stream:
                stream.write(data)
        (fresh / MANIFEST).write_bytes(packed.manifest_content.data)


def _clear_wreck(folder: Path) -> None:
    """Takes away what stands in the cache in a bundle's place and is none, and so would never be replaced."""
    if folder.is_symlink() or folder.is_file():
        folder.unlink(missing_ok=True)
    elif folder.is_dir() and not (folder / MANIFEST).is_file():
        shutil.rmtree(folder, ignore_errors=True)
