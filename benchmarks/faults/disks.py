"""Disks that fill up, fail, or may not be written to: the command says so in one error, and what was there stays."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from commands import Writer
from kills import Place
from rows import Table
from tries import ERRORS, command, fault_at, in_child

NEVER = 1 << 40
NEW_NAMESPACE, PRIVATE, BIND, REMOUNT, READ_ONLY = 0x20000, 0x44000, 0x1000, 0x20, 0x1  # linux/sched.h, linux/mount.h


def failing(place: Place, writers: list[Writer], moments: int, table: Table) -> None:
    """From the n-th write, fsync or read on the disk answers with an errno: n over all that the command does."""
    for name, (calls, number) in ERRORS.items():
        with table.row(name) as row:
            for writer in writers:
                place.forget(writer)
                count = place.run(writer, fault=fault_at(calls, 0, NEVER, place.workspace)).counted
                for moment in sorted({1 + index * count // moments for index in range(moments)} if count else ()):
                    place.forget(writer)
                    done = place.run(writer, fault=fault_at(calls, number, moment, place.workspace))
                    fault = "" if done.code == 0 or done.refused else f"ended with {done.code}, no clear error"
                    fault = fault or place.why_not_whole(writer)
                    if not row.add(f"{writer.name} at {moment} of {count}", fault, done):
                        place.restore()
                fault = place.why_not_again(writer)[0]
                if fault:
                    row.add(f"{writer.name} afterwards", fault)
    place.restore()


def mounted(place: Place, writers: list[Writer], table: Table) -> None:
    """A real tmpfs with no room left, and a real read-only mount, in a namespace that the child alone sees."""
    if in_child(lambda: _mount("tmpfs", place.workspace, "tmpfs", 0, "size=64k"), place.log).code:
        print("mounts are not allowed here: neither a full tmpfs nor a read-only mount was tried", flush=True)
        return
    for name, step in (("a full tmpfs", _on_a_full_tmpfs), ("a read-only mount", _on_a_read_only_mount)):
        with table.row(name) as row:
            for writer in writers:
                place.forget(writer)
                done = in_child(step(place.workspace, writer), place.log)
                row.add(writer.name, "" if done.code == 0 else f"ended with {done.code}", done)
    place.restore()


def _on_a_full_tmpfs(workspace: Path, writer: Writer) -> Callable[[], int]:
    def action() -> int:
        kept = workspace.parent / "kept-for-tmpfs"
        shutil.copytree(workspace, kept, dirs_exist_ok=True)
        _mount("tmpfs", workspace, "tmpfs", 0, "size=64m")
        shutil.copytree(kept, workspace, dirs_exist_ok=True)
        shutil.rmtree(kept)
        used = sum(path.lstat().st_blocks * 512 for path in workspace.rglob("*"))
        _mount("tmpfs", workspace, "tmpfs", REMOUNT, f"size={used + 4096}")
        return _refused_and_whole(workspace, writer)

    return action


def _on_a_read_only_mount(workspace: Path, writer: Writer) -> Callable[[], int]:
    def action() -> int:
        _mount(str(workspace), workspace, "", BIND, "")
        _mount("", workspace, "", BIND | REMOUNT | READ_ONLY, "")
        return _refused_and_whole(workspace, writer)

    return action


def _refused_and_whole(workspace: Path, writer: Writer) -> int:
    """The command in a fork of its own, then what it left: 0 where it did it or refused, and all is whole."""
    child = os.fork()
    if child == 0:
        os._exit(command(workspace, writer.words_now(workspace))())
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, 1):
        return 4
    return 0 if writer.whole(workspace) else 3


def _mount(source: str, target: Path, kind: str, flags: int, options: str) -> int:
    """mount(2) in a namespace of this process; 0.

    Raises:
        OSError: this system does not let us.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    text = (source.encode() or None, os.fsencode(target), kind.encode() or None)
    if not flags & REMOUNT and (libc.unshare(NEW_NAMESPACE) or libc.mount(b"none", b"/", None, PRIVATE, None)):
        raise OSError(ctypes.get_errno(), "no namespace")
    if libc.mount(*text, ctypes.c_ulong(flags), options.encode() or None):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return 0
