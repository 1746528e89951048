"""What people see, on stderr: lines, tables and progress bars. Rich is imported when something is shown."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from toolkit.cli.output import WANTED
from toolkit.cli.words import typed

if TYPE_CHECKING:
    from rich.console import Console

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

    wide = None if sys.stderr.isatty() else 100
    return Console(stderr=True, highlight=False, width=wide)


def say(text: str) -> None:
    """One line for people; rich markup allowed."""
    console().print(typed(text))


def plain(text: str) -> str:
    """Text in which square brackets are no markup, such as pip's extras."""
    from rich.markup import escape

    return escape(text)


def note(text: str) -> None:
    """A line that matters less; no markup."""
    console().print(typed(text), style="dim", markup=False)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table; the first column is text, the others are numbers. A column name ending in "<" holds text too."""
    from rich import box
    from rich.table import Table

    console().print(title, style="bold", markup=False)
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(columns):
        text = index == 0 or name.endswith("<")
        grid.add_column(name.removesuffix("<"), justify="left" if text else "right", overflow="fold")
    for row in rows:
        grid.add_row(*map(typed, row))
    console().print(grid)


@contextmanager
def steps() -> Iterator[Step]:
    """A progress bar for work in named steps: call it with (what, done, total); a total of 0 is not known: it spins."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
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
                tasks[what] = bars.add_task(what, total=total or None)
            bars.update(tasks[what], completed=done, total=total or None)

        yield step
