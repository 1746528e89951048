"""What a check on a GPU brings back: one tar, written anew after each step, a summary beside it, words at the end."""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
from pathlib import Path
from typing import Any

TAR, SUMMARY = "results.tar.gz", "summary.json"
MOST_FILE = 1_500_000  # bytes of one file in the tar; of a longer one, the beginning and the end
MOST_TAR = 15 << 20  # what comes back in one file is limited to 16 MiB
LEFT_OUT = (".engine", ".npz", ".npy", ".onnx", ".done")  # plans and images stay where they are
GOOD = ("ok", "passed", "skipped")
# Of what is printed at the end, in characters: some hosts show only the last 12,000 of all.
LONGEST_TEXT, FAILURES, NOT_CHECKED = 500, 3500, 1600


def write_whole(path: Path, data: bytes) -> None:
    """Under another name first: whoever reads it sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.part")
    with fresh.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(fresh, path)


def write_json_whole(path: Path, document: Any) -> None:
    """JSON under `write_whole`."""
    write_whole(path, (json.dumps(document, indent=1, default=str) + "\n").encode())


def write_tar(results: Path, out: Path) -> None:
    """Everything in the results' folder, but for plans and images; the largest files go first where it is too much."""
    files = [path for path in sorted(results.rglob("*")) if path.is_file() and path.suffix not in LEFT_OUT]
    while True:
        data = _tarred(results, files)
        if len(data) <= MOST_TAR or len(files) < 2:
            break
        files.remove(max(files, key=lambda path: path.stat().st_size))
    write_whole(out / TAR, data)


def _tarred(results: Path, files: list[Path]) -> bytes:
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w:gz", compresslevel=6) as tar:
        for path in files:
            try:
                data = path.read_bytes()
            except OSError as error:
                data = f"could not be read: {error}".encode()
            if len(data) > MOST_FILE and path.suffix != ".json":
                half = MOST_FILE // 2
                data = data[:half] + b"\n\n... cut here ...\n\n" + data[-half:]
            entry = tarfile.TarInfo(f"results/{path.relative_to(results).as_posix()}")
            entry.size, entry.mtime = len(data), int(time.time())
            tar.addfile(entry, io.BytesIO(data))
    return memory.getvalue()


def counts(summary: dict[str, Any]) -> dict[str, int]:
    """How many tests and parts came to what."""
    found: dict[str, int] = {}
    for part in summary["parts"]:
        names = [test["outcome"] for test in part["tests"].values()] if part["tests"] else [part["outcome"]]
        for name in names:
            found[name] = found.get(name, 0) + 1
    return found


def failures(summary: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(name, outcome and reason, last words) of everything that went wrong."""
    found = []
    for part in summary["parts"]:
        for name, test in part["tests"].items():
            if test["outcome"] not in GOOD:
                short = name.rpartition("/")[2]
                outcome, reason = test["outcome"], str(test["reason"])
                said = reason if reason.startswith(outcome) else f"{outcome}: {reason}"
                found.append((f"{part['name']}: {short}", said, test["text"]))
        if part["outcome"] == "failed" and (not part["tests"] or part["problem"]):
            found.append((part["name"], part["problem"] or part["words"], part["last_words"]))
    return found


def not_run(summary: dict[str, Any]) -> dict[str, list[str]]:
    """Names of what was not checked, by reason: parts that could not run or were not started, and skipped tests."""
    found: dict[str, list[str]] = {}
    for part in summary["parts"]:
        if part["outcome"] in ("not started", "not possible"):
            found.setdefault(f"{part['outcome']}: {part['words']}", []).append(part["name"])
        for name, test in part["tests"].items():
            if test["outcome"] == "skipped":
                found.setdefault(f"skipped: {test['reason']}", []).append(f"{part['name']}: {name.rpartition('::')[2]}")
    return found


def failures_in_words(summary: dict[str, Any]) -> list[str]:
    """A paragraph each; where they are many, the later ones shorter."""
    found = []
    for number, (name, reason, text) in enumerate(failures(summary)):
        said = f"FAILED {name}: {' '.join(reason.split())[: 300 if number < 6 else 90]}"
        lines = [line[:150] for line in text.splitlines() if line.strip()]
        stacks = text.startswith(("Fatal Python error", "Timeout ("))  # the innermost frames come first
        last = "\n    ".join(lines[:8] if stacks else lines[-6:])
        last = last[:LONGEST_TEXT] if stacks else last[-LONGEST_TEXT:]
        found.append(f"{said}\n    {last}" if number < 6 and last else said)
    return found


def not_run_in_words(summary: dict[str, Any]) -> list[str]:
    """A line for each reason."""
    found = []
    for reason, names in not_run(summary).items():
        shown = ", ".join(name.rpartition(": ")[2][:70] for name in names[:4])
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        found.append(f"NOT CHECKED, {' '.join(reason.split())[:160]}: {shown}{more}")
    return found


def cut(lines: list[str], most: int) -> list[str]:
    """As many as there is room for, and how many more there are."""
    kept: list[str] = []
    for number, line in enumerate(lines):
        if sum(map(len, kept)) + len(line) > most:
            return [*kept, f"... and {len(lines) - number} more, in summary.json"]
        kept.append(line)
    return kept


def in_words(summary: dict[str, Any], figures: str = "") -> str:
    """Failures first, each with its last lines; then what was not checked and why; then figures; then counts."""
    lines = [*cut(failures_in_words(summary), FAILURES), *cut(not_run_in_words(summary), NOT_CHECKED)]
    lines += ["", figures.strip(), ""] if figures.strip() else [""]
    steps: dict[str, dict[str, Any]] = {}
    for part in summary["parts"]:
        step = steps.setdefault(part["step"], {"seconds": 0.0, "bad": 0, "parts": 0})
        step["seconds"] += part["seconds"]
        step["bad"] += part["outcome"] not in ("ok", "not possible")
        step["parts"] += 1
    lines += [
        f"{name:10} {s['seconds']:6.1f} s  {s['parts']:2} parts, {s['bad']} not good" for name, s in steps.items()
    ]
    lines.append(", ".join(f"{number} {name}" for name, number in sorted(counts(summary).items())))
    lines.append(f"{summary['machine']}; {summary['seconds']:.0f} s of {summary['deadline_s']:.0f}")
    return "\n".join(lines)
