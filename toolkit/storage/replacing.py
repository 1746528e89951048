"""One rule for what commands write: each replaces its own about the same thing; all else is named, and stays.

A file is the command's own by a mark in it, a folder by the file that says whose it is; what else lies in such a folder
is carried over.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from toolkit.errors import ToolkitError
from toolkit.storage.files import content_of, place_of
from toolkit.storage.limits import TAR_BYTES

Own = Callable[[str], bool]  # is the file of this name, seen from the folder, one that the command wrote?
MOST_NAMED = 5


def require_replaceable(path: Path, what: str, ours: Callable[[bytes], bool], argument: str = "") -> None:
    """Refuses to write over a file that the same command did not write about the same thing.

    Args:
        what: what it writes there, in words.
        ours: whether a file's bytes are such.
        argument: what chooses another place, if anything does.

    Raises:
        ToolkitError: says what is there, how large, of when; a folder, a pipe or a device is in the way.
    """
    if not place_of(path).is_file() or not path.stat().st_size:
        return
    if not ours(content_of(path, TAR_BYTES).data):
        raise ToolkitError(
            f"{path} is there already, and is no {what}",
            found=f"{path.stat().st_size:,} bytes of {date_of(path)}",
            fix=(f"choose another `{argument}=`, or " if argument else "") + "move the file away",
        )


def date_of(path: Path) -> str:
    """When a file was written, in local time to the minute."""
    return datetime.fromtimestamp(path.stat().st_mtime).strftime("%Y-%m-%d %H:%M")


def others_in(folder: Path, own: Own) -> list[str]:
    """The files and links of a folder that are not its command's own, by their path inside, sorted."""
    found = []
    for place, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        found += [Path(place, name).relative_to(folder).as_posix() for name in files + links]
    return sorted(name for name in found if not own(name))


def named(names: list[str]) -> str:
    """Some of the names, and how many more there are."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def carry_over(old: Path, fresh: Path, own: Own) -> None:
    """Brings what is not the command's own from the old folder to the fresh one.

    Raises:
        ToolkitError: the fresh one has a file of the same name.
    """
    names = others_in(old, own)
    taken = [name for name in names if os.path.lexists(fresh / name)]
    if taken:
        raise ToolkitError(
            f"{old} holds files of yours that would be written over",
            found=named(taken),
            fix="move them away, or choose another place",
        )
    for name in names:
        (fresh / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(old / name, fresh / name, follow_symlinks=False)
        except OSError:  # a file system without hard links
            shutil.copy2(old / name, fresh / name, follow_symlinks=False)
