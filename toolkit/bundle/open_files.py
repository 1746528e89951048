"""A bundle's files, opened once: whatever happens to their names later, the bytes used are those of the manifest."""

from __future__ import annotations

import hashlib
import os
import weakref
from pathlib import Path
from typing import Any

from toolkit.bundle.onnx_bytes import require_self_contained
from toolkit.errors import BundleError, ToolkitError
from toolkit.storage.files import Content, open_regular, os_errors, require_size
from toolkit.storage.limits import FILE_BYTES

CHUNK = 1 << 20
AGAIN = "copy the bundle again, or export again"


class OpenFiles:
    """Descriptors of every file that a manifest names, each hashed when it was opened; closed with the object.

    A file that is replaced or removed afterwards is still the one that was opened. One that is written into is noticed:
    what `content` returns was hashed itself.

    Args:
        folder: what people read; entries: of the manifest, by name; inside: the folder's descriptor.

    Raises:
        BundleError: a file is missing, or not the one of the manifest. ToolkitError: one cannot be read.
    """

    def __init__(self, folder: Path, entries: dict[str, dict[str, Any]], inside: int) -> None:
        self.folder, self._entries = folder, entries
        self._handles: dict[str, int] = {}
        self._close = weakref.finalize(self, _close_all, self._handles)
        for name in entries:
            self._open(name, inside)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def path(self, name: str) -> Path:
        """Where it lies, for what people read; not to be opened."""
        return self.folder / name

    def content(self, name: str) -> Content:
        """A file's bytes, which have the manifest's hash.

        Raises:
            BundleError: the manifest names no such file, or it changed.
        """
        if name not in self._entries:
            raise BundleError(f"{self.folder} holds no {name}", found=f"{len(self._entries)} other files", fix=AGAIN)
        with os_errors(self.path(name), "read"):
            content = Content(self.path(name), _all_of(self._handles[name], int(self._entries[name]["bytes"])))
        self._require_hash(name, content.sha256)
        return content

    def _open(self, name: str, inside: int) -> None:
        path, entry = self.path(name), self._entries[name]
        try:
            with os_errors(path, "read"), open_regular(path, BundleError, (inside, name)) as stream:
                self._handles[name] = os.dup(stream.fileno())
                size = os.fstat(stream.fileno()).st_size
        except ToolkitError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise BundleError(f"{self.folder} is incomplete", found=f"no {name}", fix=AGAIN) from error
            raise
        require_size(path, size, FILE_BYTES, BundleError)
        if size != entry["bytes"]:
            self._changed(name, f"{size:,} bytes", f"{entry['bytes']:,}")
        if name.endswith(".onnx"):
            require_self_contained(self.content(name))
        else:
            with os_errors(path, "read"):
                self._require_hash(name, _sha256_of(self._handles[name]))

    def _require_hash(self, name: str, digest: str) -> None:
        if digest != self._entries[name]["sha256"]:
            self._changed(name, f"sha256 {digest}", self._entries[name]["sha256"])

    def _changed(self, name: str, found: str, allowed: str) -> None:
        raise BundleError(
            f"{self.path(name)} changed since the bundle was written", found=found, allowed=allowed, fix=AGAIN
        )


def _all_of(handle: int, size: int) -> bytes:
    """The first bytes of a file, one more than it should have, so that a longer one is another one."""
    parts, at = [], 0
    while at <= size and (chunk := os.pread(handle, size + 1 - at, at)):
        parts.append(chunk)
        at += len(chunk)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _sha256_of(handle: int) -> str:
    digest, at = hashlib.sha256(), 0
    while chunk := os.pread(handle, CHUNK, at):
        digest.update(chunk)
        at += len(chunk)
    return digest.hexdigest()


def _close_all(handles: dict[str, int]) -> None:
    for handle in handles.values():
        os.close(handle)
    handles.clear()
