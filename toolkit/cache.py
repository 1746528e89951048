"""The cache: what can be had again, kept for this user alone; engines and timings in it are trusted, so it is private.

A folder that another user owns or may write to is never read: then a temporary folder of this process takes its place,
as where there is no home, no room or no right to write.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from pathlib import Path

from toolkit.errors import ToolkitError
from toolkit.files import os_errors
from toolkit.folders import make_private
from toolkit.workspace import cache_folder

PRIVATE, WRITE_FOR_OTHERS = 0o700, 0o022


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
        if found.st_mode & 0o777 != PRIVATE:
            folder.chmod(PRIVATE)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None


def kept() -> dict[str, int]:
    """Bytes in the cache by the name of what is kept there; tars are counted together."""
    found: dict[str, int] = {}
    for entry in sorted(cache_folder().iterdir()) if cache_folder().is_dir() else ():
        name = "unpacked tars" if len(entry.name) == 64 else entry.name
        found[name] = found.get(name, 0) + _size(entry)
    return found


def clear() -> int:
    """Empties the cache and returns how many bytes it took; the folder itself stays.

    Raises:
        ToolkitError: something in it cannot be removed.
    """
    size = sum(kept().values())
    for entry in list(cache_folder().iterdir()) if cache_folder().is_dir() else ():
        with os_errors(entry):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    return size


def _size(entry: Path) -> int:
    paths = [entry, *entry.rglob("*")] if entry.is_dir() and not entry.is_symlink() else [entry]
    return sum(path.lstat().st_size for path in paths if not path.is_dir())
