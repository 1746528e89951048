"""Claims about writing: files and folders are whole or absent, whatever fails and whoever else writes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from textwrap import dedent

import pytest

import toolkit
from toolkit.errors import ModelError, ToolkitError
from toolkit.storage.files import (
    json_text,
    os_errors,
    read_json,
    read_toml,
    sha256_of_file,
    write_bytes,
    write_json,
    write_together,
)

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(toolkit.__file__).parents[1])}


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "file"
    write_bytes(path, b"one")
    write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644
    assert sha256_of_file(path) == "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3"


def test_no_pipe_and_no_device_is_replaced_by_a_file_and_a_link_stays_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # no device is tried: where this fails, root would take it away from the whole system
    (tmp_path / "to pipe").symlink_to("pipe")
    for name in ("pipe", "to pipe"):
        with pytest.raises(ToolkitError, match="is no regular file"):
            write_together({tmp_path / "beside": b"x", tmp_path / name: b"x"})
    assert (tmp_path / "pipe").is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pipe", "to pipe"]
    (tmp_path / "link").symlink_to("file")
    write_bytes(tmp_path / "link", b"x")
    assert (tmp_path / "link").readlink() == Path("file")
    assert (tmp_path / "file").read_bytes() == b"x"


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def interrupted(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_path_through_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ToolkitError, match="cannot write") as caught:
        write_bytes(tmp_path / "file" / "below", b"")
    assert str(tmp_path / "file" / "below") in caught.value.what


def test_json_has_no_nan_and_ends_its_last_line(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"ä": [1, None]})
    assert (tmp_path / "a.json").read_bytes().endswith(b"}\n")
    assert read_json(tmp_path / "a.json", ModelError) == {"ä": [1, None]}
    with pytest.raises(ValueError, match="JSON compliant"):
        json_text({"x": float("nan")})


def test_a_missing_json_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ToolkitError, match="cannot read") as caught:
        read_json(tmp_path / "none.json", ModelError)
    assert caught.value.found == "it does not exist"


def test_an_unknown_system_error_keeps_its_words() -> None:
    with pytest.raises(ToolkitError, match="cannot read it") as caught, os_errors(Path("it"), "read"):
        raise OSError(5, "Input/output error")
    assert "Input/output error" in str(caught.value.found)


def _in_a_mount(folder: Path, options: str, code: str) -> list[str]:
    """Runs code in a process that alone sees a small tmpfs on `folder`; what it printed as JSON."""
    unshare = shutil.which("unshare")
    script = f"mount -t tmpfs -o size=64k tmpfs {folder} && touch {folder}/there && mount -o remount,{options} {folder}"
    inside = [unshare or "", "--mount", "--map-root-user", "sh", "-c"]
    if not unshare or subprocess.run([*inside, script], capture_output=True).returncode:
        pytest.skip("this system lets nobody mount a tmpfs in a namespace of its own")
    done = subprocess.run(
        [*inside, f'{script} && exec "$0" -c "$1" "$2"', sys.executable, dedent(code), str(folder)],
        capture_output=True, text=True, env=ENVIRONMENT, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers: list[str] = json.loads(done.stdout)
    return answers


IN_A_MOUNT = """
    import json, os, sys
    from pathlib import Path
    from toolkit.errors import ToolkitError
    from toolkit.storage.files import write_bytes
    from toolkit.storage.folders import folder_replaced
    root, found = Path(sys.argv[1]), []
    def attempt(action):
        try:
            action()
        except ToolkitError as error:
            found.append(error.found if str(root) in error.what else error.what)
        else:
            found.append("written")
    def folder():
        with folder_replaced(root / "folder", "card.json") as fresh:
            (fresh / "card.json").write_bytes(bytes(1 << 20))
    attempt(lambda: write_bytes(root / "file", bytes(1 << 20)))
    attempt(folder)
    print(json.dumps(found + sorted(os.listdir(root))))
"""


def test_a_full_disk_is_named_and_nothing_is_half_written(tmp_path: Path) -> None:
    assert _in_a_mount(tmp_path, "rw", IN_A_MOUNT) == ["the disk is full", "the disk is full", "there"]


def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    assert _in_a_mount(tmp_path, "ro", IN_A_MOUNT) == ["the file system is read-only"] * 2 + ["there"]


@pytest.mark.parametrize(
    "text",
    [
        b"x = " + b"[" * 100_000,
        b"a." * 20_000 + b"b = 1",
        b"x = '\xff'",
        b"#" * (1 << 20) + b"#",
        b"x = " + b"1" * 9_000,
    ],
)
def test_a_hostile_toml_is_one_error_in_a_second(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_bytes(text)
    begun = time.monotonic()
    with pytest.raises(ToolkitError, match=r"t\.toml"):
        read_toml(tmp_path / "t.toml", ToolkitError)
    assert time.monotonic() - begun < 1
