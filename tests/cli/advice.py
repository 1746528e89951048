"""Advice in what a command printed: commands as they stand, and options for the one that was typed.

Every command that a test of the command line runs in this process has its advice looked at here.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import typer

from tests.test_docs import require_understood
from toolkit.cli import command_line

ELSEWHERE = ("pip ", "apt ", "torchrun", "python ", "openssl", "train again")  # whose options are no command's of ours
UsageError: Any = typer.BadParameter.__base__


def require_good_advice(typed: list[str], document: dict[str, Any], text: str) -> None:
    """Every command that is advised parses; every option that is to be added is one of the command that was typed."""
    for line in {*lines_of_advice(document, text)}:
        before, *commands = re.split(r"\btoolkit (?=[a-z]+\b)", line)
        for words in commands:
            assert parsed(words), f"{shlex.join(typed)}\nadvises: {line}"
        if commands or not any(tool in before for tool in ELSEWHERE):
            named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", before))
            allowed = options_of(before.split()[:1]) | options_of(typed)  # "export again with --int8"
            assert named <= allowed or not allowed, f"{shlex.join(typed)}\nadvises: {line}"


def lines_of_advice(document: dict[str, Any], text: str) -> Iterator[str]:
    """What an error's "try:", a cause's "fix" and a line "Next:" say."""
    yield from (str(value) for value in _fixes(document) if value)
    whole = re.sub(r"(--[a-z-]+) *\n(?=\S)", r"\1 ", text)  # a path that is longer than what was left of a line
    yield from re.findall(r"^(?:  try:|Next:)\s+(.*)$", whole, re.MULTILINE)


def _fixes(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from [entry] if key in ("fix", "next") and isinstance(entry, str) else _fixes(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _fixes(entry)


def parsed(text: str) -> list[str] | None:
    """The longest beginning of a text that is a command, with every option of the sentence that it begins; or None."""
    sentence = re.split(r"[;,] | \(|\) |\. |: ", f"{text} ")[0].strip(" .,;:)?'`")
    try:
        words = shlex.split(sentence)
    except ValueError:
        words = sentence.split()
    needed = max((place for place, word in enumerate(words) if word.startswith("--")), default=0) + 1
    for end in range(len(words), needed - 1, -1):
        try:
            require_understood(words[:end])
        except AssertionError:
            return None if end == needed else parsed(" ".join(words[: end - 1]))
        except UsageError:
            continue
        except typer.Exit:  # --help
            pass
        return words[:end]
    return None


def options_of(typed: list[str]) -> set[str]:
    """Of the command that was typed; none where no command was."""
    command = command_line()
    for word in typed:
        if hasattr(command, "commands"):
            if word not in command.commands:
                return set()
            command = command.commands[word]
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
