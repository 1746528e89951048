"""What is half-made lies beside its place under a name of its own; its maker holds it, a dead maker's is swept away."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path

PART, OLD = "part", "old"


def new_part(target: Path, folder: bool = False) -> tuple[Path, int]:
    """An empty file or folder beside `target`, and the descriptor that holds it until it is closed.

    Raises:
        OSError: there is no place for it.
    """
    sweep(target)
    prefix, suffix = f".{target.name}.", f".{PART}"
    while True:
        if folder:
            path = Path(tempfile.mkdtemp(suffix, prefix, target.parent))
            with contextlib.suppress(FileNotFoundError):  # swept before it was held
                handle = os.open(path, os.O_RDONLY)
                if hold(handle) and _is_there(path, handle):
                    return path, handle
                os.close(handle)
        else:
            handle, name = tempfile.mkstemp(suffix, prefix, target.parent)
            if hold(handle) and _is_there(Path(name), handle):
                return Path(name), handle
            os.close(handle)


def leftovers(target: Path, kind: str) -> list[Path]:
    """What lies beside `target` under the names that `new_part` gives, somebody's work or litter."""
    pattern = re.compile(rf"\.{re.escape(target.name)}\.[a-z0-9_]{{8}}\.{kind}")
    try:
        names = os.listdir(target.parent)
    except OSError:
        return []
    return sorted(target.parent / name for name in names if pattern.fullmatch(name))


def sweep(target: Path) -> None:
    """Removes what processes that died left half-made beside `target`."""
    for part in leftovers(target, PART):
        with contextlib.suppress(OSError):
            handle = os.open(part, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
            try:
                if hold(handle):
                    shutil.rmtree(part, ignore_errors=True) if part.is_dir() else part.unlink(missing_ok=True)
            finally:
                os.close(handle)


def hold(handle: int) -> bool:
    """Marks an open file or folder as somebody's until it is closed; False where another process holds it."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_there(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False
