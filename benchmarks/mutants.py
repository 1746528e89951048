"""Mutation testing: every decision of the rooms that judge is changed, one at a time, and a test must notice.

    python benchmarks/mutants.py                       # every room, resumed where it was stopped
    python benchmarks/mutants.py compare calibration   # these alone
    python benchmarks/mutants.py --table               # the figures so far, nothing is run

Each room has a copy of the sources in `build/mutants/ROOM/`, where mutmut runs the tests of that room alone: a mutant
costs a second, not the whole suite. What survived: `cd build/mutants/ROOM && mutmut results`, `mutmut show NAME`.

mutmut changes what is computed in plain functions and methods; constants of modules and decorated functions
(properties, context managers) it leaves alone. Words of errors are left alone by us: that an error is raised is a
decision, and that is changed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "mutants"
WORDS = r"(raise|return) \w+(Error|Package|Unavailable)\("
KILLED = {1, 3}  # exit codes of pytest: tests failed, or pytest itself did
LIMIT = {-24, 24, 36, 152, 255}  # it computed without an end: noticed, too
UNSEEN = {5, 33, None}  # no test runs it; not run yet


@dataclass(frozen=True)
class Room:
    """Which files are changed, and the tests that must notice."""

    files: tuple[str, ...]
    tests: tuple[str, ...]


ROOMS = {
    "gate": Room(
        tuple(f"toolkit/compare/{name}.py" for name in ("gate", "parity", "proportions", "flips", "classes", "doubts")),
        ("tests/compare",),
    ),
    "calibration": Room(("toolkit/calibration/*.py",), ("tests/calibration",)),
    "quantization": Room(
        tuple(f"toolkit/quantization/{n}.py" for n in ("scales", "rounding", "qdq", "calib_cache", "ort_cpu")),
        ("tests/quantization",),
    ),
    "preflight": Room(("toolkit/runtime/trt/preflight.py",), ("tests/runtime/test_preflight.py",)),
    "reading": Room(("toolkit/bundle/reading.py",), ("tests/bundle",)),
}
SETTINGS = """\
[mutmut]
source_paths=toolkit
only_mutate=
{files}
also_copy=
    models
    calibration
    export
    docs
pytest_add_cli_args=
    -m
    not slow and not gpu
    -p
    no:cacheprovider
    -p
    no:xdist
    -p
    no:tests.leftovers
pytest_add_cli_args_test_selection=
{tests}
do_not_mutate_patterns=
    {words}
process_isolation=forkserver
use_git_change_detection=false
track_dependencies=false
timeout_multiplier=30
timeout_constant=4
"""


def copied(room: str) -> Path:
    """The folder in which mutmut runs; what it found before stays, and holds for functions that did not change."""
    folder = BUILD / room
    for name in ("toolkit", "tests"):
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("models", "calibration", "export", "docs", "pyproject.toml"):
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    lines = {key: "\n".join(f"    {one}" for one in getattr(ROOMS[room], key)) for key in ("files", "tests")}
    (folder / "setup.cfg").write_text(SETTINGS.format(**lines, words=WORDS))
    return folder


def run(room: str, children: int) -> int:
    """The exit code of mutmut; it may be stopped at any moment, and goes on from there."""
    command = [shutil.which("mutmut", path=str(Path(sys.executable).parent)) or "mutmut", "run"]
    return subprocess.run([*command, "--max-children", str(children)], cwd=copied(room), check=False).returncode


def figures(room: str) -> dict[str, Counter[str]]:
    """By file: how many mutants were killed, survived, or were not run."""
    found = {}
    for path in sorted((BUILD / room / "mutants").rglob("*.meta")):
        codes = json.loads(path.read_text())["exit_code_by_key"].values()
        if codes:
            name = str(path.relative_to(BUILD / room / "mutants")).removesuffix(".meta")
            found[name] = Counter(_word(code) for code in codes)
    return found


def _word(code: int | None) -> str:
    if code in UNSEEN:
        return "not run"
    return "killed" if code in KILLED | LIMIT else "survived" if code == 0 else "unclear"


def main() -> int:
    """Runs and prints; exits with 1 where a mutant survived that is not explained."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rooms", nargs="*", choices=[*ROOMS, []], help="all without any")
    parser.add_argument("--table", action="store_true", help="print the figures so far, run nothing")
    parser.add_argument("--children", type=int, default=2, help="mutants at a time")
    arguments = parser.parse_args()
    rooms = arguments.rooms or list(ROOMS)
    failed = [room for room in rooms if not arguments.table and run(room, arguments.children)]
    print("| file | mutants | killed | survived | not run |\n|---|---:|---:|---:|---:|")
    for room in rooms:
        for name, count in figures(room).items():
            cells = (count.total(), count["killed"], count["survived"] + count["unclear"], count["not run"])
            print(f"| `{name}` | " + " | ".join(str(cell) for cell in cells) + " |")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
