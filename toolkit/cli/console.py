"""What people see, on stderr: lines, tables and progress bars, in which nobody's text is markup or steers a terminal.

A text is shown as it stands: square brackets and colons are no markup, and whatever would move a cursor, rename a
window or turn the writing round is shown as its code. Color and weight are values, not signs in a text. Rich is
imported when something is shown.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from toolkit.cli.output import WANTED
from toolkit.cli.words import typed

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

# C0 but tab and newline, DEL, C1; marks that turn the writing round; halves of pairs, which no encoding takes.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
Step = Callable[[str, int, int], None]


def console() -> Console:
    """The console on stderr, silent with --quiet."""
    found = _console()
    found.quiet = WANTED.quiet
    return found


@cache
def _console() -> Console:
    """100 columns where stderr is no terminal, so that logs read alike everywhere."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, emoji=False, width=None if sys.stderr.isatty() else 100)


class Styled(NamedTuple):
    """A text with a style of rich's: "bold", "red"."""

    text: str
    style: str


def bold(text: str) -> Styled:
    """What to type next, and what was written."""
    return Styled(text, "bold")


def red(text: str) -> Styled:
    """What failed."""
    return Styled(text, "red")


def yellow(text: str) -> Styled:
    """What may be wrong."""
    return Styled(text, "yellow")


def green(text: str) -> Styled:
    """What holds."""
    return Styled(text, "green")


def shown(text: str) -> str:
    """A text as it is typed, in which every control character stands as its code, so that a terminal obeys none."""
    return CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", typed(text))


def _line(*parts: str | Styled, style: str = "") -> Text:
    from rich.text import Text

    pairs = [Styled(part, "") if isinstance(part, str) else part for part in parts]
    return Text.assemble(*((shown(text), own) for text, own in pairs), style=style)


def say(*parts: str | Styled) -> None:
    """One line for people, of texts as they stand and texts with a style; with --quiet what failed alone."""
    found = console()
    found.quiet = WANTED.quiet and not any(isinstance(part, Styled) and part.style == "red" for part in parts)
    found.print(_line(*parts))


def note(text: str) -> None:
    """A line that matters less."""
    console().print(_line(text, style="dim"))


def significant(value: float) -> str:
    """Three significant digits, as in 101, 8.17 and 0.0961: more are noise, and break narrow columns."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str | Styled]], *, drop: Sequence[str] = ()
) -> None:
    """A table; the first column is text, the others are numbers. A column name ending in "<" holds text too.

    Numbers and words are never broken: on a narrow terminal text is wrapped, then the columns named in `drop` are left
    out, one after the other, and that is said.
    """
    console().print(_line(title, style="bold"))
    kept = [_Column(name, index == 0, [_line(row[index]) for row in rows]) for index, name in enumerate(columns)]
    kept = [column for column in kept if column.name in ("", columns[0]) or any(column.cells)]
    left_out: list[str] = []
    for name in drop:
        if _least(kept) <= console().width:
            break
        left_out += [column.name for column in kept if column.name == name.removesuffix("<")]
        kept = [column for column in kept if column.name not in left_out]
    console().print(_grid(kept))
    if left_out:
        note(f"not shown at {console().width} columns: {', '.join(left_out)}")


LONGEST_NAME = 32  # in the first column, as an engine's file is
LONGEST_WORD = 24  # of other text that is kept whole: paths and hashes may be folded
BETWEEN = 3  # columns: a space on each side, and one that divides them


class _Column:
    """Cells with the widths that they need: whole, and where text is wrapped."""

    def __init__(self, name: str, first: bool, cells: list[Text]) -> None:
        self.name, self.text, self.cells = name.removesuffix("<"), first or name.endswith("<"), cells
        lines = [self.name, *(cell.plain for cell in cells)]
        self.most = max(map(len, lines))
        words = self.most if first else max((len(word) for line in lines for word in line.split()), default=0)
        longest = LONGEST_NAME if first else LONGEST_WORD
        self.least = min(words, longest, self.most) if self.text else self.most


def _least(columns: Sequence[_Column]) -> int:
    return sum(column.least + BETWEEN for column in columns)


def _grid(columns: Sequence[_Column]) -> Table:
    from rich import box
    from rich.table import Table

    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    room = console().width - _least(columns)
    for column in columns:
        width = column.least + max(0, min(column.most - column.least, room))  # the first ones are wrapped last
        room -= width - column.least
        justify: Literal["left", "right"] = "left" if column.text else "right"
        grid.add_column(_line(column.name), justify=justify, overflow="fold", width=width)
    for cells in zip(*(column.cells for column in columns), strict=True):
        grid.add_row(*cells)
    return grid


def show_unavailable(reasons: Mapping[str, str], asked: bool) -> None:
    """What did not run: in one line, or with its reason where it was asked for by name."""
    if asked:
        for name, reason in reasons.items():
            say(yellow(f"not run: {name}"), f": {reason}")
    elif reasons:
        note(f"not run here: {', '.join(reasons)}; toolkit doctor says why, and so does the document")


BESIDE = 42  # columns for the numbers beside a step's name, and for a bar


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: max(0, width - 1)]}\u2026"


@contextmanager
def steps() -> Iterator[Step]:
    """A progress bar for work in named steps: call it with (what, done, total); a total of 0 is not known: it spins."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left", markup=False),
        TimeRemainingColumn(),
    )
    if not console().is_terminal:
        last: list[str] = []

        def line(what: str, done: int, total: int) -> None:
            if last[-1:] != [what]:
                last.append(what)
                note(f"{what} ...")

        yield line
        return
    with Progress(*columns, console=console(), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def step(what: str, done: int, total: int) -> None:
            if what not in tasks:
                for task in tasks.values():
                    bars.update(task, completed=bars.tasks[task].total)
                tasks[what] = bars.add_task(_cut(shown(what), console().width - BESIDE), total=total or None)
            bars.update(tasks[what], completed=done, total=total or None)

        yield step
