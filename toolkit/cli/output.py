"""Where a command's document goes: to stdout for machines, into a file, and not over the tables of a terminal."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from toolkit.cli.values import require_values
from toolkit.errors import ToolkitError
from toolkit.storage.replacing import require_replaceable

PANEL = "Output"
JSON = typer.Option(
    False, "--json", help="Print the JSON document on a terminal too; in a pipe it is always there.",
    rich_help_panel=PANEL,
)  # fmt: skip
QUIET = typer.Option(False, "--quiet", "-q", help="No tables and no progress: errors alone.", rich_help_panel=PANEL)
FILE = typer.Option(None, "-o", "--output", metavar="FILE.json", help="The document as a file, too.",
                    rich_help_panel=PANEL)  # fmt: skip


@dataclass
class Wanted:
    """What was typed; set anew by each command."""

    json: bool = False
    quiet: bool = False
    file: Path | None = None


WANTED = Wanted()


def on_stdout() -> bool:
    """Whether the document is printed: 18 to 39 KB would scroll what people read out of a terminal."""
    return WANTED.json or sys.stdout is None or not sys.stdout.isatty()


def reset() -> None:
    """Nothing is typed yet."""
    WANTED.json, WANTED.quiet, WANTED.file = False, False, None


def with_output(command: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """The command with its values looked at, --json and --quiet, and -o FILE.json unless it has an -o of its own."""
    signature, verb = inspect.signature(command), command.__module__.rpartition(".")[2]
    typed = {name: words[-1].partition("/")[0] for name, one in signature.parameters.items()
             if (words := getattr(one.default, "param_decls", None))}  # fmt: skip
    options: dict[str, tuple[Any, Any]] = {"print_json": (bool, JSON), "quiet": (bool, QUIET)}
    if not any("-o" in (getattr(one.default, "param_decls", None) or ()) for one in signature.parameters.values()):
        options["document_file"] = (Path | None, FILE)

    @functools.wraps(command)
    def wrapped(*words: Any, print_json: bool, quiet: bool, document_file: Path | None = None, **others: Any) -> Any:
        WANTED.json, WANTED.quiet = print_json, quiet
        require_values(verb, others, typed)
        if document_file is not None and not document_file.absolute().parent.is_dir():
            raise ToolkitError(
                "the document cannot be written", found=f"{document_file.absolute().parent} is no folder",
                allowed="a file in a folder that is there",
            )  # fmt: skip
        if document_file is not None:
            ours = b'"schema": "toolkit/'
            require_replaceable(document_file, "document of the toolkit", lambda data: ours in data, "output")
        WANTED.file = document_file  # not before: an error is written there, too
        return command(*words, **others)

    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in options.items()
    ]
    wrapped.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *added])  # type: ignore[attr-defined]
    wrapped.__annotations__ = command.__annotations__ | {name: kind for name, (kind, _) in options.items()}
    return wrapped
