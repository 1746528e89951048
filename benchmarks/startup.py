"""What a command costs before it does anything: `toolkit --help` against a hello-world Typer app, in pairs.

    python benchmarks/startup.py [--runs 20]

Prints a table on stderr and one JSON document on stdout. The two commands take turns, and the ratio is taken pair by
pair, so that a noisy machine hits both.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HELLO = '''
import typer
app = typer.Typer()
@app.command()
def hello(name: str = typer.Argument("world", help="Whom to greet.")) -> None:
    """Say hello."""
    print("hello", name)
@app.command()
def bye() -> None:
    """Say goodbye."""
    print("bye")
app()
'''


def milliseconds(command: list[str]) -> float:
    """Wall time of a whole process."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return 1000 * (time.perf_counter() - started)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Start-up time of toolkit --help against a hello-world Typer app.")
    parser.add_argument("--runs", type=int, default=20)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        hello = Path(folder) / "hello.py"
        hello.write_text(HELLO)
        ours = [sys.executable, "-m", "toolkit", "--help"]
        theirs = [sys.executable, str(hello), "--help"]
        milliseconds(ours), milliseconds(theirs)
        pairs = [(milliseconds(ours), milliseconds(theirs)) for _ in range(runs)]
    document = {
        "toolkit_help_ms": round(statistics.median(a for a, _ in pairs), 1),
        "hello_help_ms": round(statistics.median(b for _, b in pairs), 1),
        "ratio": round(statistics.median(a / b for a, b in pairs), 3),
        "runs": runs,
    }
    for name, value in document.items():
        print(f"{name:18} {value}", file=sys.stderr)
    print(json.dumps(document))


if __name__ == "__main__":
    main()
