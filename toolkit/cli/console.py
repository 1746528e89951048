"""What people see, on stderr: lines, tables and progress bars, in which nobody's text is markup or steers a terminal.

A text is shown as it stands: square brackets and colons are no markup, and whatever would move a cursor, rename a
window or turn the writing round is shown as its code. Color and weight are values, not signs in a text. Rich is
imported when something is shown.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from toolkit.cli.output import WANTED
from toolkit.cli.words import typed

if TYPE_CHECKING:
    from rich.console import Console
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
    """One line for people, of texts as they stand and texts with a style."""
    console().print(_line(*parts))


def note(text: str) -> None:
    """A line that matters less."""
    console().print(_line(text, style="dim"))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str | Styled]]) -> None:
    """A table; the first column is text, the others are numbers. A column name ending in "<" holds text too."""
    from rich import box
    from rich.table import Table

    console().print(_line(title, style="bold"))
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(columns):
        text = index == 0 or name.endswith("<")
        grid.add_column(_line(name.removesuffix("<")), justify="left" if text else "right", overflow="fold")
    for row in rows:
        grid.add_row(*map(_line, row))
    console().print(grid)


@contextmanager
def steps() -> Iterator[Step]:
    """A progress bar for work in named steps: call it with (what, done, total); a total of 0 is not known: it spins."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
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
                tasks[what] = bars.add_task(shown(what), total=total or None)
            bars.update(tasks[what], completed=done, total=total or None)

        yield step
