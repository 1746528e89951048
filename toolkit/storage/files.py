"""Files that are whole or absent: written under a temporary name, synced, renamed; read once, hashed, bounded."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from toolkit.errors import ToolkitError
from toolkit.lazy import needs
from toolkit.storage.limits import DOCUMENT_BYTES, DOTS, FILE_BYTES, TOML_BYTES
from toolkit.storage.parts import new_part

if TYPE_CHECKING:
    import onnx

LONGEST_SHOWN = 300  # characters of a path in an error


@contextmanager
def os_errors(target: Path | None, doing: str = "write") -> Iterator[None]:
    """Turns a full disk, a read-only folder or a missing one into a sentence.

    Args:
        target: what the sentence is about; None takes the path that the system names.
    """
    try:
        yield
    except OSError as error:
        reasons = {
            errno.ENOSPC: ("the disk is full", "free some space, or choose another folder"),
            errno.EDQUOT: ("the disk quota is used up", "free some space, or choose another folder"),
            errno.EACCES: ("permission denied", f"choose a place that you may {doing}"),
            errno.EPERM: ("permission denied", f"choose a place that you may {doing}"),
            errno.EROFS: ("the file system is read-only", "choose a folder that you may write to"),
            errno.ENOENT: ("it does not exist", "check the path"),
            errno.ENOTDIR: ("a part of the path is a file, not a folder", "check the path"),
            errno.EISDIR: ("it is a folder", "check the path"),
            errno.EEXIST: ("a part of the path is a file, not a folder", "check the path"),
            errno.ENAMETOOLONG: ("its name is too long", "choose a shorter one"),
            errno.ELOOP: ("it is a symbolic link to itself", "check the path"),
            errno.EFBIG: (
                "the file would be larger than this system allows",
                "choose another folder, or raise ulimit -f",
            ),
        }
        found, fix = reasons.get(error.errno or 0, (str(error), "check the path"))
        what = _short(target or error.filename or "a file")
        raise ToolkitError(f"cannot {doing} {what}", found=found, fix=fix) from error


def _short(path: Path | str | bytes | int) -> str:
    """A path as it is shown: one that is too long for any system is cut."""
    text = str(path)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


@dataclass(frozen=True)
class Content:
    """A file's bytes, read once, and where it lay: what was checked is what is used."""

    path: Path
    data: bytes

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    @property
    def sha256(self) -> str:
        """Hex sha256 of the bytes."""
        return hashlib.sha256(self.data).hexdigest()


def content_of(
    path: Path,
    most: int,
    error: type[ToolkitError] = ToolkitError,
    inside: tuple[int, str] | None = None,
    look: Callable[[IO[bytes]], object] | None = None,
) -> Content:
    """The bytes of a regular file, read in one go.

    Args:
        most: bytes; a larger file is refused before anything is allocated.
        inside: see `open_regular`.
        look: reads a little first, and raises where all of it need not be read.

    Raises:
        ToolkitError: as `error` where it is a pipe or a device, too large, or changes while it is read.
    """
    with os_errors(path, "read"), open_regular(path, error, inside) as stream:
        size = require_size(path, os.fstat(stream.fileno()).st_size, most, error)
        if look is not None:
            look(stream)
            stream.seek(0)
        data = stream.read(size + 1)
    if len(data) != size:
        raise error(
            f"{path} changed while it was read", found=f"{len(data):,} bytes of {size:,}", fix="wait, and try again"
        )
    return Content(path, data)


def open_regular(
    path: Path, error: type[ToolkitError] = ToolkitError, inside: tuple[int, str] | None = None
) -> IO[bytes]:
    """Opens a file that ends: a pipe would be waited for, and a device may never end.

    Args:
        inside: a folder's descriptor and the name in it that is opened; `path` is what people read.

    Raises:
        ToolkitError: as `error`, it is neither a file nor a folder. OSError: it cannot be opened, or is a folder.
    """
    folder, name = inside or (None, path)
    handle = os.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0), dir_fd=folder)
    stream = os.fdopen(handle, "rb")  # closes what it is given also where it raises, for a folder
    kind = os.fstat(handle).st_mode
    if not stat.S_ISREG(kind):
        stream.close()
        raise error(f"{path} is no regular file", found=stat.filemode(kind), allowed="a file on a disk")
    return stream


def require_size(path: Path, size: int, most: int, error: type[ToolkitError] = ToolkitError) -> int:
    """The size, unless it is above a limit of `toolkit.storage.limits`."""
    if size > most:
        raise error(f"{path} is too large to be read", found=f"{size:,} bytes", allowed=f"{most:,}")
    return size


def sha256_of_file(path: Path) -> str:
    """Hex sha256 of a regular file's bytes."""
    with open_regular(path) as stream:
        return sha256_of_stream(stream)


def sha256_of_stream(stream: IO[bytes]) -> str:
    """Hex sha256 of all that a stream still has."""
    digest = hashlib.sha256()
    while chunk := stream.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Brings a folder's names to the disk, where the system lets one open a folder."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file so that a reader sees the old one or the whole new one, never a part.

    Raises:
        ToolkitError: the disk is full, the folder read-only or absent.
    """
    write_together({path: data})


def write_together(contents: dict[Path, bytes]) -> None:
    """Writes several files, each as `write_bytes` does; where one cannot be written, none is.

    Raises:
        ToolkitError: names the file that cannot be written, and why; also a pipe or a device, which a rename would
            replace for the whole system.
    """
    places = {place_of(path): (data, 0o644) for path, data in contents.items()}
    with _parts(places) as parts:
        for path, part in parts.items():
            with os_errors(path):
                os.replace(part, path)


def place_of(path: Path) -> Path:
    """Where a file is written: a link stays one, what it points to is replaced (/dev/stdout is one, say).

    Raises:
        ToolkitError: there is a folder, a pipe or a device.
    """
    with os_errors(path):
        place = Path(os.path.realpath(path)) if path.is_symlink() else path
        if place.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if place.exists() and not place.is_file():
            kind = stat.filemode(place.stat().st_mode)
            raise ToolkitError(f"{path} is no regular file", found=kind, allowed="a file on a disk, or none")
    return place


def write_new(contents: dict[Path, tuple[bytes, int]]) -> None:
    """Writes several files with their modes, in order; none replaces one that is there.

    Raises:
        ToolkitError: one is there already, or cannot be written; then none is left of those that were not there.
    """
    written: list[Path] = []
    with _parts(contents) as parts:
        try:
            for path, part in parts.items():
                with os_errors(path):
                    os.link(part, path)
                written.append(path)
        except BaseException:
            for path in written:
                path.unlink(missing_ok=True)
            raise


@contextmanager
def _parts(contents: dict[Path, tuple[bytes, int]]) -> Iterator[dict[Path, Path]]:
    """Every file beside its place and on the disk; what has not been renamed goes."""
    parts: dict[Path, Path] = {}
    with contextlib.ExitStack() as held:
        for path, (data, mode) in contents.items():
            with os_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                parts[path], handle = new_part(path)
                held.callback(os.close, handle)
                held.callback(parts[path].unlink, missing_ok=True)
                _write_part(handle, data, mode)
        yield parts


def _write_part(handle: int, data: bytes, mode: int) -> None:
    with open(handle, "wb", closefd=False) as stream:
        stream.write(data)
        stream.flush()
        os.fsync(handle)
    os.fchmod(handle, mode)


def json_text(document: Any) -> str:
    """Indented JSON with a newline; NaN and Infinity are refused, because JSON has none."""
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, document: Any) -> None:
    """`json_text`, written whole."""
    write_bytes(path, json_text(document).encode())


def read_json(path: Path, error: type[ToolkitError], most: int = DOCUMENT_BYTES) -> dict[str, Any]:
    """A JSON object from a file of at most so many bytes, or `error` with the line that is wrong."""
    return json_object(content_of(path, most, error), error)


def json_object(content: Content, error: type[ToolkitError]) -> dict[str, Any]:
    """The JSON object in a file that was read, or `error` with the line that is wrong."""
    try:
        document = from_json(content.data)
    except ValueError as fault:
        raise error(f"{content.path} is not JSON", found=fault, fix="restore the file from its source") from fault
    if not isinstance(document, dict):
        raise error(f"{content.path} is not a JSON object", found=type(document).__name__)
    return document


def from_json(data: bytes | str) -> Any:
    """What JSON says.

    Raises:
        ValueError: also for what Python reads and a second reader may read otherwise, or cannot write again: NaN and
            Infinity, a key that comes twice, half a surrogate pair, and nothing at all.
    """
    if not data.strip():
        raise ValueError("an empty file")
    try:
        document = json.loads(data, parse_constant=_no_such_number, object_pairs_hook=_each_key_once)
        json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError as fault:
        raise ValueError("brackets nested too deeply") from fault
    return document


def _no_such_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} comes twice")
    return found


def read_toml(path: Path, error: type[ToolkitError], allowed: str | None = None) -> dict[str, Any]:
    """A TOML document from a file, or `error` with the line that is wrong and what is allowed."""
    with needs("read TOML files"):
        if sys.version_info >= (3, 11):
            import tomllib
        else:
            import tomli as tomllib
    data = content_of(path, TOML_BYTES, error).data
    if max(line.count(b".") for line in data.split(b"\n")) > DOTS:  # a key of many parts takes their square
        raise error(
            f"{path} is not TOML that people write", found=f"a line with more than {DOTS} dots", allowed=allowed
        )
    try:
        return tomllib.loads(data.decode())
    except RecursionError as fault:
        raise error(f"{path} is not TOML", found="brackets nested too deeply", allowed=allowed) from fault
    except ValueError as fault:  # no UTF-8, no TOML, or a number of more digits than Python reads
        raise error(f"{path} is not TOML", found=fault, allowed=allowed) from fault


def read_onnx(source: Path | Content, doing: str = "read ONNX files") -> onnx.ModelProto:
    """An ONNX file as it stands; what it may say of weights in other files is left alone.

    Raises:
        ToolkitError: it cannot be read, or is no ONNX file. MissingPackage: onnx cannot be imported here.
    """
    with needs(doing):
        import onnx
    content = source if isinstance(source, Content) else content_of(source, FILE_BYTES)
    try:
        model = onnx.load_from_string(content.data)
    except Exception as fault:  # protobuf's DecodeError, which moved between its versions
        raise ToolkitError(f"{content.path} is not an ONNX file", found=str(fault)[:200], fix="export again") from fault
    if not model.graph.node:
        raise ToolkitError(f"{content.path} is not an ONNX file", found="no graph", fix="export again")
    return model
