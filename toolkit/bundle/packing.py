"""A bundle as one `.tar`: the same files give the same bytes, and no other bytes are taken for one.

The layout is fixed: ustar, no compression, `manifest.json` first, then the manifest's files by name; owner, group and
time are zero, modes 0644. So the manifest alone says what every other byte of the headers must be, and reading is a
comparison, not a parse: links, devices, `..`, absolute or repeated names, headers of other formats and anything behind
the end differ from what packing writes, whatever they mean to a tar program. `tar tf` and `tar xf` read it as well.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from toolkit.errors import BundleError
from toolkit.files import from_json, os_errors
from toolkit.workspace import MANIFEST

SUFFIX = ".tar"
BLOCK, RECORD = 512, 20 * 512  # bytes of a header, and what an archive's size is a multiple of (POSIX ustar)
LARGEST_MANIFEST = 16 << 20  # bytes; that of the default is 15 KiB
CHUNK = 1 << 20
REPACK = "pack the folder FOLDER"


@dataclass(frozen=True)
class Packed:
    """What a tar says of itself: its manifest, the manifest's very bytes, and bytes by name in the tar's order."""

    path: Path
    manifest: dict[str, Any]
    manifest_bytes: bytes
    sizes: dict[str, int]


def tar_of_files(folder: Path, manifest: bytes) -> bytes:
    """The tar of a manifest and of the files in `folder` that it names; others stay behind.

    Raises:
        BundleError: a file is not the one of the manifest, or its name does not fit into a tar header.
    """
    parts = [_header(MANIFEST, len(manifest)), manifest, _padding(len(manifest))]
    for name, entry in sorted(json.loads(manifest)["files"].items()):
        with os_errors(folder / name, "read"):
            data = (folder / name).read_bytes()
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise BundleError(f"{folder / name} changed while it was packed", fix="pack again")
        if len(data) != entry["bytes"]:
            raise BundleError(
                f"{MANIFEST} says another size of {folder / name}",
                found=entry["bytes"],
                allowed=len(data),
                fix="export again, then pack again",
            )
        parts += [_header(name, len(data)), data, _padding(len(data))]
    return b"".join([*parts, _end(sum(map(len, parts)))])


def packed_from_tar(path: Path) -> Packed:
    """Reads the manifest of a tar, and refuses one whose size cannot be right; no file is read yet.

    Raises:
        BundleError: not a tar that `toolkit bundle pack` wrote, cut short, or with something behind its end.
    """
    with os_errors(path, "read"), path.open("rb") as stream:
        manifest_bytes = _first_member(path, stream)
        size = os.fstat(stream.fileno()).st_size
    manifest = _manifest(path, manifest_bytes)
    sizes = {name: _size(path, name, entry) for name, entry in sorted(manifest["files"].items())}
    written = sum(BLOCK + n + len(_padding(n)) for n in (len(manifest_bytes), *sizes.values()))
    wanted = written + len(_end(written))
    if size != wanted:
        raise BundleError(
            f"{path} {'was cut short' if size < wanted else 'holds more than its manifest says'}",
            found=f"{size:,} bytes",
            allowed=f"{wanted:,} bytes",
            fix="copy it again, or " + REPACK,
        )
    return Packed(path, manifest, manifest_bytes, sizes)


def files_of_tar(packed: Packed) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Each file's name and content in pieces, to be used up before the next one; hashes are checked at its end.

    Raises:
        BundleError: a header is not what packing writes, or a file is not the one of the manifest.
    """
    with os_errors(packed.path, "read"), packed.path.open("rb") as stream:
        stream.seek(BLOCK + len(packed.manifest_bytes) + len(_padding(len(packed.manifest_bytes))))
        for name, size in packed.sizes.items():
            _require_bytes(packed.path, stream, _header(name, size), f"the header of {name}")
            yield name, _checked(packed, name, _read(stream, size))
            _require_bytes(packed.path, stream, _padding(size), f"what follows {name}")
        _require_bytes(packed.path, stream, _end(stream.tell()), "its end")


def check_tar(path: Path) -> Packed:
    """Every byte of a tar against its manifest; writes nothing.

    Raises:
        BundleError: see `packed_from_tar` and `files_of_tar`.
    """
    packed = packed_from_tar(path)
    for _, content in files_of_tar(packed):
        for _chunk in content:
            pass
    return packed


def _checked(packed: Packed, name: str, content: Iterator[bytes]) -> Iterator[bytes]:
    digest = hashlib.sha256()
    for chunk in content:
        digest.update(chunk)
        yield chunk
    wanted = packed.manifest["files"][name]["sha256"]
    if digest.hexdigest() != wanted:
        raise BundleError(
            f"{name} in {packed.path} is not the file that was packed",
            found=f"sha256 {digest.hexdigest()}",
            allowed=wanted,
            fix="copy it again, or " + REPACK,
        )


def _first_member(path: Path, stream: IO[bytes]) -> bytes:
    """The manifest's bytes; its size is the only number that a header is asked for."""
    header = stream.read(BLOCK)
    size = header[124:135]
    if re.fullmatch(rb"[0-7]{11}", size) is None or header != _header(MANIFEST, int(size, 8)):
        raise BundleError(
            f"{path} is not a packed bundle",
            found=f"it does not begin with the header of {MANIFEST} that packing writes",
            fix=REPACK,
        )
    if int(size, 8) > LARGEST_MANIFEST:
        raise BundleError(
            f"{path} has a manifest that is too large", found=f"{int(size, 8):,} bytes", allowed=f"{LARGEST_MANIFEST:,}"
        )
    data = stream.read(int(size, 8))
    _require_bytes(path, stream, _padding(len(data)), f"what follows {MANIFEST}")
    return data


def _manifest(path: Path, data: bytes) -> dict[str, Any]:
    try:
        manifest = from_json(data)
    except ValueError as error:
        raise BundleError(f"{MANIFEST} in {path} is not JSON", found=error, fix="copy it again") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise BundleError(f"{MANIFEST} in {path} lists no files", fix=REPACK)
    return manifest


def _size(path: Path, name: str, entry: Any) -> int:
    """Bytes of a file that the manifest names, where name and numbers are such as a bundle can have."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or re.search(r"[\\:\x00-\x1f]", name) or name == MANIFEST:
        raise BundleError(f"{MANIFEST} in {path} names a file that a bundle cannot hold", found=repr(name))
    size = entry.get("bytes") if isinstance(entry, dict) else None
    if type(size) is not int or not 0 <= size < 8**11 or not isinstance(entry.get("sha256"), str):
        raise BundleError(f"{MANIFEST} in {path} has no size and sha256 of {name}", found=entry)
    return size


def _header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    try:
        return entry.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")
    except (ValueError, UnicodeError) as error:
        raise BundleError(f"{name!r} does not fit into a tar header", found=error, allowed="100 bytes") from error


def _padding(size: int) -> bytes:
    return bytes(-size % BLOCK)


def _end(written: int) -> bytes:
    """Two empty blocks, and as many more as make whole records."""
    return bytes(2 * BLOCK + -(written + 2 * BLOCK) % RECORD)


def _read(stream: IO[bytes], size: int) -> Iterator[bytes]:
    while size > 0 and (chunk := stream.read(min(size, CHUNK))):
        size -= len(chunk)
        yield chunk


def _require_bytes(path: Path, stream: IO[bytes], wanted: bytes, what: str) -> None:
    if stream.read(len(wanted)) != wanted:
        raise BundleError(f"{path} is no packed bundle as the toolkit writes it", found=f"{what} differs", fix=REPACK)
