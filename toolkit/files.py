"""Files that are whole or absent: written under a temporary name, synced, renamed; hashed; locked."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from toolkit.errors import ToolkitError
from toolkit.lazy import needs

if TYPE_CHECKING:
    import onnx

LONGEST_SHOWN = 300  # characters of a path in an error


def sha256_of_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


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


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file so that a reader sees the old one or the whole new one, never a part.

    Raises:
        ToolkitError: the disk is full, the folder read-only or absent.
    """
    write_together({path: data})


def write_together(contents: dict[Path, bytes]) -> None:
    """Writes several files, each as `write_bytes` does; where one cannot be written, none is.

    Raises:
        ToolkitError: names the file that cannot be written, and why.
    """
    parts: dict[Path, str] = {}
    try:
        for path, data in contents.items():
            with os_errors(path):
                parts[path] = _part_beside(path)
                _write_part(parts[path], data)
                if path.is_dir():
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        for path in contents:
            with os_errors(path):
                os.replace(parts[path], path)
    finally:
        for part in parts.values():
            Path(part).unlink(missing_ok=True)


def _part_beside(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    return name


def _write_part(part: str, data: bytes) -> None:
    with open(part, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    os.chmod(part, 0o644)


def make_private(folder: Path) -> None:
    """Makes a folder with whatever is missing above it, for this user alone (mode 0700), as a cache should be."""
    if not folder.is_dir():
        make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def json_text(document: Any) -> str:
    """Indented JSON with a newline; NaN and Infinity are refused, because JSON has none."""
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, document: Any) -> None:
    """`json_text`, written whole."""
    write_bytes(path, json_text(document).encode())


def read_json(path: Path, error: type[ToolkitError]) -> dict[str, Any]:
    """A JSON object from a file, or `error` with the line that is wrong."""
    with os_errors(path, "read"):
        data = path.read_bytes()
    try:
        document = from_json(data)
    except ValueError as fault:
        raise error(f"{path} is not JSON", found=fault, fix="restore the file from its source") from fault
    if not isinstance(document, dict):
        raise error(f"{path} is not a JSON object", found=type(document).__name__)
    return document


def from_json(data: bytes | str) -> Any:
    """What JSON says; ValueError also for NaN and Infinity, which Python reads and JSON has not, and for nothing."""
    if not data.strip():
        raise ValueError("an empty file")
    try:
        return json.loads(data, parse_constant=_no_such_number)
    except RecursionError as fault:
        raise ValueError("brackets nested too deeply") from fault


def _no_such_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def read_toml(path: Path, error: type[ToolkitError], allowed: str | None = None) -> dict[str, Any]:
    """A TOML document from a file, or `error` with the line that is wrong and what is allowed."""
    with needs("read TOML files"):
        if sys.version_info >= (3, 11):
            import tomllib
        else:
            import tomli as tomllib
    with os_errors(path, "read"):
        data = path.read_bytes()
    try:
        return tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise error(f"{path} is not TOML", found=fault, allowed=allowed) from fault


def read_onnx(path: Path, doing: str = "read ONNX files") -> onnx.ModelProto:
    """An ONNX file as it stands.

    Raises:
        ToolkitError: it cannot be read, or is no ONNX file. MissingPackage: onnx cannot be imported here.
    """
    with needs(doing):
        import onnx
    try:
        with os_errors(path, "read"):
            model = onnx.load(path)
    except ToolkitError:
        raise
    except Exception as fault:  # protobuf's DecodeError, which moved between its versions
        raise ToolkitError(f"{path} is not an ONNX file", found=str(fault)[:200], fix="export again") from fault
    if not model.graph.node:
        raise ToolkitError(f"{path} is not an ONNX file", found="no graph", fix="export again")
    return model


@contextmanager
def folder_replaced(target: Path, owned_by: str) -> Iterator[Path]:
    """Yields an empty folder beside `target` that takes its place when the block succeeds.

    An interrupted or failed block leaves `target` as it was. Two processes at once: the lock makes the second wait
    its turn; the last whole folder wins. A folder that holds no `owned_by` file is not ours and is never replaced.

    Raises:
        ToolkitError: `target` is a file or somebody else's folder, or cannot be written.
    """
    target = Path(os.path.realpath(target))  # a link stays one: what it points to is replaced
    lock = target.parent / f".{target.name}.lock"
    with os_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(lock):  # another process may be changing folders right now
            _require_ours(target, owned_by)
        fresh = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part"))
    try:
        with os_errors(target):
            yield fresh
            _sync(fresh)
            os.chmod(fresh, 0o755)
        with os_errors(target), locked(lock):
            aside = fresh.with_suffix(".old")
            try:
                if target.exists():
                    os.rename(target, aside)
                os.rename(fresh, target)
            finally:
                if aside.exists() and not target.exists():
                    os.rename(aside, target)
                shutil.rmtree(aside, ignore_errors=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Brings every file to the disk, so that no power cut leaves a renamed folder of empty files."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock that other processes wait for; the file goes when it is given back."""
    try:
        import fcntl
    except ImportError:  # no fcntl on Windows: renames stay whole, only the order is up to the system
        yield
        return
    while True:
        with path.open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            # Who held it before may have removed the file: then this lock is on a file that nobody else will open.
            if not _is_open_file(path, stream):
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_open_file(path: Path, stream: IO[str]) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(stream.fileno()))
    except FileNotFoundError:
        return False


def _require_ours(target: Path, owned_by: str) -> None:
    if target.exists() and not target.is_dir():
        raise ToolkitError(f"{target} is a file", allowed="a folder to write", fix="choose another -o")
    if target.is_dir() and any(target.iterdir()) and not (target / owned_by).is_file():
        raise ToolkitError(
            f"{target} is not empty and holds no {owned_by}",
            allowed="an empty folder, or one that this command wrote",
            fix="choose another -o",
        )
