"""Claims about words: the library names no option and no command, and every argument that it names has an option."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import toolkit
from tests.sources import nodes_of
from tests.test_docs import require_understood
from toolkit.cli import command_line
from toolkit.cli.words import CODE, COMMANDS, typed, typed_document

PACKAGE = Path(toolkit.__file__).parent
FOR_A_SHELL = ("cli", "reporting")  # they write for people at a shell, but for what reads documents
LIBRARY = [("reporting", f"{name}.py") for name in ("evidence", "gathering", "report", "result")]


@pytest.mark.parametrize(
    ("said", "is_typed"),
    [
        ("add `convert=True`: it resizes", "add --convert: it resizes"),
        ("leave `dla_core=` out", "leave --dla out"),
        ("`mean=(0.5, 0.25), std=(1, 1)` or `size=(32, 32, 3)`", "--mean 0.5,0.25 --std 1,1 or --size 32x32x3"),
        ("`batch=(1, 8, 64)`", "--batch 1:8:64"),
        ("`batch=6` or `size=(H, W, C)`", "--batch 6 or --size HxWxC"),
        ("""`kwargs={"num_classes": 10}`""", """--kwargs '{"num_classes": 10}'"""),
        ("`kwargs=...` gives it arguments", "--kwargs ... gives it arguments"),
        ("`toolkit.build('my bundle', precisions='int8')`", "toolkit build 'my bundle' --precision int8"),
        ("`toolkit.export('a', options=ExportOptions(int8=True, flip=False))`", "toolkit export a --int8 --no-flip"),
        ("`toolkit.bench` decides", "toolkit bench decides"),
        ("`x=[[` and `toolkit.x y`", "`x=[[` and `toolkit.x y`"),
        ("`data=FOLDER` has a `labels` array", "--data FOLDER has a `labels` array"),
    ],
)  # fmt: skip
def test_python_is_said_as_it_is_typed(said: str, is_typed: str) -> None:
    assert typed(said) == is_typed
    assert typed_document({"fix": [said, 1, None]}) == {"fix": [is_typed, 1, None]}


def _commands(command: Any, name: str = "toolkit") -> dict[str, Any]:
    found = {name: command}
    for verb, inner in getattr(command, "commands", {}).items():
        found |= _commands(inner, f"{name} {verb}")
    return found


COMMAND_LINE = _commands(command_line())
PARAMETERS = [parameter for command in COMMAND_LINE.values() for parameter in command.params]
LONG = {word for parameter in PARAMETERS for word in (*parameter.opts, *parameter.secondary_opts) if word[:2] == "--"}


def _texts(path: Path) -> list[tuple[int, str]]:
    """Every text of a file that is no docstring, with 1 for what is put into it."""
    nodes = nodes_of(path)
    docs = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    inner = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    found = []
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "1" for part in node.values]
            found.append((node.lineno, "".join(map(str, parts))))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not {id(node)} & (docs | inner):
            found.append((node.lineno, node.value))
    return found


VERBS = {name.partition(" ")[2] for name in COMMAND_LINE} - {""}


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """What the library says, by file and line."""
    return {
        f"{path.relative_to(PACKAGE)}:{line}": text
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).parts[0] not in FOR_A_SHELL or (path.parent.name, path.name) in LIBRARY
        for line, text in _texts(path)
    }


def test_the_library_names_no_option_and_no_command(texts: dict[str, str]) -> None:
    named = {
        place: text
        for place, text in texts.items()
        if LONG & set(re.findall(r"--[a-z][a-z0-9-]*", text)) or set(re.findall(r"\btoolkit ([a-z]+)", text)) & VERBS
    }
    assert named == {}


def test_what_the_library_says_in_python_can_be_typed(texts: dict[str, str]) -> None:
    marked = {place: text for place, text in texts.items() if CODE.search(text)}
    assert len(marked) > 40
    for place, text in marked.items():
        words = typed(text)
        assert not CODE.search(words), f"{place}: {words}"
        named = set(re.findall(r"--[a-z][a-z0-9-]*", words))
        assert named <= LONG, f"{place}: {words}"
        assert set(re.findall(r"\btoolkit ([a-z]+)", words)) <= VERBS | {"what"}, f"{place}: {words}"


def test_every_call_that_the_library_advises_is_a_command_that_is_understood(texts: dict[str, str]) -> None:
    spans = {found[0] for text in texts.values() for found in CODE.finditer(text) if "toolkit." in found[0]}
    assert len(spans) > 3
    for span in spans:
        words = shlex.split(typed(span))
        if words[1] != "load":
            require_understood(words[1:])


def test_every_command_without_a_function_is_asked_for_somewhere(texts: dict[str, str]) -> None:
    for words in COMMANDS:
        assert any(words in text for text in texts.values()), words
