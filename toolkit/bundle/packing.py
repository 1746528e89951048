"""A bundle as one `.tar`: the same files give the same bytes, and no other bytes are taken for one.

The layout is fixed: ustar, no compression, `manifest.json` first, then the manifest's files by name; owner, group and
time are zero, modes 0644. So the manifest alone says what every other byte of the headers must be, and reading is a
comparison, not a parse: links, devices, `..`, absolute or repeated names, headers of other formats and anything behind
the end differ from what packing writes, whatever they mean to a tar program. `tar tf` and `tar xf` read it as well.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from toolkit.bundle.onnx_bytes import require_self_contained
from toolkit.bundle.open_files import OpenFiles
from toolkit.bundle.requirements import NOTHING, Requirement
from toolkit.bundle.sealing import manifest_of
from toolkit.bundle.signing import Signed
from toolkit.errors import BundleError
from toolkit.storage.files import Content, content_of, require_size
from toolkit.storage.limits import MANIFEST_BYTES, TAR_BYTES
from toolkit.workspace import MANIFEST

SUFFIX = ".tar"
BLOCK, RECORD = 512, 20 * 512  # bytes of a header, and what an archive's size is a multiple of (POSIX ustar)
REPACK = "pack the folder FOLDER"


@dataclass(frozen=True)
class Packed:
    """A tar that was read once: its bytes, its manifest, and where in the tar each file lies, in its order.

    Attributes:
        signed: what its signature says, where one was asked for.
    """

    content: Content
    manifest: dict[str, Any]
    manifest_content: Content
    places: dict[str, slice]
    signed: Signed | None = None

    @property
    def path(self) -> Path:
        """Where the tar lay."""
        return self.content.path


def tar_of_files(files: OpenFiles, manifest: bytes) -> bytes:
    """The tar of a manifest and of the files of a bundle that it names; others stay behind.

    Raises:
        BundleError: a file changed since the bundle was opened, or its name does not fit into a tar header.
    """
    parts = [_header(MANIFEST, len(manifest)), manifest, _padding(len(manifest))]
    for name in sorted(json.loads(manifest)["files"]):
        data = files.content(name).data
        parts += [_header(name, len(data)), data, _padding(len(data))]
    return b"".join([*parts, _end(sum(map(len, parts)))])


def packed_from_tar(path: Path, wanted: Requirement = NOTHING) -> Packed:
    """Reads a tar once and its manifest; the other files are looked at by `files_of_tar`.

    Args:
        wanted: whose signature it must have; nothing in the tar is looked at before.

    Raises:
        BundleError: not signed so, not a tar that `toolkit bundle pack` wrote, cut short, or with something
            behind its end.
    """
    content, signed = tar_content(path, wanted)
    manifest_content, behind = _first_member(content)
    manifest = manifest_of(manifest_content, path)
    sizes = {name: _size(path, name, entry) for name, entry in sorted(manifest["files"].items())}
    places, at = {}, behind
    for name, size in sizes.items():
        places[name] = slice(at + BLOCK, at + BLOCK + size)
        at = places[name].stop + len(_padding(size))
    _require_length(path, len(content.data), at)
    return Packed(content, manifest, manifest_content, places, signed)


def tar_content(path: Path, wanted: Requirement = NOTHING) -> tuple[Content, Signed | None]:
    """The bytes of a tar, which is signed where that is asked for, and what its signature says."""
    if wanted.keys:
        content = content_of(path, TAR_BYTES, BundleError)
        return content, wanted.require_tar(content)

    def look(stream: IO[bytes]) -> None:  # what is no tar is not read as a whole
        _first_member(Content(path, stream.read(BLOCK)), header_only=True)

    return content_of(path, TAR_BYTES, BundleError, look=look), None


def files_of_tar(packed: Packed) -> Iterator[tuple[str, memoryview]]:
    """Each file's name and content, which has the hash of the manifest.

    Raises:
        BundleError: a header is not what packing writes, or a file is not the one of the manifest.
    """
    data, path, at = memoryview(packed.content.data), packed.path, 0
    for name, place in packed.places.items():
        size, padding = place.stop - place.start, _padding(place.stop - place.start)
        _require_bytes(path, data[place.start - BLOCK : place.start], _header(name, size), f"the header of {name}")
        _require_hash(packed, name, data[place])
        yield name, data[place]
        at = place.stop + len(padding)
        _require_bytes(path, data[place.stop : at], padding, f"what follows {name}")
    _require_bytes(path, data[at:], _end(at), "its end")


def check_tar(path: Path, wanted: Requirement = NOTHING) -> Packed:
    """Every byte of a tar against its manifest; writes nothing.

    Raises:
        BundleError: see `packed_from_tar` and `files_of_tar`.
    """
    packed = packed_from_tar(path, wanted)
    for name, data in files_of_tar(packed):
        if name.endswith(".onnx"):
            require_self_contained(Content(path / name, bytes(data)))
    return packed


def is_tar_of(model: str) -> Callable[[bytes], bool]:
    """Whether bytes are a packed bundle of a model, as far as its manifest says."""

    def ours(data: bytes) -> bool:
        try:
            manifest, _ = _first_member(Content(Path(), data))
            return bool(json.loads(manifest.data)["model"]["name"] == model)
        except (BundleError, ValueError, KeyError, TypeError):
            return False

    return ours


def _require_hash(packed: Packed, name: str, data: memoryview) -> None:
    digest, wanted = hashlib.sha256(data).hexdigest(), packed.manifest["files"][name]["sha256"]
    if digest != wanted:
        raise BundleError(
            f"{name} in {packed.path} is not the file that was packed",
            found=f"sha256 {digest}",
            allowed=wanted,
            fix="copy it again, or " + REPACK,
        )


def _first_member(tar: Content, header_only: bool = False) -> tuple[Content, int]:
    """The manifest's bytes and where the next header begins; the size is the only number that a header is asked for."""
    header = tar.data[:BLOCK]
    size = header[124:135]
    if re.fullmatch(rb"[0-7]{11}", size) is None or header != _header(MANIFEST, int(size, 8)):
        raise BundleError(
            f"{tar.path} is not a packed bundle",
            found=f"it does not begin with the header of {MANIFEST} that packing writes",
            fix=REPACK,
        )
    length = require_size(tar.path / MANIFEST, int(size, 8), MANIFEST_BYTES, BundleError)
    if header_only:
        return tar, 0
    data = tar.data[BLOCK : BLOCK + length]
    behind = BLOCK + length + len(_padding(length))
    _require_bytes(tar.path, tar.data[BLOCK + length : behind], _padding(length), f"what follows {MANIFEST}")
    return Content(tar.path / MANIFEST, data), behind


def _require_length(path: Path, size: int, written: int) -> None:
    wanted = written + len(_end(written))
    if size != wanted:
        raise BundleError(
            f"{path} {'was cut short' if size < wanted else 'holds more than its manifest says'}",
            found=f"{size:,} bytes",
            allowed=f"{wanted:,} bytes",
            fix="copy it again, or " + REPACK,
        )


def _size(path: Path, name: str, entry: dict[str, Any]) -> int:
    """Bytes of a file that the manifest names, such as a header can say."""
    size = entry["bytes"]
    if not 0 <= size < 8**11:
        raise BundleError(f"{MANIFEST} in {path} has no size of {name}", found=size)
    return int(size)


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


def _require_bytes(path: Path, found: bytes | memoryview, wanted: bytes, what: str) -> None:
    if found != wanted:
        raise BundleError(f"{path} is no packed bundle as the toolkit writes it", found=f"{what} differs", fix=REPACK)
