"""Claims about replacing: what a command did not write stays, and is named where it is in the way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from toolkit.errors import ToolkitError
from toolkit.storage.folders import folder_replaced
from toolkit.storage.replacing import require_replaceable

OWN = ("card.json", "old.bin", "new.bin").__contains__


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of a command, in which somebody keeps notes, a link and a folder of their own."""
    target = tmp_path / "net"
    (target / "mine/deep").mkdir(parents=True)
    for name in ("card.json", "old.bin", "notes.txt", "mine/deep/a"):
        (target / name).write_text(name)
    (target / "link").symlink_to("notes.txt")
    return target


def _replace(folder: Path, *names: str) -> None:
    with folder_replaced(folder, "card.json", OWN) as fresh:
        for name in names:
            (fresh / name).write_text("new")


def test_what_is_not_the_commands_own_is_carried_over(folder: Path) -> None:
    _replace(folder, "card.json")
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()) == [
        "card.json", "link", "mine/deep/a", "notes.txt",
    ]  # fmt: skip
    assert ((folder / "notes.txt").read_text(), (folder / "link").readlink()) == ("notes.txt", Path("notes.txt"))


def test_a_new_file_never_takes_the_place_of_somebodys(folder: Path) -> None:
    with pytest.raises(ToolkitError, match="files of yours") as caught:
        _replace(folder, "card.json", "notes.txt")
    assert caught.value.found == "notes.txt"
    assert (folder / "notes.txt").read_text() == "notes.txt"
    assert (folder / "old.bin").exists()


def test_a_file_is_replaced_where_it_bears_the_mark(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    require_replaceable(path, "page", bytes.isdigit, "page")
    for data in (b"", b"123"):
        path.write_bytes(data)
        require_replaceable(path, "page", bytes.isdigit, "page")
    path.write_bytes(b"dear diary")
    with pytest.raises(ToolkitError, match=r"is there already, and is no page") as caught:
        require_replaceable(path, "page", bytes.isdigit, "page")
    assert "10 bytes of 20" in str(caught.value.found)
    for way, said in ((tmp_path, "cannot write"), (Path(os.devnull), "no regular file")):  # before anything is computed
        with pytest.raises(ToolkitError, match=said):
            require_replaceable(way, "page", bytes.isdigit, "page")
