"""Claims about where a document goes: into pipes and files, on a terminal only when it is asked for."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Toolkit
from tests.warm import python
from toolkit.cli import app, bundle
from toolkit.cli.console import significant

CACHE = ("-m", "toolkit", "cache")


def on_a_terminal(*words: str, columns: int = 80) -> tuple[int, str]:
    """Runs Python with a pty as stdout and stderr; its exit code and what stood there."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": str(columns), "TERM": "xterm"}
    with subprocess.Popen([*python(), *words], stdout=theirs, stderr=theirs, env=environment) as running:
        os.close(theirs)
        parts = []
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # what Linux says where the other side is closed
                break
            if not part:
                break
            parts.append(part)
    os.close(ours)
    return running.returncode, b"".join(parts).decode()


@pytest.mark.slow
def test_a_terminal_shows_tables_and_no_json_unless_it_is_asked_for() -> None:
    code, shown = on_a_terminal(*CACHE)
    assert code == 0
    assert "in all" in shown
    assert "{" not in shown
    code, shown = on_a_terminal(*CACHE, "--json", "--quiet")
    assert code == 0
    assert json.loads(shown)["ok"] is True


def test_a_pipe_gets_the_document_and_quiet_leaves_the_rest_out(toolkit: Toolkit) -> None:
    answer = toolkit("cache", "--quiet")
    assert answer.document["ok"] is True
    assert answer.text == ""
    assert "in all" in toolkit("cache").text


def test_errors_are_said_in_spite_of_quiet(toolkit: Toolkit) -> None:
    answer = toolkit("verify", "nowhere", "--quiet")
    assert answer.code == 1
    assert "error:" in answer.text


def test_the_document_goes_into_a_file_too(toolkit: Toolkit, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    answer = toolkit("bundle", "show", "-o", file)
    assert json.loads(file.read_text()) == answer.document
    answer = toolkit("selftest", "nowhere", "-o", file)
    assert answer.code == 1
    assert json.loads(file.read_text()) == answer.document, "a failure is a document, too"


def test_a_file_that_cannot_be_is_said_before_the_work(toolkit: Toolkit, tmp_path: Path) -> None:
    answer = toolkit("verify", "-o", tmp_path / "none" / "results.json")
    assert answer.code == 1
    assert "the document cannot be written" in answer.text
    assert "run ort" not in answer.text


@pytest.mark.parametrize("group", [app, bundle.app], ids=["toolkit", "toolkit bundle"])
def test_every_command_has_the_options(group: object) -> None:
    for command in group.registered_commands:  # type: ignore[attr-defined]
        names = command.callback.__annotations__
        assert {"print_json", "quiet"} <= set(names), command.name


NUMBERS = ("101.273", "12,345", "99.99 %", "0.0961")
SHOW = """
from toolkit.cli.console import table
columns = ("runner", "batch", "p50", "a share", "p99.9", "what it is<")
rows = [("trt int8-fp16 without graphs", "64", *%r[:3], "text that can be wrapped where words end, at any width")] * 2
table("A title", columns, rows, drop=("p99.9", "a share"))
"""


@pytest.mark.parametrize("columns", [60, 80, 100, 140])
def test_no_number_and_no_word_is_broken_at_any_width(columns: int) -> None:
    code, shown = on_a_terminal("-c", SHOW % (NUMBERS,), columns=columns)
    assert code == 0
    lines = [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()]
    assert max(map(len, lines)) <= columns
    assert " ".join(lines).split().count("101.273") == 2
    assert ("not shown at" in shown) == ("99.99 %" not in shown)
    told = f"{SHOW} {' '.join(NUMBERS)} not shown at {columns} columns: p99.9, a share"
    known = set(re.findall(r"[\w.%:-]+(?:,\d+)?", told))
    for word in " ".join(lines).split():
        assert word.rstrip(",") in known or set(word) == {"─"}, f"{word} is a part of something"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(101.273, "101"), (8.1674, "8.17"), (0.09606, "0.0961"), (1234.5, "1234"), (0, "0"), (9.999, "10.00")],
)
def test_three_digits_say_what_was_measured(value: float, shown: str) -> None:
    assert significant(value) == shown
