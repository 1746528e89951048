"""Claims about what people see: nobody's text is markup, and none steers a terminal."""

from __future__ import annotations

import ast
import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.conftest import Toolkit
from tests.cli.test_bad_input import refused
from tests.sources import nodes_of
from toolkit import cli
from toolkit.cli.console import _line, bold, console, note, say, shown, table
from toolkit.errors import ToolkitError

CLI = Path(__file__).parents[2] / "toolkit" / "cli"
STEERS = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u202a-\\u202e\\u2066-\\u2069\\ud800-\\udfff]")
HOSTILE = "a[/b] [red]x[/] :smile: \\[y] \x1b[31mred\x1b]0;title\x07 \x9b2J \u202eemit"


@given(st.text(max_size=40) | st.text("[]/\\\\:bred\x1b\x9b\ud800\u202e", max_size=40))
def test_a_text_is_shown_as_it_stands_without_what_steers_a_terminal(text: str) -> None:
    with console().capture() as seen:
        say(text, bold(text))
        note(text)
        table(text, (text, "b<"), [(text, bold(text))])
    assert STEERS.search(seen.get()) is None
    assert _line(text, bold(text)).plain == 2 * shown(text)
    document = cli._line({text: [text]})
    assert STEERS.search(document) is None
    assert json.loads(document) == {text: [text]}


@pytest.mark.slow
def test_a_name_that_is_markup_and_escapes_goes_through_every_command(toolkit: Toolkit, tmp_path: Path) -> None:
    tar = tmp_path / "a[/b]\x1b[31m.tar"
    answer = toolkit("bundle", "pack", "bundles/tiny", "-o", tar)
    assert answer.code == 0
    assert "a[/b]\\x1b[31m.tar" in answer.text.replace("\n", "")
    for words in (("bundle", "show", tar), ("bundle", "check", tar), ("selftest", tar, "--seconds", "0.02"),
                  ("init", tmp_path / "[/x]")):  # fmt: skip
        answer = toolkit(*words)
        assert answer.code == 0, answer.text
        assert STEERS.search(answer.text) is None
    for verb in ("verify", "bench", "report", "triton", "build", "inspect", "export"):
        answer = toolkit(verb, HOSTILE)
        refused(answer)
        assert STEERS.search(answer.text) is None


@pytest.mark.parametrize("words", [["bench", f"--{HOSTILE}"], [HOSTILE], ["bench", "--seconds", HOSTILE]])
def test_a_command_line_that_is_wrong_is_shown_without_escapes(words: list[str], toolkit: Toolkit) -> None:
    answer = toolkit(*words)
    assert answer.code == 2
    assert STEERS.search(answer.text) is None


def test_a_name_that_is_no_utf_8_is_one_error(toolkit: Toolkit, tmp_path: Path) -> None:
    name = os.fsdecode(bytes(tmp_path) + b"/\xff\xfe.tar")
    refused(toolkit("selftest", name))
    assert toolkit("bundle", "pack", "bundles/tiny", "-o", name).code == 0
    assert toolkit("bundle", "check", name).code == 0
    refused(toolkit("export", name.replace(".tar", ".onnx")))


def test_no_command_writes_to_people_but_through_the_console() -> None:
    for path in CLI.glob("*.py"):
        for node in nodes_of(path):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "print":
                assert path.name == "console.py", f"{path.name}:{node.lineno}"
            if isinstance(node, ast.keyword) and node.arg in ("markup", "emoji"):
                assert isinstance(node.value, ast.Constant)
                assert node.value.value is False


def test_an_error_is_shown_likewise(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from toolkit.cli import _tell

    _tell(f"error: {ToolkitError(HOSTILE, found=HOSTILE)}")
    assert STEERS.search(capsys.readouterr().err) is None
