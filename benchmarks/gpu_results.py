"""What a check on a GPU brings back: one tar, rewritten whole after each step, a summary beside it, and words at the end."""

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
SHOWN = 14  # failures whose text is printed; the others by name
LONGEST_SHOWN = 700


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
                found.append((f"{part['name']}: {short}", f"{test['outcome']}: {test['reason']}", test["text"]))
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


def in_words(summary: dict[str, Any], figures: str = "") -> str:
    """Failures first, each with its last lines; then what was not checked and why; then figures; then counts."""
    lines = []
    bad = failures(summary)
    for name, reason, text in bad[:SHOWN]:
        lines.append(f"FAILED {name}")
        lines.append("    " + " ".join(reason.split())[:400])
        last = [line for line in text.splitlines() if line.strip()][-8:]
        lines.append("\n".join(f"      {line[:160]}" for line in last)[-LONGEST_SHOWN:])
    lines += [f"FAILED {name}: {' '.join(reason.split())[:120]}" for name, reason, _ in bad[SHOWN:]]
    for reason, names in not_run(summary).items():
        shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
        lines.append(f"NOT CHECKED, {' '.join(reason.split())[:200]}: {shown}")
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
