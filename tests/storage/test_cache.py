"""Claims about the cache: engines and timings in it are trusted, so it is this user's alone or it is not used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

import toolkit
from toolkit.bundle.packing import tar_of_files
from toolkit.bundle.reading import bundle_from_folder
from toolkit.errors import ToolkitError
from toolkit.storage.cache import cache_folder, cleared, inventory, private_folder, temporary_folder
from toolkit.storage.folders import folder_replaced
from toolkit.storage.replacing import Own

SOURCE = Path(__file__).parents[1] / "bundle/format-1"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, that is not there yet."""
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "a/cache"))
    return tmp_path / "a/cache"


def packed(path: Path) -> Path:
    """The small bundle as a tar."""
    bundle = bundle_from_folder(SOURCE)
    path.write_bytes(tar_of_files(bundle.files, bundle.manifest_content.data))
    return path


def mode(folder: Path) -> int:
    """What others may do."""
    return folder.stat().st_mode & 0o777


def test_every_folder_of_it_is_this_users_alone(place: Path) -> None:
    assert private_folder("timing") == place / "timing"
    assert {mode(place.parent), mode(place), mode(place / "timing")} == {0o700}
    place.chmod(0o755)  # as an older version or a shell left it
    assert private_folder() == place
    assert mode(place) == 0o700
    place.chmod(0o755)
    (place / "letters").mkdir()  # TOOLKIT_CACHE may name a folder in which others read
    assert private_folder("timing") == place / "timing"
    assert (mode(place), mode(place / "timing")) == (0o755, 0o700)


@pytest.mark.parametrize("others", [0o777, 0o770, 0o1777, 0o720])
def test_one_that_others_may_write_to_is_not_used(place: Path, others: int) -> None:
    place.mkdir(parents=True)
    place.chmod(others)
    assert private_folder() == temporary_folder()
    assert mode(temporary_folder()) == 0o700
    assert place not in private_folder("timing").parents


def test_a_folder_of_another_user_is_not_used(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private_folder()
    if os.geteuid() == 0:
        os.chown(place, 12345, 12345)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert private_folder() == temporary_folder()


def test_a_folder_inside_that_others_may_write_to_is_not_used_either(place: Path) -> None:
    private_folder("timing").chmod(0o777)
    assert private_folder("timing").parent == temporary_folder()


def test_without_a_home_and_with_a_user_that_no_list_has_there_is_one_all_the_same(tmp_path: Path) -> None:
    code = f"""
        import numpy, pwd, toolkit

        def unknown(number):
            raise KeyError(number)

        pwd.getpwuid = unknown  # as in a container that runs as a number
        from toolkit.storage.cache import private_folder
        print(private_folder(), oct(private_folder().stat().st_mode))
        with toolkit.load({str(packed(tmp_path / "b.tar"))!r}, backend="ort") as net:
            print(len(net.classify(numpy.zeros((2, 16, 16, 3), numpy.uint8)).labels))
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HOME", "XDG_", "TOOLKIT_"))}
    root, temporary = str(Path(toolkit.__file__).parents[1]), tmp_path / "tmp"
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", dedent(code)], capture_output=True, text=True, timeout=120,
        env=kept | {"PYTHONPATH": root, "TMPDIR": str(temporary)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(temporary / f"trt-edge-toolkit-{os.getuid()}"), "0o40700", "2"]


def test_where_nothing_can_be_written_a_sentence_says_so(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*names: object, **options: object) -> str:
        raise OSError(28, "No space left on device")

    place.parent.write_text("a file")
    temporary_folder.cache_clear()
    monkeypatch.setattr("tempfile.mkdtemp", full)
    with pytest.raises(ToolkitError, match="cannot write") as caught:
        private_folder()
    assert caught.value.found == "the disk is full"
    temporary_folder.cache_clear()


def test_a_tar_loads_where_the_cache_is_full(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(target: Path, owned_by: str, own: Own | None = None) -> object:
        if place in target.parents:
            raise ToolkitError(f"cannot write {target}", found="the disk is full")
        return folder_replaced(target, owned_by, own)

    monkeypatch.setattr("toolkit.bundle.unpacking.folder_replaced", full)
    with toolkit.load(packed(tmp_path / "b.tar"), backend="ort") as net:
        assert len(net.classify(np.zeros((2, 16, 16, 3), np.uint8)).labels) == 2


def test_what_is_in_it_is_counted_and_goes_when_it_is_cleared(place: Path, tmp_path: Path) -> None:
    assert (inventory().kept, inventory().bytes) == ({}, 0)
    (private_folder("timing") / "a").write_bytes(bytes(1000))
    for name in ("0" * 64, "1" * 64):
        (private_folder() / name).mkdir()
        (private_folder() / name / "model.onnx").write_bytes(bytes(500))
    (tmp_path / "precious").write_text("not ours")
    (place / "ort-trt").symlink_to(tmp_path)
    (place / "letters").mkdir()
    (place / "letters/timing").write_text("not ours either")
    (place / f".{'2' * 64}.abcdefgh.part").mkdir()
    found = inventory()
    assert found.kept.keys() == {"ort-trt", "timing", "unpacked tars", f".{'2' * 64}.abcdefgh.part"}
    assert (found.kept["timing"], found.kept["unpacked tars"]) == (1000, 1000)
    assert cleared().bytes == found.bytes
    assert [path.name for path in place.iterdir()] == ["letters"]
    assert (place / "letters/timing").read_text() == "not ours either"
    assert (tmp_path / "precious").read_text() == "not ours"
    assert cache_folder() == place
