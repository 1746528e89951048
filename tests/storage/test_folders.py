"""Claims about folders: at every moment the old one or the new one is there, whoever dies and whoever else writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

import toolkit
from toolkit.errors import ToolkitError
from toolkit.storage import folders
from toolkit.storage.files import write_bytes
from toolkit.storage.folders import folder_replaced
from toolkit.storage.parts import new_part

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(toolkit.__file__).parents[1])}
OWNER = "card.json"


def _old(folder: Path) -> Path:
    folder.mkdir()
    (folder / OWNER).write_text("old")
    return folder


def _content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


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


def test_all_of_a_folder_is_on_the_disk_before_its_name_is_and_the_name_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, str]] = []
    names: dict[int, str] = {}
    sync, target = os.fsync, _old(tmp_path / "target")

    def noted(handle: int) -> None:
        synced.append(((target / OWNER).read_text(), names[os.fstat(handle).st_ino]))
        sync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    with folder_replaced(target, OWNER) as fresh:
        (fresh / "deep").mkdir()
        (fresh / "deep/file").write_text("x")
        (fresh / OWNER).write_text("new")
        names |= {path.stat().st_ino: path.name for path in (tmp_path, fresh, *fresh.rglob("*"))}
    assert {("old", name) for name in ("deep", "file", OWNER, fresh.name)} <= set(synced)
    assert synced[-1] == ("new", tmp_path.name)


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
    monkeypatch.setattr(folders, "_exchanged", lambda one, other: False)  # as on a system that has no such call

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
    from toolkit.storage.folders import folder_replaced
    for turn in range(int(sys.argv[3])):
        with folder_replaced(Path(sys.argv[1]), "card.json") as fresh:
            for name in ("card.json", "a", "b", "c"):
                (fresh / name).write_text(f"{sys.argv[2]} {turn}")
"""


@pytest.mark.slow
@pytest.mark.usefixtures("every_core")
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


KILLED = """
    import itertools, json, os, shutil, signal, sys
    from pathlib import Path
    from toolkit.storage import folders
    root, exchanges = Path(sys.argv[1]), sys.argv[2] == "exchange"
    target = root / "target"

    def write(word):
        with folders.folder_replaced(target, "card.json") as fresh:
            for name in ("card.json", "a", "b"):
                (fresh / name).write_text(word)

    def killed_at(moment):
        calls = itertools.count(1)
        def step():
            if next(calls) == moment:
                os.kill(os.getpid(), signal.SIGKILL)
        def watched(module, name):
            original = getattr(module, name)
            def call(*arguments, **options):
                step()
                result = original(*arguments, **options)
                step()
                return result
            setattr(module, name, call)
        for name in ("rename", "mkdir", "rmdir", "unlink", "fsync", "chmod"):
            watched(os, name)
        if exchanges:
            watched(folders, "_exchanged")
        write("new")

    def words():
        found = [path.read_text() for path in target.iterdir()] if target.is_dir() else []
        return [*sorted(set(found)), len(found)] if found else []

    if not exchanges:
        folders._exchanged = lambda one, other: False
    for moment in itertools.count(1):
        write("old")
        child = os.fork()
        if child == 0:
            killed_at(moment)
            os._exit(0)
        died = os.WIFSIGNALED(os.waitpid(child, 0)[1])
        at_once = words()
        folders.restored(target)
        later = words()
        write("next")
        print(json.dumps([at_once, later, sorted(os.listdir(root))]))
        if not died:
            break
"""


@pytest.mark.slow
@pytest.mark.parametrize("system", ["exchange", "two renames"])
def test_whoever_is_killed_at_whatever_step_loses_nothing_and_leaves_nothing_for_ever(
    tmp_path: Path, system: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", dedent(KILLED), str(tmp_path), system],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    moments = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(moments) > 20
    whole = (["old", 3], ["new", 3])
    assert all(later in whole for _, later, _ in moments), "lost"
    assert all(left == ["target"] for *_, left in moments), "litter"
    assert {str(at_once) for at_once, *_ in moments} == {str(found) for found in whole} | (
        set() if system == "exchange" else {"[]"}  # between two renames the place is empty, and is filled again
    )


def test_what_a_living_process_makes_is_not_swept_away(tmp_path: Path) -> None:
    part, handle = new_part(tmp_path / "target", folder=True)
    with folder_replaced(tmp_path / "target", OWNER) as fresh:
        (fresh / OWNER).write_text("new")
    assert part.is_dir()
    os.close(handle)  # as when it dies
    with folder_replaced(tmp_path / "target", OWNER) as fresh:
        (fresh / OWNER).write_text("newer")
    assert list(tmp_path.iterdir()) == [tmp_path / "target"]


def test_a_file_that_a_dead_process_left_half_written_goes_with_the_next_one(tmp_path: Path) -> None:
    code = """
        import os, signal, sys
        from pathlib import Path
        from toolkit.storage.files import write_bytes
        os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
        write_bytes(Path(sys.argv[1]), b"half")
    """
    path = tmp_path / "card.json"
    subprocess.run([sys.executable, "-c", dedent(code), str(path)], env=ENVIRONMENT, check=False, timeout=60)
    assert [left.suffix for left in tmp_path.iterdir()] == [".part"]
    write_bytes(path, b"whole")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
@pytest.mark.usefixtures("every_core")
def test_a_reader_sees_the_old_folder_or_the_new_one_at_any_moment(tmp_path: Path) -> None:
    if not folders._exchanged(*(_old(tmp_path / name) for name in ("one", "other"))):
        pytest.skip("this system cannot exchange two folders in one step")
    target = _old(tmp_path / "target")
    writer = subprocess.Popen([sys.executable, "-c", dedent(WRITER), str(target), "w", "60"], env=ENVIRONMENT)
    looks = 0
    while writer.poll() is None:
        assert (target / OWNER).is_file()
        looks += 1
    assert writer.returncode == 0
    assert looks > 60
