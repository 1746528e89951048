"""Every command of the README runs, in its order, in a workspace of its own."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
LINES = [
    line.partition("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]


def test_the_readme_has_commands_and_all_are_of_a_known_kind() -> None:
    assert {line.split()[0] for line in LINES} == {"make", ".", "toolkit"}


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("make")])
def test_a_make_target_exists(line: str) -> None:
    done = subprocess.run(
        ["make", "--dry-run", *line.split()[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"]},
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the repository's images, where the README's commands may write."""
    folder = tmp_path_factory.mktemp("clone")
    (folder / "calibration").mkdir()
    name = "resnet32x32-fashion"
    (folder / "calibration" / name).symlink_to(ROOT / "calibration" / name)
    return folder


def test_every_toolkit_command_does_what_it_says(clone: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "TOOLKIT_WORKSPACE"}
    for line in LINES:
        if not line.startswith("toolkit"):
            continue
        done = subprocess.run(
            [sys.executable, "-m", *shlex.split(line)], cwd=clone, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        assert json.loads(done.stdout.splitlines()[-1])["ok"] is True


def test_the_program_of_the_readme_runs(clone: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    lines = [
        "import numpy",
        "images = numpy.load('calibration/resnet32x32-fashion/evaluation.npz')['images'][:5]",
        program,
        "print(labels, probabilities.shape)",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=clone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith("(5, 10)")


def test_every_command_of_the_table_exists_and_every_command_is_in_the_table() -> None:
    from toolkit.cli import app

    named = re.findall(r"^\| `toolkit (\w+)(?: (\w+(?:\\\|\w+)+))?", README, re.MULTILINE)
    groups = {group.name: group.typer_instance for group in app.registered_groups}
    assert {name for name, _ in named} == {command.name for command in app.registered_commands} | groups.keys()
    for name, verbs in named:
        if name in groups:
            wanted = {command.name or command.callback.__name__ for command in groups[name].registered_commands}  # type: ignore[union-attr]
            assert set(verbs.split("\\|")) == wanted


def test_every_file_that_the_readme_names_is_written_by_export(clone: Path) -> None:
    rows = re.search(r"## What is in a bundle\n(.*?)\n## ", README, re.DOTALL)
    assert rows is not None
    for name in re.findall(r"^\| `([^`]+)`", rows[1], re.MULTILINE):
        if name == "engines/":
            pytest.importorskip("tensorrt_rtx_bindings", reason="engines need the TensorRT-RTX wheels (extra rtx)")
        assert (clone / "bundles/resnet32x32-fashion" / name).exists(), name
