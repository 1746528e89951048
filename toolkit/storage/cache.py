"""The cache: what can be had again, kept for this user alone; engines and timings in it are trusted, so it is private.

A folder that another user owns or may write to is never read: then a temporary folder of this process takes its place,
as where there is no home, no room or no right to write.
"""

from __future__ import annotations

import atexit
import functools
import os
import re
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from toolkit.errors import ToolkitError
from toolkit.storage.documents import Document
from toolkit.storage.files import os_errors
from toolkit.storage.folders import make_private
from toolkit.storage.hints import Count

PRIVATE, WRITE_FOR_OTHERS = 0o700, 0o022
UNPACKED, TAR = "unpacked tars", re.compile("[0-9a-f]{64}")
# All that the toolkit keeps, half-made or not. TOOLKIT_CACHE may name a home, or /.
OURS = re.compile(r"\.?([0-9a-f]{64}|timing|ort-trt|fashion-mnist|cifar-10-batches-(bin|py))(\..*)?")


def cache_folder() -> Path:
    """Where all that can be had again is kept for this user: downloads, unpacked tars, engines and timings.

    `TOOLKIT_CACHE`, or `trt-edge-toolkit` in $XDG_CACHE_HOME, else in ~/.cache. A relative $XDG_CACHE_HOME is ignored,
    as the XDG base directory specification asks. Without a home it lies where temporary files do, under the user's
    number. `private_folder` says whether it can be trusted.
    """
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        if chosen := os.environ.get("TOOLKIT_CACHE"):
            return Path(chosen).expanduser()
        base = configured if configured.is_absolute() else Path("~/.cache").expanduser()
    except RuntimeError:  # neither $HOME nor an entry of this user in the system's list
        user = os.getuid() if hasattr(os, "getuid") else "user"
        return Path(tempfile.gettempdir()) / f"trt-edge-toolkit-{user}"
    return base / "trt-edge-toolkit"


def private_folder(name: str = "") -> Path:
    """The cache, or a folder in it, which this user alone can read and write (mode 0700).

    Raises:
        ToolkitError: neither the cache nor a temporary folder can be written.
    """
    for root in (cache_folder, temporary_folder):
        folder = _made_private(root())
        if folder is not None and (not name or (folder := _made_private(folder / name)) is not None):
            return folder
    raise ToolkitError("there is no place for a cache", found=str(temporary_folder()), fix="set TOOLKIT_CACHE")


@functools.cache
def temporary_folder() -> Path:
    """A private folder that goes with the process.

    Raises:
        ToolkitError: there is no place for one.
    """
    with os_errors(Path(tempfile.gettempdir())):
        folder = Path(tempfile.mkdtemp(prefix="toolkit-"))
    atexit.register(_remove_own, folder, os.getpid())
    return folder


def _remove_own(folder: Path, process: int) -> None:
    if os.getpid() == process:  # not a fork that ends before its parent
        shutil.rmtree(folder, ignore_errors=True)


def _made_private(folder: Path) -> Path | None:
    """The folder, made or narrowed to mode 0700; None where it is not ours alone."""
    try:
        make_private(folder)
        found = folder.stat()
        if hasattr(os, "geteuid") and (found.st_uid != os.geteuid() or found.st_mode & WRITE_FOR_OTHERS):
            return None
        nothing_else = folder != cache_folder() or len(_kept()) == len(os.listdir(folder))
        if found.st_mode & 0o777 != PRIVATE and nothing_else:
            folder.chmod(PRIVATE)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None


@dataclass(frozen=True)
class Cache(Document):
    """What toolkit cache prints.

    Attributes:
        folder: where it lies, whether or not there is anything yet.
        kept: bytes by the name of what is kept; unpacked tars are counted together.
        bytes: all of it.
        cleared: whether it was removed.
    """

    SCHEMA = "toolkit/cache/1"
    ok: Literal[True]
    folder: Path
    kept: dict[str, Count]
    bytes: Count
    cleared: bool


def inventory() -> Cache:
    """What the toolkit keeps in the cache; what else lies there is neither counted nor looked at.

    Raises:
        ToolkitError: it cannot be read.
    """
    found: dict[str, int] = {}
    with os_errors(cache_folder(), "read"):
        for entry in _kept():
            name = UNPACKED if TAR.fullmatch(entry.name) else entry.name
            found[name] = found.get(name, 0) + _size(entry)
    return Cache(True, cache_folder(), found, sum(found.values()), False)


def cleared() -> Cache:
    """Empties the cache and returns what it held; the folder itself stays, and what in it is not the toolkit's.

    Raises:
        ToolkitError: something in it cannot be removed.
    """
    found = inventory()
    for entry in _kept():
        with os_errors(entry, "remove"):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    return replace(found, cleared=True)


def _kept() -> list[Path]:
    folder = cache_folder()
    return [path for path in sorted(folder.iterdir()) if OURS.fullmatch(path.name)] if folder.is_dir() else []


def _size(entry: Path) -> int:
    paths = [*entry.rglob("*")] if entry.is_dir() and not entry.is_symlink() else [entry]
    return sum(path.lstat().st_size for path in paths if not path.is_dir())
