"""The tables of checks on a GPU, as Markdown for docs/measured.md, from what the checks brought back.

    python benchmarks/gpu_tables.py results.tar.gz [later.tar.gz ...]      also folders, and documents that were saved
    python benchmarks/gpu_tables.py docs/gpu-results/nvidia-h200-2026-11-26.json [--short]
    python benchmarks/gpu_tables.py docs/gpu-results/X.json later.tar.gz --save --pages

Later figures take the place of earlier ones of the same key. `--save` writes docs/gpu-results/<card>-<date>.json, one
a card; `--pages` writes anew what stands between this command and `<!-- end -->` in docs/. Above the
tables stand the card, the driver, TensorRT and the clocks. A figure that was not measured is a dash.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from gpu_gathering import by_card, files_of_folder, gathered, read  # noqa: E402
from gpu_latencies import (  # noqa: E402
    callers_table,
    cell,
    graph_table,
    latency_table,
    markdown,
    phases_table,
    precision_of,
    rank,
    seam_table,
    short_table,
    waiting_table,
)

DASH = "-"
BLOCK = re.compile(
    r"(<!-- python benchmarks/gpu_tables\.py docs/gpu-results/(\S+\.json)( --short)? -->\n).*?(<!-- end -->)", re.DOTALL
)
GROWTH_MIB = 8


def head(found: dict[str, Any]) -> str:
    """Where the figures are from: a line for the card, and one for each run."""
    start = "REHEARSAL ON STAND-INS, no figure means anything: " if found["rehearsal"] else ""
    lines = [f"{start}{found['machine']}."]
    runs = [f"- Run {number}: {run_in_words(run)}" for number, run in enumerate(found["runs"], 1)]
    return "\n".join([*lines, "", *runs])


def numbered(found: dict[str, Any], *names: str) -> dict[str, Any]:
    """The document with the number of its run in every entry of these lists."""
    number = {run["began"]: at for at, run in enumerate(found["runs"], 1)}
    return found | {name: [{**one, "run": number.get(one["run"], DASH)} for one in found[name]] for name in names}


def run_in_words(run: dict[str, Any]) -> str:
    """Date, versions and clocks of one run."""
    words = [str(run["began"]).replace("T", " ")[:16], run["tensorrt"] or "no TensorRT"]
    words += [f"driver {run['driver']}"] if run["driver"] else []
    words += [f"{name} {version}" for name, version in run["packages"].items()] + [f"Python {run['python']}"]
    words.append(f"{run['processor']}, {run['cores']} cores")
    if sm := run["clocks"].get("sm_mhz"):
        low, middle, high = (f"{sm[name]:.0f}" for name in ("least", "median", "most"))
        words.append(f"SM clock {low} to {high} MHz, median {middle}, of at most {run['sm_most_mhz'] or '?'}")
        words += [f"slowed by {', '.join(slowed)}"] if (slowed := run["clocks"].get("slowed_by")) else []
    return "; ".join(words) + "."


def engines_table(found: dict[str, Any]) -> str:
    """Build seconds, size, layers, how many convolutions read INT8, and which Adds they took in."""
    again = {(model_of(one), one["file"], one["tensorrt"]): one for one in found["engines"] if is_again(one)}
    rows = []
    for one in (entry for entry in found["engines"] if not is_again(entry)):
        layers, name = one["census"] or {}, model_of(one)
        second = again.get((name, one["file"], one["tensorrt"]))
        reading = layers.get("convolutions_reading", {})
        of = f"{reading.get('Int8', 0)} of {layers['convolutions']}" if layers.get("convolutions") is not None else DASH
        inside, outside = layers.get("adds_in_convolutions", 0), layers.get("adds_elsewhere", 0)
        adds = f"{inside} of {inside + outside}" if inside + outside else DASH
        seconds = [cell(entry and entry.get("build_seconds"), 1) for entry in (one, second)]
        size = f"{one['bytes'] / 1024:,.0f}" if one["bytes"] else DASH
        rows.append((name, one["file"], one["tensorrt"].partition(" ")[2], *seconds, size,
                     cell(layers.get("layers")), of, adds, cell(layers.get("conversions")), one["run"]))  # fmt: skip
    heads = ("model", "file", "TensorRT", "build s", "again s", "KiB", "layers", "convolutions in INT8", "Adds in them",
             "layers that convert", "run")  # fmt: skip
    return markdown(heads, sorted(rows, key=lambda row: (row[0], row[2], rank(precision_of(row[1])))))


def is_again(engine: dict[str, Any]) -> bool:
    """Whether it was built a second time, with the timing cache of the first."""
    return ".again" in engine["engine"]


def model_of(engine: dict[str, Any]) -> str:
    """The net's name: of "resnet20/model.fp16" and of "extra/resnet20.int8"."""
    folder, _, rest = engine["engine"].partition("/")
    return str(rest.partition(".")[0] if folder == "extra" else folder)


def answers_table(found: dict[str, Any]) -> str:
    """Top-1, flips and distance against ONNX Runtime on the same file."""
    rows = []
    for one in found["answers"]:
        before, after = one["reference_score"]["top1_percent"], one["candidate_score"]["top1_percent"]
        flips = f"{one['flips']} ({100 * one['flips'] / one['images']:.2f} %)"
        shown = (DASH if one.get(k) is None else f"{one[k]:.1e}" for k in ("relative_l2", "max_abs_dlogit"))
        version = one["tensorrt"].partition(" ")[2]
        rows.append((one["model"], one["source"], version, f"{one['images']:,}", f"{before:.2f}", f"{after:.2f}",
                     f"{after - before:+.2f}", flips, *shown, one["run"]))  # fmt: skip
    heads = ("model", "file", "TensorRT", "images", "top-1 ORT", "top-1 TensorRT", "points", "flips", "relative L2",
             "largest", "run")  # fmt: skip
    return markdown(heads, sorted(rows, key=lambda row: (row[0], row[2], rank(row[1]))))


def targets_table(found: dict[str, Any]) -> str:
    """Met or missed."""
    words = {True: "met", False: "MISSED", None: "not known"}
    rows: list[tuple[Any, ...]] = [
        (words[one["met"]], one["target"], cell(one["value"], 3), cell(one["limit"], 3)) for one in found["targets"]
    ]
    for one in (entry for entry in found["memory"] if "grown" in entry):
        grown = ", ".join(f"{name} {value:.2f}" for name, value in one["grown"].items())
        most = max(one["grown"]["host"], one["grown"].get("own", one["grown"]["card"]))
        name = f"{one['calls']:,} calls of {one['model']} grow no memory by {GROWTH_MIB} MiB"
        rows.append((words[most <= GROWTH_MIB], name, grown, GROWTH_MIB))
    return markdown(("", "target", "measured", "limit"), rows)


def outcomes_table(found: dict[str, Any]) -> str:
    """How each step ended: its tests where it has some, else its parts."""
    steps: dict[tuple[str, str], dict[str, Any]] = {}
    for part in found["parts"]:
        if part["outcome"] == "not possible":
            continue
        step = steps.setdefault((part["step"], part["tensorrt"]), {"tests": {}, "commands": {}, "seconds": 0.0})
        step["seconds"] += part["seconds"]
        kind = "tests" if part["tests"] else "commands"
        for name, number in (part["tests"] or {part["outcome"]: 1}).items():
            step[kind][name] = step[kind].get(name, 0) + number
    rows = [(name, version.partition(" ")[2] or DASH, in_words(one["tests"]), in_words(one["commands"]),
             f"{one['seconds']:.1f}") for (name, version), one in steps.items()]  # fmt: skip
    return markdown(("step", "TensorRT", "tests", "commands", "s"), rows)


def in_words(counts: dict[str, int]) -> str:
    """Counts by outcome, with commas."""
    return ", ".join(f"{number} {name}" for name, number in sorted(counts.items())) or DASH


def not_passed(found: dict[str, Any]) -> list[str]:
    """A line for each command that did not run or failed, each test that failed, each reason why tests were skipped."""
    lines, skipped, late = [], dict[str, int](), dict[str, list[str]]()
    for part in found["parts"]:
        if part["outcome"] == "not possible":
            lines.append(f"- {part['words']}")
        elif part["outcome"] == "not started":
            late.setdefault(part["tensorrt"], []).append(part["name"])
        elif not part["tests"] and part["outcome"] != "ok":
            lines.append(f"- {part['tensorrt']}, {part['name']} {part['outcome']}: {part['words']}")
        for name, test in part["not_passed"].items():
            reason = f"{part['tensorrt']}: {' '.join(test['reason'].split())}"
            if test["outcome"] == "skipped":
                skipped[reason] = skipped.get(reason, 0) + 1
            else:
                lines.append(f"- `{name}` {test['outcome']}, {reason}")
    lines += [f"- {version}, no time was left for {', '.join(names)}" for version, names in late.items()]
    lines += [f"- {number} skipped, {reason}" for reason, number in skipped.items()]
    return list(dict.fromkeys(lines)) + [f"- {name}: {reason}" for name, reason in found["unavailable"].items()]


def tables(found: dict[str, Any]) -> str:
    """Everything, under headings."""
    found = numbered(found, "rows", "engines", "answers")
    rows = found["rows"]
    sections = {
        "Engines": engines_table(found), "Answers": answers_table(found),
        "Latency of one caller, ms": latency_table(rows),
        "Where a call's time goes, ms": phases_table(rows), "With and without a CUDA graph, ms": graph_table(rows),
        "Waiting by spinning and by blocking, batch 1, ms": waiting_table(rows), "Many callers": callers_table(rows),
        "Targets": targets_table(found), "The CUDA seam": seam_table(found), "What ran": outcomes_table(found),
        "What did not run or pass": "\n".join(not_passed(found)),
    }  # fmt: skip
    lines = [head(found), ""]
    for name, text in sections.items():
        lines += [f"### {name}", "", text.rstrip(), ""] if text else []
    return "\n".join(lines).rstrip() + "\n"


def figures_of_folder(folder: Path) -> str:
    """The compact form for the end of a run, a line each: engines, answers, targets, the latencies that matter most."""
    found = numbered(gathered(files_of_folder(folder)), "rows", "engines", "answers")
    few = [row for row in found["rows"] if row["batch"] in (1, 256)]
    parts = (engines_table(found), answers_table(found), targets_table(found), latency_table(few), callers_table(few))
    return "\n".join([head(found), *(compact(table) for table in parts if table)])[:5500]


def compact(table: str) -> str:
    """A Markdown table without its frame."""
    lines = [line.strip("| ").replace(" | ", " ") for line in table.splitlines() if not line.startswith("|---")]
    return "\n".join(lines) + "\n"


def page_with_tables(text: str, folder: Path) -> str:
    """A page whose marked blocks are written anew from the documents that they name, in `folder`."""

    def block(found: re.Match[str]) -> str:
        document = read(folder / found[2])
        return f"{found[1]}\n{short_table(document) if found[3] else tables(document)}\n{found[4]}"

    return BLOCK.sub(block, text)


def save(found: dict[str, Any], folder: Path) -> Path:
    """One card's document, named after the card and the day of its first run."""
    card = re.sub(r"[^a-z0-9]+", "-", found["card"].lower()).strip("-")
    path = folder / f"{card}-{str(found['runs'][0]['began'])[:10]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")
    return path


def main() -> None:
    """Prints the tables; ends with 1 where a file is none of a check."""
    parser = argparse.ArgumentParser(description="Tables of checks on a GPU.")
    parser.add_argument("results", type=Path, nargs="+", help="results.tar.gz, a folder of it, or a saved document")
    parser.add_argument("--short", action="store_true", help="batch 1 and the largest, beside PyTorch, alone")
    parser.add_argument("--save", action="store_true", help="write docs/gpu-results/<card>-<date>.json")
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "gpu-results", help="where --save writes")
    parser.add_argument("--pages", action="store_true", help="write the tables in docs/ anew")
    options = parser.parse_args()
    try:
        documents = by_card([read(path) for path in options.results])
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    for found in documents:
        print(short_table(found) if options.short else tables(found), end="")
        if options.save:
            print(f"written: {save(found, options.to)}", file=sys.stderr)
    for page in sorted((ROOT / "docs").glob("*.md")) if options.pages else ():
        page.write_text(page_with_tables(page.read_text(), options.to))


if __name__ == "__main__":
    main()
