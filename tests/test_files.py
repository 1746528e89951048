"""Claims about writing: files and folders are whole or absent, whatever fails and whoever else writes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

import toolkit
from toolkit.errors import ModelError, ToolkitError
from toolkit.files import folder_replaced, json_text, os_errors, read_json, sha256_of_file, write_bytes, write_json

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(toolkit.__file__).parents[1])}
OWNER = "card.json"


def _old(folder: Path) -> Path:
    folder.mkdir()
    (folder / OWNER).write_text("old")
    return folder


def _content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "file"
    write_bytes(path, b"one")
    write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644
    assert sha256_of_file(path) == "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3"


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


def test_a_folder_appears_when_the_block_is_done_and_not_before(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "target"
    with folder_replaced(target, OWNER) as fresh:
        (fresh / OWNER).write_text("new")
        assert not target.exists()
    assert _content(target) == {OWNER: "new"}
    assert target.stat().st_mode & 0o777 == 0o755
    assert list(target.parent.iterdir()) == [target]


def test_a_folder_of_ours_is_replaced_with_everything_in_it(tmp_path: Path) -> None:
    target = _old(tmp_path / "target")
    (target / "stale").write_text("stale")
    with folder_replaced(target, OWNER) as fresh:
        (fresh / OWNER).write_text("new")
        assert _content(target) == {OWNER: "old", "stale": "stale"}
    assert _content(target) == {OWNER: "new"}


@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failing_block_leaves_the_old_folder_and_no_litter(tmp_path: Path, fault: type[BaseException]) -> None:
    target = _old(tmp_path / "target")
    with pytest.raises(fault), folder_replaced(target, OWNER) as fresh:  # noqa: PT012
        (fresh / OWNER).write_text("half")
        raise fault
    assert _content(target) == {OWNER: "old"}
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("which", [1, 2])
def test_an_interrupt_while_folders_change_places_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    target, calls, rename = _old(tmp_path / "target"), [0], os.rename

    def interrupted(source: Path, destination: Path) -> None:
        rename(source, destination)
        calls[0] += 1
        if calls[0] == which:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), folder_replaced(target, OWNER) as fresh:
        (fresh / OWNER).write_text("new")
    assert _content(target) == {OWNER: "old" if which == 1 else "new"}
    assert list(tmp_path.iterdir()) == [target]


def test_a_foreign_folder_and_a_file_are_refused_untouched(tmp_path: Path) -> None:
    foreign = tmp_path / "home"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("precious")
    with pytest.raises(ToolkitError, match=r"holds no card\.json"), folder_replaced(foreign, OWNER):
        pytest.fail("the block ran")
    with pytest.raises(ToolkitError, match="is a file"), folder_replaced(foreign / "thesis.txt", OWNER):
        pytest.fail("the block ran")
    assert _content(foreign) == {"thesis.txt": "precious"}
    assert list(tmp_path.iterdir()) == [foreign]


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with folder_replaced(tmp_path / "empty", OWNER) as fresh:
        (fresh / OWNER).write_text("new")
    assert _content(tmp_path / "empty") == {OWNER: "new"}


WRITER = """
    import sys
    from pathlib import Path
    from toolkit.files import folder_replaced
    for turn in range(int(sys.argv[3])):
        with folder_replaced(Path(sys.argv[1]), "card.json") as fresh:
            for name in ("card.json", "a", "b", "c"):
                (fresh / name).write_text(f"{sys.argv[2]} {turn}")
"""


def test_three_processes_at_once_leave_one_whole_folder_and_no_litter(tmp_path: Path) -> None:
    target = tmp_path / "target"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", dedent(WRITER), str(target), str(number), "150"],
            env=ENVIRONMENT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    said = [writer.communicate(timeout=120)[1] for writer in writers]
    assert said == ["", "", ""]
    content = _content(target)
    assert sorted(content) == ["a", "b", "c", OWNER]
    assert len(set(content.values())) == 1
    assert content["a"].endswith(" 149")
    assert list(tmp_path.iterdir()) == [target]


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
    from toolkit.files import folder_replaced, write_bytes
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
