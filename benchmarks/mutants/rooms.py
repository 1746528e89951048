"""Which files are changed and which tests must notice; a room's copy, in which every mutant of its files lies ready.

mutmut (https://mutmut.readthedocs.io) writes the mutants: of each plain function and method it makes copies with one
change each, behind a switch. It leaves constants of modules and decorated functions (properties, context managers)
alone. Words of errors are left alone by us: that an error is raised is a decision, and that is changed.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "mutants"
SETTINGS = """\
[mutmut]
source_paths=toolkit
track_dependencies=false
do_not_mutate_patterns=
    (raise|return) \\w+(Error|Package|Unavailable)\\(
"""


@dataclass(frozen=True)
class Room:
    """Files below `toolkit/`, the tests, files or folders below `tests/`, and words of those that time what they do."""

    files: tuple[str, ...]
    tests: tuple[str, ...]
    without: str = "nothing of the kind"


ROOMS = {
    "gate": Room(
        tuple(f"compare/{n}.py" for n in ("gate", "parity", "proportions", "flips", "classes", "doubts", "answers")),
        ("compare",),
    ),
    "calibration": Room(
        tuple(f"calibration/{name}.py" for name in ("histogram", "methods", "record", "plausibility")),
        tuple(f"calibration/test_{name}.py" for name in ("histogram", "methods", "record", "plausibility")),
    ),
    "ranges": Room(("calibration/ranges.py",), ("calibration/test_ranges.py",)),
    "quantization": Room(
        tuple(f"quantization/{n}.py" for n in ("calib_cache", "held_out", "ort_cpu", "qdq", "rounding", "scales")),
        ("quantization", "exporting/test_artifacts.py"),
    ),
    "preflight": Room(("runtime/trt/preflight.py",), ("runtime/test_preflight.py",), "at_once"),
    "reading": Room(("bundle/reading.py",), ("bundle",)),
}


def copied(name: str) -> Path:
    """A fresh copy of sources and tests; what was found out before lies beside it."""
    folder = BUILD / name
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("toolkit", "tests"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("models", "calibration", "export", "docs", "pyproject.toml"):
        (folder / part).symlink_to(ROOT / part)
    (folder / "setup.cfg").write_text(SETTINGS)
    return folder


def mutants_in(folder: Path, name: str) -> dict[str, str]:
    """Writes the mutants into a copy: every mutant's name with the hash of the function that it is one of."""
    from mutmut.mutation.file_mutation import mutate_file_contents
    from mutmut.utils.format_utils import get_mutant_name, mangled_name_from_mutant_name

    os.chdir(folder)  # mutmut reads setup.cfg and, if that had a table for it, pyproject.toml
    found = {}
    for file in ROOMS[name].files:
        path = Path("toolkit") / file
        made = mutate_file_contents(str(path), path.read_text())
        path.write_text(made.code)
        for mutant in made.mutant_names:
            function = made.hash_by_function_name[mangled_name_from_mutant_name(mutant)]
            found[get_mutant_name(path, mutant)] = function
    return found
