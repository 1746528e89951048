"""Every command of README.md and of docs/bundle.md runs once: the demo's in the demo, the others in a copy of it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.demo import RESULTS
from tests.warm import python
from toolkit.workspace import DEFAULT_MODEL

ROOT = Path(__file__).parent.parent
README, BUNDLE = ((ROOT / name).read_text() for name in ("README.md", "docs/bundle.md"))
MAKEFILE = (ROOT / "Makefile").read_text()


def lines_of(page: str) -> list[str]:
    """The lines of a page's shell blocks, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    return [words for block in blocks for line in block.splitlines() if (words := line.partition("#")[0].strip())]


LINES = lines_of(README)
DEMO = [line.replace("$(DEMO)/", "") for line in re.findall(r"^\t\$\(BIN\)/(toolkit .*)", MAKEFILE, re.MULTILINE)]
OTHERS = [line for line in LINES if not line.startswith("make") and line not in DEMO]


def test_the_first_hour_is_what_the_readme_runs() -> None:
    assert set(lines_of((ROOT / "docs/first-hour.md").read_text())) <= set(LINES)


def test_the_readme_says_what_the_demo_does() -> None:
    assert [line for line in LINES if line in DEMO] == DEMO
    assert {line.split()[0] for line in OTHERS} == {"toolkit"}


@pytest.mark.parametrize(
    "target", sorted(set(re.findall(r"\bmake ([\w-]+)", README + (ROOT / "CONTRIBUTING.md").read_text())))
)
def test_a_make_target_that_is_named_exists(target: str) -> None:
    alone = {"PATH": os.environ["PATH"]}
    done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, env=alone)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def clone(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the demo's bundle and the repository's images, where further commands may write."""
    folder = tmp_path_factory.mktemp("clone")
    (folder / "calibration").mkdir()
    (folder / "calibration" / DEFAULT_MODEL).symlink_to(ROOT / "calibration" / DEFAULT_MODEL)
    (folder / "docs").symlink_to(ROOT / "docs")
    shutil.copytree(demo / "bundles" / DEFAULT_MODEL, folder / "bundles" / DEFAULT_MODEL)
    return folder


@pytest.mark.slow
def test_the_demo_did_what_its_lines_say(demo: Path) -> None:
    for line in DEMO:
        assert json.loads((demo / RESULTS / f"{line.split()[1]}.json").read_text())["ok"] is True, line
    assert (demo / RESULTS / "report.html").read_text().lower().startswith("<!doctype html>")


@pytest.mark.slow
@pytest.mark.parametrize("lines", [OTHERS, lines_of(BUNDLE)], ids=["README.md", "docs/bundle.md"])
def test_every_other_command_does_what_it_says(clone: Path, lines: list[str]) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "TOOLKIT_WORKSPACE"}
    for line in lines:
        if not line.startswith("toolkit "):
            if all(shutil.which(tool) for tool in re.findall(r"\b(?:openssl|xxd)\b", line)):
                subprocess.run(line, shell=True, cwd=clone, check=True, capture_output=True)
            continue
        words = [*python(), "-m", *shlex.split(line)]
        done = subprocess.run(words, cwd=clone, env=environment, capture_output=True, text=True)
        document = json.loads(done.stdout.splitlines()[-1])
        if line.endswith("--save") and "did not settle" in done.stderr:  # a busy machine: it is told so, and exits 1
            failed = [check["what"] for check in document["checks"] if check["verdict"] == "failed"]
            assert done.returncode == 1
            assert failed
            assert all(name.startswith("speed of ") for name in failed)
            continue
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        assert document["ok"] is True
        if line.startswith("toolkit train"):
            assert document["accuracy"]["top1_percent"] > 93, "a model that somebody would show"


@pytest.mark.slow
def test_the_program_of_the_readme_runs(clone: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    lines = [
        "import numpy",
        "images = numpy.load('calibration/resnet32x32-fashion/evaluation.npz')['images'][:5]",
        program,
        "print(labels, probabilities.shape)",
    ]
    done = subprocess.run([*python(), "-c", "\n".join(lines)], cwd=clone, capture_output=True, text=True)
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


@pytest.mark.slow
def test_every_file_that_the_page_of_the_bundle_names_is_written_by_export(demo: Path) -> None:
    for name in re.findall(r"^\| `([^`]+)`", BUNDLE, re.MULTILINE):
        if name == "engines/":
            pytest.importorskip("tensorrt_rtx_bindings", reason="engines need the TensorRT-RTX wheels (extra rtx)")
        assert (demo / "bundles" / DEFAULT_MODEL / name).exists(), name


def test_every_link_between_the_pages_leads_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text()):
            name, _, anchor = target.partition("#")
            file = (page.parent / name).resolve() if name else page
            assert file.exists(), f"{page.name}: {target}"
            headings = re.findall(r"^#+ (.*)", file.read_text(), re.MULTILINE) if anchor else []
            assert not anchor or anchor in [_anchor(heading) for heading in headings], f"{page.name}: {target}"


def _anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
