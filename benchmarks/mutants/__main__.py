"""Mutation testing: every decision of the rooms that judge is changed, one at a time, and a test must notice.

    python benchmarks/mutants                          # every room; killed mutants of functions that are as they were
    python benchmarks/mutants gate calibration         # are not tried again
    python benchmarks/mutants --table                  # the figures so far, nothing is run
    python benchmarks/mutants gate --survivors         # their changes, line by line

Prints a table; exits with 1 where a mutant survived that `explained.toml` does not explain. Needs mutmut
(`make mutants` installs it), Python 3.11, and Linux.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from rooms import BUILD, ROOMS, copied, mutants_in
from survivors import change_of, explanation


def results(room: str) -> dict[str, list[str | int]]:
    """By mutant: the hash of its function, and 0 where it survived, 1 where it was killed, 2 where no test reached."""
    path = BUILD / f"{room}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def tried(room: str, children: int, again: bool) -> None:
    """Tries what is new, has survived or was not reached."""
    from trial import KILLED, Trial, run

    mutants, before = mutants_in(copied(room), room), {} if again else results(room)
    known = {name: before[name] for name, function in mutants.items() if before.get(name) == [function, KILLED]}
    left = [name for name in mutants if name not in known]

    def found(name: str, code: int) -> None:
        known[name] = [mutants[name], code]
        print(f"\r{room}: {len(known)} of {len(mutants)}", end="", file=sys.stderr, flush=True)
        part = BUILD / f"{room}.json.part"
        part.write_text(json.dumps(known))
        part.replace(BUILD / f"{room}.json")

    tests = [f"tests/{test}" for test in ROOMS[room].tests]
    code = run(tests, ROOMS[room].without, Trial(left, children, found))
    print(file=sys.stderr)
    sys.exit(code)


def rows(room: str) -> dict[str, list[str]]:
    """What became of each mutant of a file, in words."""
    found: dict[str, list[str]] = {}
    for name, (_, code) in results(room).items():
        file = name.rpartition(".x")[0].removeprefix("toolkit.").replace(".", "/") + ".py"
        what = "killed" if code == 1 else "explained" if explanation(room, name) else "survived"
        found.setdefault(file, []).append(what)
    return found


def main() -> int:
    """Runs and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rooms", nargs="*", help=f"of {', '.join(ROOMS)}; all without any")
    parser.add_argument("--table", action="store_true", help="print the figures so far, run nothing")
    parser.add_argument("--survivors", action="store_true", help="print what survived so far, run nothing")
    parser.add_argument("--children", type=int, default=2, help="mutants at a time")
    parser.add_argument("--again", action="store_true", help="try the killed ones, too: after tests were taken away")
    options = parser.parse_args()
    rooms = options.rooms or list(ROOMS)
    failed = 0
    for room in rooms if not (options.table or options.survivors) else ():
        child = multiprocessing.get_context("fork").Process(target=tried, args=(room, options.children, options.again))
        child.start()
        child.join()
        failed += child.exitcode != 0
    for room in rooms if options.survivors else ():
        for name, (_, code) in results(room).items():
            if code != 1 and not explanation(room, name):
                print(f"{name}{' (no test reaches it)' if code == 2 else ''}\n{change_of(room, name)}")
    return _printed(rooms, failed)


def _printed(rooms: list[str], failed: int) -> int:
    print("| file | mutants | killed | explained | survived |\n|---|---:|---:|---:|---:|")
    left = 0
    for room in rooms:
        for file, words in sorted(rows(room).items()):
            counts = [words.count(word) for word in ("killed", "explained", "survived")]
            print(f"| `{file}` | {len(words)} | " + " | ".join(map(str, counts)) + " |")
            left += counts[2]
    return 1 if failed or left else 0


if __name__ == "__main__":
    sys.exit(main())
