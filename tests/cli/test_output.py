"""Claims about where a document goes: into pipes and files, on a terminal only when it is asked for."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Toolkit
from toolkit.cli import app, bundle

CACHE = ("-m", "toolkit", "cache")


def on_a_terminal(*words: str, columns: int = 80) -> tuple[int, str]:
    """Runs Python with a pty as stdout and stderr; its exit code and what stood there."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": str(columns), "TERM": "xterm"}
    with subprocess.Popen([sys.executable, *words], stdout=theirs, stderr=theirs, env=environment) as running:
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
