"""Claims about docs/troubleshooting.md: what it quotes is said by the code; it knows every cause of TensorRT's words.

`python -m tests.test_troubleshooting` writes the part about TensorRT anew.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from tests.sources import nodes_of
from toolkit.benchmarking.warnings import Kind
from toolkit.cli.words import typed
from toolkit.runtime.trt.causes import CAUSES

ROOT = Path(__file__).parent.parent
PAGE, HEADING = ROOT / "docs" / "troubleshooting.md", "## What TensorRT means\n"
TEXT = PAGE.read_text(encoding="utf-8")
INTRODUCTION = """
Where a build fails, or an engine does not open, the error begins with one of these. Its first lines are TensorRT's own,
and the whole log lies beside the engine (`NAME.engine.log`).
"""


def causes() -> str:
    """A row for each cause, in the order in which they are believed."""
    rows = [f"| {_cell(cause.means)} | {_said(cause.signs)} | {_cell(typed(cause.cure))} |" for cause in CAUSES]
    return INTRODUCTION + "\n| the error says | TensorRT's words | do |\n|---|---|---|\n" + "\n".join(rows) + "\n"


def _said(signs: tuple[str, ...]) -> str:
    return "; ".join(f"`{sign.strip()}`" for sign in signs)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def texts_of_the_code() -> Iterator[str]:
    """Every text of the package, with `…` for what is put in."""
    for file in (ROOT / "toolkit").rglob("*.py"):
        for node in nodes_of(file):
            if isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def quoted() -> list[str]:
    """What the first column of the tables quotes."""
    return re.findall(r"^\| `([^`]+)`", TEXT.partition(HEADING)[0], re.MULTILINE)


@pytest.fixture(scope="module")
def said() -> list[str]:
    return [typed(text) for text in texts_of_the_code()]


def test_the_page_quotes_many_errors() -> None:
    assert len(quoted()) > 50


@pytest.mark.parametrize("phrase", quoted())
def test_what_is_quoted_is_said_by_the_code(said: list[str], phrase: str) -> None:
    pattern = re.compile(".*".join(map(re.escape, phrase.split("…"))))
    assert any(pattern.search(text) for text in said)


def test_every_warning_of_bench_is_explained() -> None:
    assert [kind for kind in get_args(Kind) if f"`{kind}`" not in TEXT] == []


def test_the_part_about_tensorrt_is_what_the_code_knows() -> None:
    assert TEXT.partition(HEADING)[2] == causes(), __doc__


if __name__ == "__main__":
    PAGE.write_text(TEXT.partition(HEADING)[0].rstrip() + "\n\n" + HEADING + causes(), encoding="utf-8")
