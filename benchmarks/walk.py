"""How long the main job takes: export in every precision, verify and bench of the embedded default, as processes.

    python benchmarks/walk.py [--runs 3]

Prints a table on stderr and one JSON document on stdout: wall seconds and peak memory of each command, medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMANDS = ("export --int8 --fp16", "verify", "bench")


def measured(words: str, folder: Path) -> tuple[float, float]:
    """Wall seconds and peak resident MiB of one command."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "toolkit", *words.split()],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"toolkit {words} exited {process.returncode}")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Time and memory of the main job on the embedded default.")
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    found: dict[str, list[tuple[float, float]]] = {words: [] for words in COMMANDS}
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            for words in COMMANDS:
                found[words].append(measured(words, Path(folder)))
    document = {
        "runs": runs,
        "commands": {
            words: {
                "seconds": round(statistics.median(s for s, _ in values), 2),
                "peak_mib": round(statistics.median(m for _, m in values)),
            }
            for words, values in found.items()
        },
        "total_seconds": round(statistics.median(sum(v[i][0] for v in found.values()) for i in range(runs)), 2),
    }
    for words, entry in document["commands"].items():  # type: ignore[attr-defined]
        print(f"toolkit {words:24} {entry['seconds']:7.2f} s {entry['peak_mib']:6} MiB", file=sys.stderr)
    print(f"{'together':32} {document['total_seconds']:7.2f} s", file=sys.stderr)
    print(json.dumps(document))


if __name__ == "__main__":
    main()
