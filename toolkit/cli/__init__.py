"""The command line: one file a verb. Text for people goes to stderr, one JSON document to stdout or a file."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from functools import cache as cached
from typing import Any

import typer

from toolkit.cli import (
    bench,
    build,
    bundle,
    cache,
    calibrate,
    data,
    doctor,
    export,
    init,
    inspect,
    output,
    predict,
    report,
    selftest,
    sensitivity,
    train,
    triton,
    verify,
)
from toolkit.cli import list as listing
from toolkit.cli.console import CONTROL, shown
from toolkit.cli.stopping import STOPS, close_ears, ended_where_deaf, listen, stopped_by
from toolkit.cli.values import WrongValue
from toolkit.cli.words import typed_document
from toolkit.errors import ToolkitError
from toolkit.lazy import needs
from toolkit.storage.documents import Failure, failure_of
from toolkit.storage.files import os_errors, write_json
from toolkit.version import __version__

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From a trained 32x32 ResNet to a checked INT8 TensorRT bundle for the edge.",
    epilog="The walk: toolkit train, toolkit export --int8 --fp16, toolkit verify, toolkit bench. "
    "Each command has --help with examples. In a pipe, or with --json, stdout gets one JSON document.",
)
INTERRUPTED = 130  # what newer versions of Typer answer to Ctrl-C
# Click's, or Typer's own copy of it in newer versions; only the subclass has a public name in both.
UsageError: Any = typer.BadParameter.__base__
for verb in (
    data, train, calibrate, sensitivity, export, build, inspect, verify, bench, report, predict, selftest, triton,
    listing, doctor, cache, init,
):  # fmt: skip
    app.command(verb.__name__.rpartition(".")[2])(output.with_output(verb.command))
for registered in bundle.app.registered_commands:
    if registered.callback is not None:
        registered.name = registered.name or registered.callback.__name__
        registered.callback = output.with_output(registered.callback)
app.add_typer(bundle.app, name="bundle")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None:
    pass


@cached
def command_line() -> Any:
    """Every command and option as Click knows them; to build them takes longer than many a command."""
    return typer.main.get_command(app)


def run(arguments: list[str] | None = None) -> None:
    """Runs a command and exits: 0 it did what was asked, 1 it did not, 2 the command line is wrong, 143 SIGTERM."""
    output.reset()
    listen()
    if sys.stderr is None:  # closed, as in 2>&-: nobody listens, and the work is done all the same
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
    with ended_where_deaf(lambda: _printed(_interrupted("what was half-written goes with the next command")[1])):
        code, document = _outcome(arguments)
    if code and (first := stopped_by()) in STOPS:
        code = 128 + first  # as a shell says it: 143 after SIGTERM
    close_ears()
    code = max(code, _kept(document), _printed(document))
    _leave_the_others(code)
    raise SystemExit(code)


def _kept(document: dict[str, Any] | None) -> int:
    """Writes the document into the file of -o; 1 where that cannot be."""
    if document is None or output.WANTED.file is None:
        return 0
    try:
        write_json(output.WANTED.file, document)
    except ToolkitError as error:
        _tell(f"\nerror: {error}")
        return 1
    return 0


def _printed(document: dict[str, Any] | None) -> int:
    """Writes a document as one line to stdout; 1 where stdout is there and cannot take it."""
    if sys.stdout is None:  # closed, as in >&-
        return 0
    try:
        if document is not None and output.on_stdout():
            print(_line(document))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader (head, say) has gone; there is nobody to tell
        sys.stdout = None
    except OSError as error:
        _tell(f"\nerror: cannot write to stdout\n  found:   {error.strerror}")
        sys.stdout = None
        return 1
    return 0


def _line(document: dict[str, Any]) -> str:
    """One line of JSON, with escapes for what steers a terminal, and where stdout's encoding leaves no choice."""
    line = json.dumps(document, ensure_ascii=False, allow_nan=False)
    line = CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", line)
    try:
        line.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(document, allow_nan=False)
    return line


def _tell(text: str) -> None:
    """A line for people, where stderr takes one."""
    with contextlib.suppress(OSError):
        print(shown(text), file=sys.stderr)


def _leave_the_others(code: int) -> None:
    """One of several training processes ends in its own way, see `end_at_once`."""
    distributed = sys.modules.get("toolkit.training.distributed")
    if distributed is not None and sys.stdout is not None:
        try:
            world = distributed.world_from_environment()
        except ToolkitError:
            return
        distributed.end_at_once(world, code)


def _interrupted(left: str = "nothing was half-written") -> tuple[int, dict[str, Any]]:
    _tell(f"\ninterrupted; {left}")
    return 1, Failure(False, "Interrupted", "interrupted").as_dict()


def _outcome(arguments: list[str] | None) -> tuple[int, dict[str, Any] | None]:
    try:
        with os_errors(None, "use"), needs("run this command"):  # what no command had looked at more closely
            words = sys.argv[1:] if arguments is None else arguments
            answer = command_line()(args=words, standalone_mode=False, prog_name="toolkit", obj=words)
    except ToolkitError as error:
        _tell(f"\nerror: {error}")
        return 2 if isinstance(error, WrongValue) else 1, typed_document(failure_of(error).as_dict())
    except UsageError as error:
        error.show(said := io.StringIO())
        _tell(said.getvalue().rstrip())
        return 2, Failure(False, "UsageError", error.format_message()).as_dict()
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    if answer == INTERRUPTED:
        return _interrupted()
    if isinstance(answer, dict):
        return (0 if answer.get("ok") else 1), typed_document(answer)
    return int(answer or 0), None  # --help and --version
