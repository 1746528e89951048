"""Claims about the first hour on a terminal of 80x24: each line "Next:" is typed as it stands, and no screen breaks.

The screens are kept in `screens/`; `python -m tests.cli.test_first_hour` writes them anew.
"""

from __future__ import annotations

import re
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from tests.cli import screens
from tests.cli.conftest import structured_set
from tests.cli.test_output import on_a_terminal
from tests.test_docs import require_understood

CLASSES = ("apple", "bread", "cheese", "dates")
SMALL = "--arch resnet8 --widths 8,16 --blocks 1,1 --strides 1,2 --epochs 6 --batch 16 --crop 0 --images 64"


def photos_in(workspace: Path) -> Path:
    """A folder of class folders, as anybody has it."""
    images, labels = structured_set(240, 4, seed=0, channels=3)
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = workspace / "photos" / CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index}.png")
    return workspace / "photos"


@contextmanager
def workspace() -> Iterator[Path]:
    """A workspace of its own, whose path is as long as any other's: where lines are wrapped depends on it."""
    with tempfile.TemporaryDirectory(prefix="hour-") as made, pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        patch.setenv("TOOLKIT_WORKSPACE", made)
        yield Path(made)


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


def first_hour(photos: Path) -> dict[str, str]:
    """From photos to a packed bundle: every screen by its name, and what each must hold."""
    shown = {"data": screen_of("toolkit data photos")}
    assert "Nothing here deserves a second look." in shown["data"]
    shown["train"] = trained = screen_of(f"toolkit train my-net --data photos {SMALL}")
    assert "class by class" in trained
    assert "left" not in next(iter(reversed(trained.splitlines())))
    (export,) = next_of(trained)
    assert export == "toolkit export my-net --int8 --fp16"
    exported = screen_of(export)
    if find_spec("tensorrt_rtx_bindings"):  # its engines are in the table
        # Which method was nearest is the processor's; what follows is everybody's.
        shown["export"] = exported[exported.index(str(photos.parent / "bundles")) :]
    verify, bench = next_of(exported)
    shown["verify"] = verified = screen_of(f"{verify} --backend torch,ort")
    assert "my-net" in verified
    (then,) = next_of(verified)
    assert then == bench == "toolkit bench"
    measured = screen_of(f"{bench} --backend ort --batch 1 --seconds 0.05")  # its figures and warnings are its own
    assert "ms a call" in measured
    rows = re.findall(r"^ ort (\S+) +1 +\d[\d.,]* .*\d", measured, re.MULTILINE)
    assert rows == ["fp32", "fp16", "int8", "int8-cpu"], measured
    one = next(iter(sorted((photos / "bread").iterdir()))).relative_to(photos.parent)
    shown["predict"] = screen_of(f"toolkit predict my-net {one}")
    shown["list"] = screen_of("toolkit list")
    shown["pack"] = screen_of("toolkit bundle pack bundles/my-net -o my-net.tar")
    shown["predict-from-a-tar"] = screen_of(f"toolkit predict my-net.tar {one} --backend ort")
    shown["card"] = screen_of("toolkit verify --card my-net")
    shown["slip"] = screen_of("toolkit verify bundles/my-nett", code=1)
    for screen in (trained, exported, verified):
        for command in next_of(screen):
            require_understood(shlex.split(command)[1:])
    return shown


def kept() -> dict[str, str]:
    """The screens of a first hour, masked."""
    with workspace() as folder:
        return {name: screens.masked(shown, folder) for name, shown in first_hour(photos_in(folder)).items()}


@pytest.mark.slow
def test_the_first_hour_goes_from_photos_to_a_packed_bundle_and_its_screens_are_the_kept_ones() -> None:
    shown = kept()
    assert "bread" in shown["predict"]
    assert "bread" in shown["predict-from-a-tar"]
    assert "there is no bundle 'bundles/my-nett'" in shown["slip"]
    for name, screen in shown.items():
        assert screen == screens.read(name), f"{name}: {__doc__}"


if __name__ == "__main__":
    screens.write(kept())
