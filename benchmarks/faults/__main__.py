"""What becomes of the work when things break: processes that die, disks that fail, files that mean harm.

    python benchmarks/faults [--moments 50] [--quick] [--only TEXT] [--parts renames,files] [--keep FILE.json]

Prints a table on stderr and one JSON document on stdout; exits with 1 where anything was lost. A try has survived
where afterwards the old or the new is whole and the next command works; a hostile file where it was refused in one
clear error within 2 s of a processor and 300 MiB beyond the import, or was sound after all. Needs `cc`, and Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from commands import DOCUMENTS, PACKED, PREPARED, WRITERS, striped_set
from disks import failing, mounted
from hostile import KINDS, hostile
from kills import Place, dead_holder, killed, killed_at_renames, two_at_once
from rows import Table
from tries import command, in_child, modules_of, preload, warm


def prepared(folder: Path, quick: bool) -> Place:
    """A workspace with everything that the commands replace, and every module imported; quick: without a training."""
    place = Place(folder)
    place.workspace.mkdir()
    striped_set(place.workspace / "set.npz")
    if quick:
        shutil.copytree(BUNDLE, place.workspace / "bundles/tiny")
    names = modules_of(PACKED if quick else PREPARED, place.workspace, place.log)
    for file, words in () if quick else DOCUMENTS.items():
        done = in_child(command(place.workspace, words), place.log)
        if done.code != 0:
            raise SystemExit(f"toolkit {words} ended with {done.code}: {done.text}")
        (place.workspace / file).write_text(done.text.strip().splitlines()[-1])
    warm(names)
    shutil.copytree(place.workspace, place.kept)
    return place


def main() -> int:
    """Every fault in turn."""
    parser = argparse.ArgumentParser(description="Plants faults in every command that writes; counts what survives.")
    parser.add_argument("--moments", type=int, default=50, help="random moments at which each command is killed")
    parser.add_argument("--quick", action="store_true", help="a part of it that needs no training")
    parser.add_argument("--only", default="", help="rows whose command or kind holds this text")
    parser.add_argument(
        "--parts", default="", help="of renames, locks, two, disks, mounts, files, moments; with commas"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="write the JSON document here too")
    options = parser.parse_args()
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="faults-") if "FAULTS_SHIM" not in os.environ else os.environ["FAULTS_SHIM"])
    preload(folder)
    try:
        table = _table(prepared(folder, options.quick), options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    document = {
        "schema": "benchmarks/faults/1", "ok": not any(row.lost for row in table.rows), "seed": options.seed,
        "seconds": round(time.monotonic() - started, 1), "rows": [row.as_dict() for row in table.rows],
    }  # fmt: skip
    if options.keep:
        options.keep.write_text(json.dumps(document, indent=2) + "\n")
    print(json.dumps(document))
    return 0 if document["ok"] else 1


def _table(place: Place, options: argparse.Namespace) -> Table:
    table, quick = Table(), options.quick
    writers = [writer for writer in WRITERS if options.only in writer.name]
    kinds = [kind for kind in QUICK_KINDS if quick] or [kind for kind in KINDS if options.only in kind]
    few = [writer for writer in writers if writer.name in QUICK] if quick else writers
    parts: dict[str, Callable[[], None]] = {
        "renames": lambda: killed_at_renames(place, few, table),
        "locks": lambda: dead_holder(place, few, table),
        "two": lambda: two_at_once(place, few, table),
        "disks": lambda: failing(place, few, 1 if quick else 4, table),
        "mounts": lambda: mounted(place, few, table),
        "files": lambda: hostile(place, kinds, 9 if quick else 1, table),
        "moments": lambda: killed(place, few, 1 if quick else options.moments, table, options.seed),
    }
    for name in options.parts.split(",") if options.parts else parts:
        parts[name]()
    return table


BUNDLE = Path(__file__).parents[2] / "tests/bundle/format-1"
QUICK = ("init", "bundle pack", "bundle sign", "bundle unpack", "triton")
QUICK_KINDS = ("hostile tars", "hostile manifests", "hostile targets")  # no other needs less than PyTorch

if __name__ == "__main__":
    sys.exit(main())
