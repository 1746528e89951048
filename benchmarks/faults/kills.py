"""Processes that die: at random moments, at every rename, two at once, and one that died holding the lock."""

from __future__ import annotations

import ctypes
import json
import os
import random
import shutil
import time
from dataclasses import asdict
from pathlib import Path

from commands import Writer
from rows import Row, Table
from tries import RENAMES, Done, command, fault_at, in_child

LITTER = (".part", ".old", ".lock")
NO_PARTS = ("init", "selftest --save", "load of a tar", "cache --clear")  # what they leave is not replaced whole
YEARS = 10 * 365 * 24 * 3600


class Place:
    """A workspace in which things go wrong, and what it was like before."""

    def __init__(self, folder: Path) -> None:
        self.workspace, self.kept, self.log = folder / "ws", folder / "kept", folder / "log"

    def restore(self) -> None:
        """Makes it what it was."""
        shutil.rmtree(self.workspace, ignore_errors=True)
        shutil.copytree(self.kept, self.workspace)

    def forget(self, writer: Writer) -> None:
        """Removes what the command leaves, if it starts without."""
        for name in writer.leaves if writer.fresh else ():
            path = self.workspace / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def run(self, writer: Writer, **how: object) -> Done:
        """The command as it stands."""
        return in_child(command(self.workspace, writer.words_now(self.workspace)), self.log, **how)  # type: ignore[arg-type]

    def why_not_whole(self, writer: Writer) -> str:
        """What is wrong with what it left; empty where it is whole."""
        done = in_child(lambda: 0 if writer.whole(self.workspace) else 3, self.log)
        return "" if done.code == 0 else f"not whole: {done.text.strip().splitlines()[-1:] or done.code}"

    def why_not_again(self, writer: Writer) -> tuple[str, Done]:
        """What is wrong with the next command: it fails, or leaves litter."""
        done = self.run(writer)
        litter = [path.name for path in self.workspace.rglob(".*") if path.suffix in LITTER]
        if done.code:
            return f"the next command failed with {done.code}", done
        return f"litter: {litter}" if litter else "", done


def killed(place: Place, writers: list[Writer], moments: int, table: Table, seed: int) -> None:
    """SIGKILL at moments drawn from the time that each command takes; two commands at once, in places of their own."""
    second = Place(place.kept.parent / "second")
    second.workspace.parent.mkdir()
    second.kept = place.kept
    second.restore()
    queue, filling = os.pipe()
    os.write(filling, bytes(range(len(writers))))
    os.close(filling)
    rows = second.workspace.parent / "rows.json"
    if (other := os.fork()) == 0:
        code = 1
        try:
            theirs = Table([])
            _killed_in_turn(second, writers, queue, moments, theirs, seed)
            rows.write_text(json.dumps([asdict(row) for row in theirs.rows]))
            code = 0
        finally:
            os._exit(code)
    _killed_in_turn(place, writers, queue, moments, table, seed)
    if os.waitpid(other, 0)[1]:
        raise SystemExit("the second process of kills failed")
    table.rows += [Row(**row) for row in json.loads(rows.read_text())]
    os.close(queue)


def _killed_in_turn(place: Place, writers: list[Writer], queue: int, moments: int, table: Table, seed: int) -> None:
    while number := os.read(queue, 1):
        draws = random.Random(seed + number[0])
        writer = writers[number[0]]
        with table.row(f"SIGKILL at a moment: {writer.name}") as row:
            place.forget(writer)
            started = time.monotonic()
            place.run(writer)
            length = time.monotonic() - started
            for _ in range(moments):
                place.forget(writer)
                place.run(writer, kill_after=draws.uniform(0, length))
                if not row.add("", place.why_not_whole(writer)):
                    place.restore()
            fault, done = place.why_not_again(writer)
            _last(row, fault, done)
            place.restore()


def _last(row: Row, fault: str, done: Done) -> None:
    """The next command belongs to the tries before it."""
    row.tries -= 1
    row.survived -= 1
    row.add("afterwards", fault, done)


def killed_at_renames(place: Place, writers: list[Writer], table: Table) -> None:
    """SIGKILL before and after every rename and link, and the command again each time."""
    for writer in writers:
        with table.row(f"SIGKILL at each rename: {writer.name}") as row:
            for moment in range(1, 200):
                place.forget(writer)
                done = place.run(writer, fault=fault_at(RENAMES, 0, moment, place.workspace))
                if done.code == 0:
                    break
                fault = place.why_not_whole(writer) if done.code == -9 else f"ended with {done.code}"
                again, next_one = place.why_not_again(writer)
                if not row.add(f"at {moment}", fault or again, next_one):
                    place.restore()
                if done.code != -9:
                    break
    place.restore()


def two_at_once(place: Place, writers: list[Writer], table: Table) -> None:
    """The same command in two processes: each does it or says why not, and what is left is whole."""
    with table.row("two processes at once") as row:
        for writer in writers:
            place.forget(writer)
            action = command(place.workspace, writer.words_now(place.workspace))

            def both(action: object = action) -> int:
                other = os.fork()
                code = action()  # type: ignore[operator]
                if other == 0:
                    os._exit(code)
                return max(int(code), os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]))

            done = in_child(both, place.log)
            fault = f"ended with {done.code}" if done.crashed or done.code not in (0, 1) else ""
            row.add(writer.name, fault or place.why_not_whole(writer) or place.why_not_again(writer)[0], done)
    place.restore()


def dead_holder(place: Place, writers: list[Writer], table: Table) -> None:
    """Locks and halves of a process that died, some of them from a time to come; and the clock ten years back."""
    for fault, shift in (("a dead lock holder's files", 0), ("the clock set back ten years", -YEARS)):
        with table.row(fault) as row:
            for writer in writers:
                place.forget(writer)
                for name in writer.leaves if writer.name not in NO_PARTS else ():
                    _litter(place.workspace / name, time.time() - shift)
                place.run(writer, fault=lambda shim, shift=shift: shim.fault_clock(ctypes.c_long(shift)))
                again, done = place.why_not_again(writer)
                if not row.add(writer.name, place.why_not_whole(writer) or again, done):
                    place.restore()
    place.restore()


def _litter(target: Path, moment: float) -> None:
    """What a process leaves that dies with the lock in its hand, dated."""
    target.parent.mkdir(parents=True, exist_ok=True)
    lock, part = target.parent / f".{target.name}.lock", target.parent / f".{target.name}.abcdefgh.part"
    if "." in target.name:  # a file needs no lock
        part.write_text("half")
    else:
        lock.write_text("")
        part.mkdir(exist_ok=True)
        (part / "half").write_text("half")
        os.utime(lock, (moment, moment))
    os.utime(part, (moment, moment))
