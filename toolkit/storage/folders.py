"""Folders that change places whole, locks between processes, and what a process that died left behind.

Where Linux has `renameat2` the new folder and the old one are exchanged in one step, so that no moment and no power cut
leaves neither. Elsewhere the old one is set aside for the moment between two renames, and whoever comes next puts it
back. A folder in the making is locked by its maker; one that nobody holds is of a process that died, and is swept away.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from toolkit.errors import ToolkitError
from toolkit.storage.files import os_errors, sync_folder
from toolkit.storage.parts import OLD, leftovers, new_part
from toolkit.storage.replacing import Own, carry_over

RENAME_EXCHANGE, AT_FDCWD = 2, -100  # linux/fs.h, linux/fcntl.h
NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)  # of this kernel, or of this file system


def make_private(folder: Path) -> None:
    """Makes a folder with whatever is missing above it, for this user alone (mode 0700), as a cache should be."""
    if not folder.is_dir():
        make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


@contextmanager
def folder_replaced(target: Path, owned_by: str, own: Own | None = None) -> Iterator[Path]:
    """Yields an empty folder beside `target` that takes its place when the block succeeds.

    An interrupted or failed block leaves `target` as it was. Two processes at once: the lock makes the second wait
    its turn; the last whole folder wins. A folder that holds no `owned_by` file is not ours and is never replaced.

    Args:
        own: which files of the old folder go with it, by their path inside; what else is in there stays. None: all go.

    Raises:
        ToolkitError: `target` is a file or somebody else's folder, cannot be written, or holds a foreign file of the
            same name as a new one.
    """
    target = Path(os.path.realpath(target))  # a link stays one: what it points to is replaced
    with ExitStack() as held:
        with os_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with locked(_lock_of(target)):  # another process may be changing folders right now
                _put_back(target)
                _require_ours(target, owned_by)
            fresh, handle = new_part(target, folder=True)
        held.callback(os.close, handle)
        held.callback(shutil.rmtree, fresh, ignore_errors=True)
        with os_errors(target):
            yield fresh
            _sync(fresh)
            os.chmod(fresh, 0o755)
        with os_errors(target), locked(_lock_of(target)):
            if own is not None and target.is_dir():
                carry_over(target, fresh, own)
            _take_place(fresh, target)


def restored(target: Path) -> bool:
    """Puts back a folder that a power cut caught between two renames; True where there was one."""
    target = Path(os.path.realpath(target))
    if target.exists() or not leftovers(target, OLD):
        return False
    with contextlib.suppress(OSError), locked(_lock_of(target)):
        return _put_back(target)
    return False


def _take_place(fresh: Path, target: Path) -> None:
    """`target` is the old folder or the new one at any moment, where the system can; what `fresh` is then is litter."""
    if target.exists() and not _exchanged(fresh, target):
        aside = fresh.with_suffix(f".{OLD}")
        try:
            os.rename(target, aside)
            os.rename(fresh, target)
        finally:
            if aside.exists() and not target.exists():
                os.rename(aside, target)
            shutil.rmtree(aside, ignore_errors=True)
    elif not target.exists():
        os.rename(fresh, target)
    sync_folder(target.parent)


def _exchanged(one: Path, other: Path) -> bool:
    """Two folders change names in one step; False where this system cannot."""
    import ctypes

    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # glibc from 2.28 on
    if rename is None:
        return False
    if rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(other))


def _lock_of(target: Path) -> Path:
    return target.parent / f".{target.name}.lock"


def _put_back(target: Path) -> bool:
    """The folder that was set aside, where its place is empty; one that was replaced after all is swept away."""
    for aside in leftovers(target, OLD):
        if target.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            os.rename(aside, target)
            return True
    return False


def _sync(folder: Path) -> None:
    """Brings every file and folder to the disk, so that no power cut leaves a renamed folder of empty files."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
        elif path.is_dir():
            sync_folder(path)
    sync_folder(folder)


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
