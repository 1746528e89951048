"""The tables of a check on a GPU, as Markdown for docs/measured.md, from what it brought back.

    python benchmarks/gpu_tables.py results.tar.gz [--save]       --save also writes docs/gpu-results/<card>-<date>.json

Above each table stand the card, the driver, TensorRT and the clocks. A figure that was not measured is a dash.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import tarfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from gpu import FIGURES, joined, rows_from_text, targets  # noqa: E402

BENCHES = re.compile(r"documents/(bench-.*|eager|compile)\.json$")
BUILDS = re.compile(r"documents/build-(.*)\.json$")
DASH = "-"
PART = ("step", "name", "outcome", "words", "seconds")
KEPT = ("answers", "memory", "phases", "seam", "faults")  # lines that the tests keep


def files_of_tar(path: Path) -> dict[str, str]:
    """Text by name inside the tar, without the folder that holds all."""
    found = {}
    with tarfile.open(path) as tar:
        for entry in tar.getmembers():
            stream = tar.extractfile(entry)
            if stream is not None:
                found[entry.name.partition("/")[2]] = stream.read().decode(errors="replace")
    return found


def files_of_folder(folder: Path) -> dict[str, str]:
    """The same of a folder that lies open."""
    paths = (path for path in folder.rglob("*") if path.suffix in (".json", ".jsonl"))
    return {path.relative_to(folder).as_posix(): path.read_text(errors="replace") for path in paths}


def document_of(text: str) -> dict[str, Any]:
    """What a command said on the last line of its standard output that is JSON; empty where it said none."""
    for line in reversed(text.splitlines()):
        if line.startswith("{"):
            try:
                found = json.loads(line)
            except ValueError:
                continue
            return found if isinstance(found, dict) else {}
    return {}


def lines_of(text: str) -> list[dict[str, Any]]:
    """A document a line; one that was cut off is left out."""
    found = []
    for line in text.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def gathered(files: dict[str, str]) -> dict[str, Any]:
    """All figures of a run in one document."""
    summary = document_of(files.get("summary.json", "").replace("\n", " "))
    answers = {name: {"rows": rows_from_text(text), "unavailable": document_of(text).get("unavailable", {})}
               for name, text in files.items() if BENCHES.search(name)}  # fmt: skip
    rows, unavailable = joined(answers)
    machine = document_of(files.get("documents/versions.json", ""))
    engines = json.loads(files.get("engines.json") or "[]")
    tensorrt = sorted({f"{e['tensorrt']['kind']} {e['tensorrt']['version']}" for e in engines if "tensorrt" in e})
    return {
        "format": 1, **{key: summary.get(key) for key in ("began", "machine", "seconds", "rehearsal", "driver")},
        "tensorrt": tensorrt,
        "versions": {k: machine.get(k) for k in ("python", "platform", "processor", "cores", "packages")},
        "nvml": machine.get("nvml"), "clocks": clocks(files.get("clocks.jsonl", "")),
        "engines": [short(engine) for engine in engines],
        "builds": {BUILDS.search(name)[1]: document_of(text) and seconds_of(document_of(text))  # type: ignore[index]
                   for name, text in files.items() if BUILDS.search(name)},
        "rows": rows, "unavailable": unavailable, "targets": targets(rows),
        **{name: lines_of(files.get(f"documents/{name}.jsonl", "")) for name in KEPT},
        "tests": {f"{part['name']}: {name}": {k: test[k] for k in ("outcome", "seconds", "reason")}
                  for part in summary.get("parts", ()) for name, test in part["tests"].items()},
        "parts": [{k: part[k] for k in PART} for part in summary.get("parts", ())],
    }  # fmt: skip


def short(engine: dict[str, Any]) -> dict[str, Any]:
    """A sidecar without the long list of what was fused."""
    census = engine.get("census")
    return {**engine, "census": census and {k: v for k, v in census.items() if k != "fused"}}


def seconds_of(document: dict[str, Any]) -> Any:
    """Build seconds as the sidecar or the command's document has them."""
    if "build_seconds" in document:
        return document["build_seconds"]
    return [entry.get("build_seconds") for entry in document.get("engines", [])]


def clocks(text: str) -> dict[str, Any]:
    """Least, median and most of SM MHz, memory MHz, watts and degrees over the run, where they were written down."""
    lines, found = lines_of(text), {}
    for name in ("sm_mhz", "memory_mhz", "watts", "celsius", "memory_used_mib"):
        values = [float(line[name]) for line in lines if line.get(name) is not None]
        if values:
            found[name] = {"least": min(values), "median": statistics.median(values), "most": max(values)}
    if slowed := sorted({reason for line in lines for reason in line.get("slowed_by") or ()}):
        found["slowed_by"] = slowed
    return found


def cell(value: Any, digits: int = 4) -> str:
    """A figure, or a dash."""
    if value is None or isinstance(value, list):
        return DASH
    return f"{value:,.{digits}f}" if isinstance(value, float) else str(value)


def markdown(heads: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    """A table; nothing where it has no rows."""
    if not rows:
        return ""
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(str(entry) for entry in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def head(found: dict[str, Any]) -> str:
    """Where the figures are from, in one sentence."""
    sm, most = (found["clocks"].get("sm_mhz") or {}), (found["nvml"] if isinstance(found["nvml"], dict) else {})
    words = [str(found["machine"]), ", ".join(found["tensorrt"]) or "no TensorRT"]
    if sm:
        words.append(f"SM clock {sm['least']:.0f} to {sm['most']:.0f} MHz of at most {most.get('sm_most_mhz') or '?'}")
        words += [f"slowed by {', '.join(slowed)}"] if (slowed := found["clocks"].get("slowed_by")) else []
    words.append(f"Python {(found['versions'].get('python') or '?').split()[0]}, {str(found['began'])[:10]}")
    return ("REHEARSAL ON STAND-INS, no figure means anything: " if found["rehearsal"] else "") + "; ".join(words) + "."


def engines_table(found: dict[str, Any]) -> str:
    """Build seconds, size, layers, and how many convolutions read INT8."""
    rows = []
    for entry in found["engines"]:
        census = entry.get("census") or {}
        reading = census.get("convolutions_reading", {})
        of = f"{reading.get('Int8', 0)} of {census['convolutions']}" if census.get("convolutions") is not None else DASH
        size = f"{entry['plan']['bytes'] / 1024:,.0f}" if "plan" in entry else DASH
        words = (
            cell(entry.get("build_seconds"), 1),
            size,
            cell(census.get("layers")),
            of,
            cell(census.get("conversions")),
        )
        rows.append((entry["engine"].replace("/engines/", "/").removesuffix(".engine.json"), *words))
    return markdown(("engine", "build s", "KiB", "layers", "convolutions in INT8", "layers that convert"), rows)


def answers_table(found: dict[str, Any]) -> str:
    """Top-1, flips and distance against ONNX Runtime on the same file; the last run of each counts."""
    last = {(one["model"], one["source"]): one for one in found["answers"]}
    rows = []
    for (model, source), one in last.items():
        before, after = one["reference_score"]["top1_percent"], one["candidate_score"]["top1_percent"]
        flips = f"{one['flips']} ({100 * one['flips'] / one['images']:.2f} %)"
        distance, largest = one.get("relative_l2"), one.get("max_abs_dlogit")
        shown = (DASH if value is None else f"{value:.1e}" for value in (distance, largest))
        rows.append(
            (model, source, one["images"], f"{before:.2f}", f"{after:.2f}", f"{after - before:+.2f}", flips, *shown)
        )
    heads = ("model", "file", "images", "top-1 ORT", "top-1 TensorRT", "points", "flips", "relative L2", "largest")
    return markdown(heads, rows)


def latency_table(rows: list[dict[str, Any]]) -> str:
    """By model, batch and backend; milliseconds."""
    body = []
    for row in sorted(rows, key=lambda r: (r["model"], r["batch"], r.get("threads", 1), r["backend"], r["precision"])):
        name = row["backend"] if row["backend"] != "trt" else f"trt {row['precision']}"
        figures = [cell(row.get(key)) for key in FIGURES]
        times = DASH if row.get("times_eager") is None else f"{row['times_eager']:.1f}"
        note = "" if row.get("stable", True) else " unsteady"
        shown = (row["model"], row["batch"], row.get("threads", 1), name, row["variant"])
        body.append((*shown, *figures, f"{row['images_per_s']:,.0f}", times + note))
    heads = ("model", "batch", "callers", "backend", "variant", "GPU p50", "GPU p99", "enqueue", "call p50", "call p99",
             "images/s", "x eager")  # fmt: skip
    return markdown(heads, body)


def targets_table(found: dict[str, Any]) -> str:
    """Met or missed."""
    words = {True: "met", False: "MISSED", None: "not known"}
    rows = [
        (words[one["met"]], one["target"], cell(one["value"], 3), cell(one["limit"], 3)) for one in found["targets"]
    ]
    for one in (entry for entry in found["memory"] if "grown" in entry):
        grown = {name: round(value, 2) for name, value in one["grown"].items()}
        most = max(grown["host"], grown.get("own", grown["card"]))
        rows.append((words[most <= 8], f"{one['calls']:,} calls of {one['model']} grow no memory by 8 MiB", grown, 8))
    return markdown(("", "target", "measured", "limit"), rows)


def tables(found: dict[str, Any]) -> str:
    """Everything, under headings."""
    is_pure = {row.get("gpu_is") for row in found["rows"] if row["backend"] == "trt"} - {None}
    note = f"GPU time of TensorRT: {', '.join(sorted(is_pure))}." if is_pure else ""
    sections = {
        "Engines": engines_table(found), "Answers": answers_table(found), "Latency in ms": latency_table(found["rows"]),
        "Targets": targets_table(found),
    }  # fmt: skip
    lines = [head(found), note, ""]
    for name, text in sections.items():
        lines += [f"### {name}", "", text] if text else []
    lines += [f"Not measured: {name}: {reason}" for name, reason in found["unavailable"].items()]
    return "\n".join(lines).rstrip() + "\n"


def figures_of_folder(folder: Path) -> str:
    """The compact form for the end of a run, a line each: engines, answers, targets, the latencies that matter most."""
    found = gathered(files_of_folder(folder))
    few = [row for row in found["rows"] if row["variant"] != "no graph" and (row["batch"] in (1, 256))]
    tables = (engines_table(found), answers_table(found), targets_table(found), latency_table(few))
    return "\n".join([head(found), *(compact(table) for table in tables if table)])[:5500]


def compact(table: str) -> str:
    """A Markdown table without its frame."""
    lines = [line.strip("| ").replace(" | ", " ") for line in table.splitlines() if not line.startswith("|---")]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Prints the tables; ends with 1 where the file is none of a check."""
    parser = argparse.ArgumentParser(description="Tables of a check on a GPU.")
    parser.add_argument("results", type=Path, help="results.tar.gz, or a folder of it unpacked")
    parser.add_argument("--save", action="store_true", help="write docs/gpu-results/<card>-<date>.json")
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "gpu-results", help="where --save writes")
    options = parser.parse_args()
    try:
        files = files_of_folder(options.results) if options.results.is_dir() else files_of_tar(options.results)
    except (OSError, tarfile.TarError) as error:
        sys.exit(f"{options.results} cannot be read: {error}")
    if "summary.json" not in files:
        sys.exit(f"{options.results} holds no summary.json: it is not of benchmarks/gpu_check.py")
    found = gathered(files)
    print(tables(found), end="")
    if options.save:
        devices = (found["driver"] or {}).get("devices") or [{"name": "no GPU"}]
        card = re.sub(r"[^a-z0-9]+", "-", devices[0]["name"].lower()).strip("-")
        path = options.to / f"{card}-{str(found['began'])[:10]}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n")
        print(f"written: {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
