"""A packed bundle as a folder again: where somebody wants it, or in a cache for a program that opens the tar."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from toolkit.bundle.manifest import SIGNATURE, SIGNED_MANIFEST, OldBundle, old_bundle
from toolkit.bundle.packing import Packed, files_of_tar, packed_from_tar
from toolkit.bundle.requirements import NOTHING, Requirement
from toolkit.bundle.signing import RAW_BYTES, signature_path
from toolkit.errors import BundleError, ToolkitError
from toolkit.storage.cache import private_folder, temporary_folder
from toolkit.storage.files import content_of
from toolkit.storage.folders import folder_replaced
from toolkit.storage.limits import KEY_BYTES
from toolkit.workspace import MANIFEST


def unpack(tar: Path, target: Path, wanted: Requirement = NOTHING) -> Packed:
    """Every file of a tar in `target`, or nothing of it; an older bundle of the model there is replaced.

    The signature beside the tar goes with it, so that the folder can be asked for it as well.

    Args:
        wanted: whose signature it must have; that is checked before anything in the tar is looked at.

    Raises:
        BundleError: not signed so, or not a whole packed bundle. ToolkitError: `target` cannot be written, or is
            another model's.
    """
    packed = packed_from_tar(tar, wanted)
    _unpack(packed, target, _signature_of(packed), old_bundle(target, packed.manifest["model"]["name"]))
    return packed


def folder_in_cache(packed: Packed, again: bool = False) -> Path:
    """A folder with the files of a tar, kept for later calls under the sha256 of the tar's bytes.

    It lies in `toolkit.storage.cache.private_folder`; where that cannot be written, in a temporary folder that goes
    with the process. Whoever opens the folder checks every hash against the manifest of the tar.

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


def _signature_of(packed: Packed) -> dict[str, bytes]:
    """What makes a folder known as signed; nothing where the tar is not, or as the first format did it."""
    path = signature_path(packed.path)
    signature = content_of(path, KEY_BYTES, BundleError).data if path.is_file() else b""
    if len(signature) <= RAW_BYTES:
        return {}
    return {SIGNATURE: signature, SIGNED_MANIFEST: packed.manifest_content.data}


def _unpack(
    packed: Packed, target: Path, beside: Mapping[str, bytes] = MappingProxyType({}), old: OldBundle | None = None
) -> None:
    with folder_replaced(target, MANIFEST, None if old is None else old.own) as fresh:
        for name, data in files_of_tar(packed):
            path = fresh / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as stream:
                stream.write(data)
        for name, content in {MANIFEST: packed.manifest_content.data, **beside}.items():
            (fresh / name).write_bytes(content)


def _clear_wreck(folder: Path) -> None:
    """Takes away what stands in the cache in a bundle's place and is none, and so would never be replaced."""
    if folder.is_symlink() or folder.is_file():
        folder.unlink(missing_ok=True)
    elif folder.is_dir() and not (folder / MANIFEST).is_file():
        shutil.rmtree(folder, ignore_errors=True)
