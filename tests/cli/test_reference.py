"""Claims about docs/cli.md: it has every command, argument and option, as --help says them.

`python -m tests.cli.test_reference` writes it anew.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.models import ArgumentInfo, ParameterInfo

from toolkit.cli import app

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
INTRODUCTION = """\
# Every command

What `--help` says, on one page. A command exits 0 (done), 1 (not what was asked, with the reason) or 2 (wrong command
line). What people read goes to stderr; stdout in a pipe or a file gets one JSON document ([schema/](schema/README.md)).
"""
TAKES = {int: "NUMBER", float: "NUMBER", Path: "PATH", bool: "", str: "TEXT"}
MARKS = re.compile(r"\[/?(?:bold|dim|italic)\]")  # what the terminal turns into colors

Command = Callable[..., Any]


def reference() -> str:
    """The whole page."""
    return "\n".join([INTRODUCTION, *(_section(words, command) for words, command in commands(app))])


def commands(group: typer.Typer, words: str = "toolkit") -> Iterator[tuple[str, Command]]:
    """Each command as it is typed, with the function behind it."""
    for info in group.registered_commands:
        assert info.callback
        yield f"{words} {info.name or info.callback.__name__}", info.callback
    for inner in group.registered_groups:
        assert inner.typer_instance
        yield from commands(inner.typer_instance, f"{words} {inner.name}")


def parameters(command: Command) -> list[tuple[str, Any, ParameterInfo]]:
    """Name, type and description of each argument and option that is shown."""
    hints = typing.get_type_hints(command, vars(inspect.getmodule(command)))
    found = [(name, hints[name], each.default) for name, each in inspect.signature(command).parameters.items()]
    return [entry for entry in found if isinstance(entry[2], ParameterInfo) and not entry[2].hidden]


def _section(words: str, command: Command) -> str:
    text, _, rest = inspect.cleandoc(command.__doc__ or "").partition("Example")
    examples = [line.strip() for line in rest.removeprefix("s").removeprefix(":").splitlines() if line.strip()]
    named = [_argument(name, info) for name, _, info in parameters(command) if isinstance(info, ArgumentInfo)]
    parts = [f"## {words}", f"```text\n{' '.join([words, *named, '[OPTIONS]'])}\n```", _plain(text.strip())]
    parts += ["```sh\n" + "\n".join(examples) + "\n```"] if examples else []
    rows = [_row(*entry) for entry in parameters(command)]
    parts += ["| | |\n|---|---|\n" + "\n".join(rows)] if rows else []
    return "\n\n".join(parts) + "\n"


def _argument(name: str, info: ParameterInfo) -> str:
    word = (info.metavar or name.upper()).strip("[]")
    return word if info.default is ... else f"[{word}]"


def _row(name: str, hint: Any, info: ParameterInfo) -> str:
    words = [_argument(name, info)] if isinstance(info, ArgumentInfo) else list(info.param_decls or ())
    assert words, f"{name} has no name that is typed"
    takes = "" if isinstance(info, ArgumentInfo) else _takes(hint, info)
    said = ", ".join(f"`{word}`" for word in [*words[:-1], f"{words[-1]} {takes}".rstrip()])
    said = said.replace("|", "\\|")
    return f"| {said} | {_plain(info.help or '')}{_limits(info)}{_default(info)} |"


def _takes(hint: Any, info: ParameterInfo) -> str:
    return info.metavar or next(TAKES[part] for part in (*typing.get_args(hint), hint) if part in TAKES)


def _limits(info: ParameterInfo) -> str:
    low = "" if info.min is None else f" from {info.min:,.12g}"
    high = "" if info.max is None else f" to {info.max:,.12g}"
    return f" ({(low + high).strip()})" if low or high else ""


def _default(info: ParameterInfo) -> str:
    """The default, where its help does not say it already."""
    said = info.default in (None, ..., "") or isinstance(info.default, bool) or "(default" in (info.help or "")
    return "" if said else f" (default: {info.default})"


def _plain(text: str) -> str:
    return MARKS.sub("", text).replace("|", "\\|").replace("<", "&lt;")


def test_the_page_says_what_the_commands_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), __doc__


@pytest.mark.parametrize(
    ("words", "command"), [*commands(app)], ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_command_has_an_example_and_every_option_its_words(words: str, command: Command) -> None:
    assert f"```sh\n{words}" in _section(words, command)
    assert all(info.help for _, _, info in parameters(command))


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
