"""Files that nobody wrote, until one of them is neither taken nor refused in words.

    python benchmarks/fuzz [--seconds 600] [--files N] [--target manifest] [--seed 0] [--engine atheris|random]

Every target runs in a process of its own: first the corpus, then mutations of it and of sound files, guided by coverage
where `atheris` is installed (`pip install atheris`; one target at a time). A finding is any exception but the toolkit's
own, a crash, more than 10 s of a processor for one file; its bytes are kept in `corpus/TARGET/` and are tried first
from then on. Prints a table on stderr and one JSON document on stdout; exits with 1 where something was found.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
from mutations import mutated
from targets import CORPUS, TARGETS, Target

from toolkit.errors import ToolkitError

HANGS = 10  # seconds of a processor for one file
WAITS = 60  # seconds for one file, should it wait for something
MOST_BYTES = 1 << 20


class Hangs(Exception):
    """One file took too long."""


def finding_of(target: Target, data: bytes, folder: Path) -> str:
    """What was raised that must not be; empty where the file was taken or refused."""
    signal.setitimer(signal.ITIMER_PROF, HANGS)
    signal.alarm(WAITS)
    try:
        target.read(data, folder)
    except ToolkitError:
        return ""
    except Exception:
        return traceback.format_exc(limit=-3)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
    return ""


def corpus_of(name: str) -> list[bytes]:
    """What was found before, and sound files."""
    kept = [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]
    return kept + TARGETS[name].seeds()


def random_run(name: str, seconds: float, files: int, seed: int, folder: Path, last: Path) -> dict[str, Any]:
    """So many files, or as many as the time allows where that is 0; every kind of finding once."""
    target, seeds, draw = TARGETS[name], corpus_of(name), random.Random(seed)
    ends, tried, found = time.monotonic() + seconds, 0, {}
    while tried < (files or len(seeds)) or (not files and time.monotonic() < ends):
        data = seeds[tried] if tried < len(seeds) else mutated(draw.choice(seeds), seeds, target.text, draw)
        data, tried = data[:MOST_BYTES], tried + 1
        last.write_bytes(data)  # what killed the process, if it does
        if text := finding_of(target, data, folder):
            where = "\n".join(line for line in text.splitlines() if line.startswith("  File"))
            found.setdefault(where, (text, data))
    for text, data in found.values():
        print(f"{name}: {text}", file=sys.stderr)
        _keep(name, data)
    return {"tried": tried, "findings": [text.splitlines()[-1] for text, _ in found.values()]}


def atheris_run(name: str, seconds: float, seed: int, folder: Path) -> None:
    """LibFuzzer over the corpus; ends the process at the first finding, whose bytes it leaves."""
    import atheris

    with atheris.instrument_imports(include=["toolkit"]):
        TARGETS[name].read(corpus_of(name)[-1], folder)
    for index, data in enumerate(corpus_of(name)):
        (folder / "seeds").mkdir(exist_ok=True)
        (folder / "seeds" / str(index)).write_bytes(data)

    def one(data: bytes) -> None:
        text = finding_of(TARGETS[name], data, folder)
        if text:
            _keep(name, data)
            raise AssertionError(text)

    words = [f"-max_total_time={int(seconds)}", f"-seed={seed + 1}", f"-max_len={MOST_BYTES}", "-rss_limit_mb=4096"]
    atheris.Setup([sys.argv[0], *words, str(folder / "seeds")], one)
    atheris.Fuzz()


def _keep(name: str, data: bytes) -> None:
    (CORPUS / name).mkdir(parents=True, exist_ok=True)
    (CORPUS / name / hashlib.sha256(data).hexdigest()[:12]).write_bytes(data)


def child(options: argparse.Namespace) -> None:
    """One target in this process."""
    warnings.simplefilter("ignore")

    def hangs(number: int, frame: object) -> None:
        raise Hangs(f"more than {HANGS} s of a processor" if number == signal.SIGPROF else f"more than {WAITS} s")

    signal.signal(signal.SIGPROF, hangs)
    signal.signal(signal.SIGALRM, hangs)
    with tempfile.TemporaryDirectory() as folder:
        if options.engine == "atheris":
            atheris_run(options.target, options.seconds, options.seed, Path(folder))
            return
        print(
            json.dumps(
                random_run(
                    options.target, options.seconds, options.files, options.seed, Path(folder), Path(options.last)
                )
            )
        )


def parent(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """Runs one target in a child and reads what became of it."""
    with tempfile.TemporaryDirectory() as folder:
        last = Path(folder) / "last"
        command = [
            sys.executable, str(Path(__file__).parent), "--child", "--target", name, "--seconds", str(options.seconds),
            "--files", str(options.files), "--seed", str(options.seed), "--engine", options.engine, "--last", str(last),
        ]  # fmt: skip
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if options.engine == "atheris":
            runs = [line for line in done.stderr.splitlines() if line.startswith("Done ")]
            tried = int(runs[-1].split()[1]) if runs else 0
            found = [] if done.returncode == 0 else [done.stderr.strip().splitlines()[-1]]
            result: dict[str, Any] = {"tried": tried, "findings": found}
        elif done.returncode:
            _keep(name, last.read_bytes() if last.exists() else b"")
            result = {"tried": 0, "findings": [f"the process ended with {done.returncode}"]}
        else:
            result = json.loads(done.stdout.splitlines()[-1])
        if result["findings"]:
            print(done.stderr[-6000:], file=sys.stderr)
        return result


def main() -> int:
    """Every target in turn."""
    parser = argparse.ArgumentParser(description="Reads mutated files with everything that reads files of strangers.")
    parser.add_argument("--seconds", type=float, default=600, help="for each target")
    parser.add_argument("--files", type=int, default=0, help="so many for each target, whatever the time (random)")
    parser.add_argument("--target", default="", help=f"one of {', '.join(TARGETS)}; all without it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", default="random", choices=("atheris", "random"))
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--last", default=os.devnull, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.engine == "atheris" and find_spec("atheris") is None:
        parser.error("atheris is not installed: pip install atheris")
    if options.child:
        child(options)
        return 0
    results = {}
    print(f"{'target':14} {'files':>9} {'findings':>8}", file=sys.stderr)
    for name in TARGETS:
        if options.target in ("", name):
            results[name] = parent(options, name)
            row = f"{name:14} {results[name]['tried']:9,} {len(results[name]['findings']):8}"
            print(row, file=sys.stderr, flush=True)
    ok = not any(result["findings"] for result in results.values())
    document = {"schema": "benchmarks/fuzz/1", "ok": ok, "seconds": options.seconds, "seed": options.seed,
                "engine": options.engine, "targets": results}  # fmt: skip
    print(json.dumps(document))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
