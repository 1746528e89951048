"""Claims about docs/architecture.md: every file of the package is in it, with what its first line says, in layers.

python -m tests.test_architecture      writes the list anew
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.sources import nodes_of
from toolkit.errors import ToolkitError
from toolkit.storage.files import read_toml

ROOT = Path(__file__).parent.parent
PAGE, HEADING = ROOT / "docs" / "architecture.md", "## Every file\n"
FEWEST_FILES, MOST_FILES = 4, 12  # of a folder: enough to need one, and few enough to be taken in at a glance
LARGE = ("cli", "reporting")  # a verb a file, a section of the page a file


def listing() -> str:
    """The layers of the import rule, highest first, with each room's files and their first sentences."""
    (contract,) = read_toml(ROOT / "pyproject.toml", ToolkitError)["tool"]["importlinter"]["contracts"]
    parts = []
    for layer in contract["layers"]:
        for name in (part.strip() for part in layer.split("|")):
            parts.append(_room(ROOT.joinpath(*name.split("."))))
    return "\n".join(parts)


def _room(path: Path) -> str:
    if not path.is_dir():
        return f"- `{path.name}.py`: {_first(path.with_suffix('.py'))}\n"
    lines = [f"\n### `{path.name}/`", "", f"{_first(path / '__init__.py')}", ""]
    files = sorted(file for file in path.rglob("*.py") if file.name != "__init__.py")
    lines += [f"- `{file.relative_to(path)}`: {_first(file)}" for file in files]
    return "\n".join(lines) + "\n"


def _first(file: Path) -> str:
    """The first sentence of a file's docstring."""
    module = nodes_of(file)[0]
    assert isinstance(module, ast.Module)
    text = " ".join((ast.get_docstring(module) or "").split("\n\n")[0].split())
    return text.split(". ")[0].rstrip(".")


def test_every_file_is_in_the_list_with_what_its_first_line_says() -> None:
    assert PAGE.read_text().partition(HEADING)[2].strip() == listing().strip(), __doc__


def test_every_file_says_in_its_first_line_what_it_knows() -> None:
    assert all(_first(file) for file in (ROOT / "toolkit").rglob("*.py"))


def test_a_folder_has_4_to_12_files() -> None:
    for folder in (file.parent for file in (ROOT / "toolkit").glob("*/**/__init__.py")):
        count = len([file for file in folder.glob("*.py") if file.name != "__init__.py"])
        assert count >= FEWEST_FILES, f"{folder.name}: {count} files"
        assert count <= MOST_FILES or folder.name in LARGE, f"{folder.name}: {count} files"


def _is_there(name: str) -> bool:
    """Whether it is a room, a file, or something that a file or a class in it names."""
    path = ROOT.joinpath(*name.split("."))
    if path.is_dir() or path.with_suffix(".py").is_file():
        return True
    before, _, last = name.rpartition(".")
    if not before:
        return False
    around = ROOT.joinpath(*before.split("."))
    file = around / "__init__.py" if around.is_dir() else around.with_suffix(".py")
    return bool(re.search(rf"\b{last}\b", file.read_text())) if file.is_file() else _is_there(before)


def test_what_is_named_in_backticks_is_still_where_it_is_said_to_be() -> None:
    assert _is_there("toolkit.runtime.runner.Runner.logits")
    assert not _is_there("toolkit.graph.no_file")
    files = [file for room in ("toolkit", "tests", "benchmarks") for file in (ROOT / room).rglob("*.py")]
    for file in [*files, *ROOT.glob("docs/*.md"), *ROOT.glob("*.md")]:
        for name in set(re.findall(r"`(toolkit(?:\.\w+)+)`", file.read_text())) - {"toolkit.toml"}:
            assert _is_there(name), f"{file.relative_to(ROOT)}: {name}"


if __name__ == "__main__":
    PAGE.write_text(PAGE.read_text().partition(HEADING)[0] + HEADING + "\n" + listing().strip() + "\n")
