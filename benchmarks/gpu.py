"""Latency on a GPU: TensorRT with and without CUDA graphs, beside PyTorch eager, torch.compile and ONNX Runtime.

    python benchmarks/gpu.py [BUNDLE ...] [--python trt=/opt/trt/bin/python --python torch=python3] [--batch 1,8,64,256]
    python benchmarks/gpu.py BUNDLE --device cpu        the same on a CPU, for PyTorch and ONNX Runtime

Each backend runs in a process of its own (`benchmarks/gpu_backend.py`), if need be in another Python: the wheels of
TensorRT and of torch rarely share one. A backend that cannot run is named with its reason. Prints a table on stderr,
JSON as stdout's last line. Run it with nothing else on the GPU.

Targets: a batch-1 call with a graph takes at most 1.15 times its GPU time + 15 us, and the fastest engine is at least 8
times as fast as PyTorch eager.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from toolkit.runtime.driver import probe_driver  # noqa: E402
from toolkit.storage.files import write_json  # noqa: E402

FACTOR, EXTRA_MS, SPEEDUP = 1.15, 0.015, 8.0
BACKENDS = {"cuda": ("trt", "torch", "compile", "ort-cuda", "ort-trt"), "cpu": ("torch", "compile", "ort")}
LONGEST_CHILD_S = 400
FIGURES = ("gpu_p50_ms", "gpu_p99_ms", "enqueue_p50_ms", "call_p50_ms", "call_p99_ms")
CLOCKS = (
    "name",
    "driver_version",
    "pstate",
    "clocks.sm",
    "clocks.max.sm",
    "clocks.mem",
    "power.limit",
    "temperature.gpu",
)


def say(text: str) -> None:
    """A line for people."""
    print(text, file=sys.stderr, flush=True)


def answer_of_child(backend: str, options: argparse.Namespace) -> dict[str, Any]:
    """Runs a backend in its Python; a crash, a hang or a missing interpreter is its reason."""
    script = Path(__file__).resolve().with_name("gpu_backend.py")
    command = [*python_of(backend, options.python), str(script), backend, *map(str, options.bundles)]
    command += ["--device", options.device, "--batch", options.batch, "--seconds", str(options.seconds)]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    try:
        environment = os.environ | {"PYTHONPATH": paths}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LONGEST_CHILD_S)
    except subprocess.TimeoutExpired as ended:
        rows = rows_from_text((ended.stdout or b"").decode(errors="replace"))
        return {"rows": rows, "unavailable": {backend: f"not done within {LONGEST_CHILD_S} s"}}
    except OSError as error:
        return {"rows": [], "unavailable": {backend: f"{command[0]} cannot be started: {error}"}}
    if done.returncode < 0:
        reason = f"its process was ended by {signal.Signals(-done.returncode).name}"
        return {"rows": rows_from_text(done.stdout), "unavailable": {backend: reason}}
    try:
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        return {"rows": [], "unavailable": {backend: last[0][:400]}}
    return answer


def rows_from_text(text: str) -> list[dict[str, Any]]:
    """The rows that a backend had printed before it was ended."""
    rows = []
    for line in text.splitlines():
        if line.startswith('{"row": '):
            try:
                rows.append(json.loads(line)["row"])
            except ValueError:
                continue  # cut off in the middle
    return rows


def python_of(backend: str, chosen: list[str]) -> list[str]:
    """The command of a backend's Python: of its own name, else of its family's (`ort` for ort-cuda, `torch`)."""
    pythons = dict(entry.partition("=")[::2] for entry in chosen)
    family = "torch" if backend == "compile" else backend.partition("-")[0]
    return shlex.split(pythons.get(backend) or pythons.get(family) or sys.executable)


def device_facts() -> dict[str, Any]:
    """The GPU as the driver and nvidia-smi name it; a Jetson has no nvidia-smi, and its clocks are then None."""
    driver = probe_driver()
    facts: dict[str, Any] = {"driver": driver.driver_version, "reason": driver.reason}
    facts["devices"] = [vars(device) for device in driver.devices]
    facts["nvidia_smi"] = nvidia_smi()
    return facts


def device_in_words(facts: dict[str, Any]) -> str:
    """One line: GPU, driver, clocks."""
    if facts["reason"]:
        return f"no GPU: {facts['reason']}"
    first = facts["devices"][0]
    clocks = facts["nvidia_smi"] or {}
    words = [f"{name} {value}" for name, value in clocks.items() if name != "name"]
    return ", ".join([f"{first['name']} ({first['compute_capability']})", f"CUDA {facts['driver']}", *words])


def nvidia_smi() -> dict[str, str] | None:
    """Name, driver and clocks now, of the first GPU."""
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", f"--query-gpu={','.join(CLOCKS)}", "--format=csv,noheader", "-i", "0"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    values = [value.strip() for value in done.stdout.strip().split(",")]
    return dict(zip(CLOCKS, values, strict=True)) if len(values) == len(CLOCKS) else None


def joined(answers: dict[str, dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """All rows, each with how many times as fast as PyTorch eager it is (None without it), and all reasons."""
    rows = [dict(row) for answer in answers.values() for row in answer["rows"]]
    alone = [row for row in rows if row.get("threads", 1) == 1]
    eager = {(row["model"], row["batch"]): row["call_p50_ms"] for row in alone if row["variant"] == "eager"}
    for row in rows:
        reference = eager.get((row["model"], row["batch"]))
        row["times_eager"] = None if reference is None else reference / row["call_p50_ms"]
    return rows, {name: reason for answer in answers.values() for name, reason in answer["unavailable"].items()}


def targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Whether batch-1 calls with a graph meet the targets, by engine; `met` is None where a figure is missing."""
    found: list[dict[str, Any]] = []
    single = [row for row in rows if row["batch"] == 1 and row.get("threads", 1) == 1]
    graphs = [row for row in single if row["variant"] == "graph" and row["gpu_p50_ms"] is not None]
    for row in graphs:
        limit = FACTOR * row["gpu_p50_ms"] + EXTRA_MS
        name = (
            f"{row['model']} {row['precision']}: a call within {FACTOR} times its GPU time + {1000 * EXTRA_MS:.0f} us"
        )
        found.append({"target": name, "value": row["call_p50_ms"], "limit": limit, "met": row["call_p50_ms"] <= limit})
    for model in dict.fromkeys(row["model"] for row in graphs):
        best = min((row for row in graphs if row["model"] == model), key=lambda row: row["call_p50_ms"])
        times = best["times_eager"]
        name = f"{model}: {best['precision']} at least {SPEEDUP:g} times as fast as PyTorch eager"
        found.append(
            {"target": name, "value": times, "limit": SPEEDUP, "met": None if times is None else times >= SPEEDUP}
        )
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as text, milliseconds; a figure that a backend does not give is a dash."""
    heads = (
        "model",
        "backend",
        "precision",
        "variant",
        "batch",
        "callers",
        "GPU p50",
        "p99",
        "enqueue",
        "call p50",
        "p99",
        "images/s",
        "x eager",
    )
    body = [
        (
            row["model"], row["backend"], row["precision"], row["variant"],
            str(row["batch"]), str(row.get("threads", 1)),
            *(cell(row.get(name), 4) for name in FIGURES),
            f"{row['images_per_s']:,.0f}", cell(row["times_eager"], 2) + ("" if row["stable"] else " unsteady"),
        )
        for row in sorted(rows, key=lambda row: (row["model"], row["batch"], row["backend"], row["precision"]))
    ]  # fmt: skip
    widths = [max(len(line[i]) for line in [heads, *body]) for i in range(len(heads))]
    lines = [
        "  ".join(value.ljust(width) for value, width in zip(line, widths, strict=True)) for line in [heads, *body]
    ]
    return "\n".join(line.rstrip() for line in lines)


def cell(value: float | None, digits: int) -> str:
    """A number, or a dash."""
    return "-" if value is None else f"{value:.{digits}f}"


def main() -> int:
    """Measures and prints; 1 where a target is missed or nothing could be measured."""
    parser = argparse.ArgumentParser(description="Latency on a GPU.")
    parser.add_argument("bundles", nargs="*", type=Path, help="bundles, with engines for trt")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--backends", help="with commas (default: all of the device)")
    parser.add_argument("--python", action="append", default=[], metavar="BACKEND=COMMAND")
    parser.add_argument("--batch", default="1,8,64,256")
    parser.add_argument("--seconds", type=float, default=1.0, help="measuring time of a runner at a batch")
    parser.add_argument("--json", type=Path, help="write the document here too")
    options = parser.parse_args()
    if not options.bundles:
        options.bundles = sorted(path.parent for path in (ROOT / "bundles/gpu-results/bundles").glob("*/manifest.json"))
    if not options.bundles:
        say("there are no bundles to measure: name one, or let `make gpu` build them")
        return 1
    backends = options.backends.split(",") if options.backends else BACKENDS[options.device]
    answers, clocks = {}, {}
    before = device_facts()
    if options.device == "cuda":
        say(device_in_words(before))
    for backend in backends:
        say(f"measure {backend} ...")
        answers[backend] = answer_of_child(backend, options)
        clocks[backend] = nvidia_smi()
    rows, unavailable = joined(answers)
    if rows:
        say(table(rows))
    for name, reason in unavailable.items():
        say(f"not run: {name}: {reason}")
    judged = targets(rows)
    for one in judged:
        met = {True: "met", False: "MISSED", None: "not known"}[one["met"]]
        say(f"{met}: {one['target']}: {cell(one['value'], 3)} against {cell(one['limit'], 3)}")
    host = {"machine": platform.machine(), "cores": os.cpu_count()}
    document = {
        "benchmark": "gpu", "device": before, "clocks_after": clocks, "host": host, "rows": rows,
        "unavailable": unavailable, "targets": judged,
        "pythons": {name: answer.get("python") for name, answer in answers.items()},
    }  # fmt: skip
    if options.json is not None:
        write_json(options.json, document)
    print(json.dumps(document))
    return 0 if rows and all(one["met"] is not False for one in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
