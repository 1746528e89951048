"""Claims about the first hour on a terminal of 80x24: each line "Next:" is typed as it stands, and no screen breaks."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.conftest import structured_set
from tests.cli.test_output import on_a_terminal
from tests.test_docs import require_understood

CLASSES = ("apple", "bread", "cheese", "dates")
SMALL = "--arch resnet8 --widths 8,16 --blocks 1,1 --strides 1,2 --epochs 6 --batch 16 --crop 0 --images 64"


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of class folders, as anybody has it, in a workspace of its own."""
    images, labels = structured_set(240, 4, seed=0, channels=3)
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = tmp_path / "photos" / CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOOLKIT_WORKSPACE", str(tmp_path))
    return tmp_path / "photos"


def screen_of(line: str, code: int = 0) -> str:
    """What a person sees at 80 columns, without colors and without what bars overwrote."""
    found, shown = on_a_terminal("-m", *shlex.split(line), columns=80)
    assert found == code, f"{line}\n{shown}"
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    lines = [part.rsplit("\r", 1)[-1].rstrip() for part in plain.replace("\r\n", "\n").splitlines()]
    assert "Traceback" not in plain
    assert '{"schema"' not in plain, "no JSON on a terminal"
    tables = [
        part for part in lines if not re.match(r"error: |  (?:found|allowed|try): ", part)
    ]  # these wrap as they are
    assert max(map(len, tables)) <= 80, max(tables, key=len)
    return "\n".join(lines)


def next_of(screen: str) -> list[str]:
    """The commands that a screen proposes."""
    (said,) = re.findall(r"^Next: (.*(?:\n.*)?)", screen, re.MULTILINE)[-1:]
    words = [part.strip() for part in re.split(r" and |; |, |\n\n", " ".join(said.split()))]
    return [word for word in words if word.startswith("toolkit ")]


@pytest.mark.slow
def test_the_first_hour_goes_from_photos_to_a_packed_bundle(photos: Path) -> None:
    assert "Nothing here deserves a second look." in screen_of("toolkit data photos")
    trained = screen_of(f"toolkit train my-net --data photos {SMALL}")
    assert "class by class" in trained
    assert "left" not in next(iter(reversed(trained.splitlines())))
    (export,) = next_of(trained)
    assert export == "toolkit export my-net --int8 --fp16"
    exported = screen_of(export)
    verify, bench = next_of(exported)
    verified = screen_of(f"{verify} --backend torch,ort")
    assert "my-net" in verified
    (then,) = next_of(verified)
    assert then == bench == "toolkit bench"
    benched = screen_of(f"{bench} --backend ort --batch 1 --seconds 0.05")
    assert "ms a call" in benched
    one = next(iter(sorted((photos / "bread").iterdir())))
    assert "bread" in screen_of(f"toolkit predict my-net {one}")
    assert "my-net" in screen_of("toolkit list")
    assert "my-net.tar" in screen_of("toolkit bundle pack bundles/my-net -o my-net.tar")
    assert "bread" in screen_of(f"toolkit predict my-net.tar {one} --backend ort")
    assert "class by class" in screen_of("toolkit verify --card my-net")
    for screen in (trained, exported, verified):
        for command in next_of(screen):
            require_understood(shlex.split(command)[1:])


@pytest.mark.slow
def test_a_slip_is_said_with_what_was_meant_at_80_columns(photos: Path) -> None:
    screen = screen_of("toolkit verify bundles/my-nett", code=1)
    assert "there is no bundle 'bundles/my-nett'" in screen
    assert "try:" in screen
