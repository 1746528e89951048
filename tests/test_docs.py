"""Claims about the pages in docs/: every toolkit command is one that the command line takes, and programs run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from toolkit.cli import command_line

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FAKE_CAMERA = """
import numpy
COLOR_BGR2GRAY, COLOR_BGR2RGB, INTER_AREA = 6, 4, 3
def cvtColor(frame, code): return frame.mean(2).astype("uint8") if code == COLOR_BGR2GRAY else frame[..., ::-1]
def resize(frame, size, interpolation): return frame[: size[1], : size[0]]
class VideoCapture:
    def __init__(self, number): self.left = 3
    def read(self): self.left -= 1; return self.left >= 0, numpy.full((48, 64, 3), 40, "uint8")
    def release(self): print("released")
"""


def commands_of(page: Path) -> list[str]:
    """What follows `toolkit` on the lines of fenced and indented blocks, up to a redirection or a comment."""
    text = page.read_text().replace("\\\n", " ")
    fenced = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    indented = re.findall(r"^    (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    lines = [*"\n".join(fenced).splitlines(), *indented]
    return [found[1] for line in lines if (found := re.match(r"(?:.* -m )?toolkit ([^#>]*)", line.strip()))]


COMMANDS = [(page.name, line) for page in PAGES for line in dict.fromkeys(commands_of(page))]


def require_understood(words: list[str]) -> None:
    """Parses as the command line does and stops before anything is done; raises its UsageError."""
    command = command_line()
    while hasattr(command, "commands"):
        assert words[0] in command.commands, f"no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    command.make_context(command.name, list(words))


def test_the_pages_have_commands() -> None:
    assert len(COMMANDS) > 25
    assert {"jetson.md", "scale.md", "README.md"} <= {page for page, _ in COMMANDS}


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_every_command_of_the_pages_is_one_that_is_understood(
    page: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-net.toml").touch()  # of --config, which is read with the command line
    require_understood(shlex.split(line))


@pytest.mark.parametrize("line", ["bundle pac x", "bundle pack x --onyl int8", "nosuch", "triton x --max-batch 0"])
def test_a_command_that_is_not_understood_is_found(line: str) -> None:
    with pytest.raises((AssertionError, typer.BadParameter.__base__)):  # type: ignore[arg-type]
        require_understood(line.split())


def test_the_camera_loop_answers_every_frame(tmp_path: Path) -> None:
    [program] = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/jetson.md").read_text(), re.DOTALL | re.MULTILINE)
    (tmp_path / "cv2.py").write_text(FAKE_CAMERA)
    (tmp_path / "camera.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "camera.py", str(ROOT / "tests/bundle/format-1")],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *answers, last = done.stdout.splitlines()
    assert len(answers) == 3
    assert all(re.fullmatch(r"(rows|columns|diagonals) [01]\.\d\d", answer) for answer in answers)
    assert last == "released"


def test_the_site_has_every_page_in_its_menu_and_loads_nothing_from_elsewhere() -> None:
    menu = (ROOT / "mkdocs.yml").read_text()
    named = set(re.findall(r"[\w/-]+\.md$", menu, re.MULTILINE))
    assert named - {"SECURITY.md", "CHANGELOG.md"} == {
        str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")
    }
    assert "https:" not in menu
    assert "font: false" in menu


def test_the_program_on_arrays_writes_a_set_that_is_read(tmp_path: Path) -> None:
    from toolkit.data import dataset_from_spec

    [program] = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/own-data.md").read_text(), re.DOTALL | re.MULTILINE)
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    dataset = dataset_from_spec(str(tmp_path / "set.npz"))
    assert (len(dataset.train), len(dataset.test), dataset.train.classes) == (80, 20, ("cat", "dog"))


def test_the_page_on_data_names_every_kind_of_file_and_every_named_set() -> None:
    from toolkit.data.class_folders import TEST_NAMES
    from toolkit.data.fit import RESIZES
    from toolkit.data.image_files import SUFFIXES
    from toolkit.data.source import NAMED

    text = (ROOT / "docs/own-data.md").read_text()
    for word in (*SUFFIXES, *NAMED, *(f"{name}/" for name in TEST_NAMES), *(f"--resize {way}" for way in RESIZES)):
        assert f"`{word}`" in text, word


def test_the_jetson_page_names_the_targets_as_their_files_say() -> None:
    from toolkit.target import target_from_name

    rows = re.findall(
        r"^\| [\d., ]+ \|.*\| ([\d.]+) \| `(\w+)` \|$", (ROOT / "docs/jetson.md").read_text(), re.MULTILINE
    )
    assert len(rows) == 4
    for version, name in rows:
        assert ".".join(map(str, target_from_name(name).tensorrt_version)) == version
