"""What checks on a GPU brought back, as one document a card: later figures take the place of earlier ones.

A check's tar is read without unpacking it. Nothing is kept that tells of the machine beyond card, driver, processor and
versions: paths are cut out of every text.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
import tarfile
import zlib
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

from gpu import joined, rows_from_text, targets  # noqa: E402

FORMAT = 2
BENCHES = re.compile(r"documents/(bench-.*|eager|compile)\.json$")
DRIVER = re.compile(r"Driver Version +: +([\d.]+)|libnvcuvid\.so\.([\d.]+\d)")
PATHS = re.compile(r"(?<![\w.])/(?:[\w.+@-]+/)*[\w.+@-]+")
PACKAGES = ("numpy", "torch", "onnxruntime", "cuda-bindings", "cupy-cuda13x", "cupy-cuda12x")
WITHOUT_TENSORRT = ("machine", "seam", "eager", "compile")  # steps that are the same under every TensorRT
OF_ENGINE = ("build_seconds", "flags", "optimisation_level", "unreadable")
NOT_RUN = ("not started", "not possible")
# What a figure is the figure of; a later one with the same key takes its place.
KEYS = {
    "engines": ("engine", "tensorrt"), "answers": ("model", "source", "tensorrt"),
    "rows": ("model", "backend", "precision", "variant", "batch", "threads", "tensorrt"),
    "memory": ("model", "what", "tensorrt"), "phases": ("model", "batch", "what", "tensorrt"),
    "seam": ("what",), "faults": ("what", "tensorrt"), "parts": ("name", "tensorrt"),
}  # fmt: skip


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
    paths = (path for path in folder.rglob("*") if path.suffix in (".json", ".jsonl", ".csv", ".log"))
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
    """All figures of one run in one document."""
    summary = document_of(files.get("summary.json", "").replace("\n", " "))
    engines = [short(engine) for engine in json.loads(files.get("engines.json") or "[]")]
    version = next((engine["tensorrt"] for engine in engines if engine["tensorrt"]), "")
    answers = {name: {"rows": rows_from_text(text), "unavailable": document_of(text).get("unavailable", {})}
               for name, text in files.items() if BENCHES.search(name)}  # fmt: skip
    rows, unavailable = joined(answers)
    devices = (summary.get("driver") or {}).get("devices") or [{"name": "no GPU"}]

    def kept(name: str) -> list[dict[str, Any]]:
        lines = lines_of(files.get(f"documents/{name}.jsonl", ""))
        return [{"what": what_of(line), **line, "tensorrt": version} for line in lines]

    found = {
        "format": FORMAT, "card": devices[0]["name"], "machine": summary.get("machine"),
        "rehearsal": summary.get("rehearsal"), "runs": [run_of(summary, files, version)],
        "rows": [{"threads": 1, **row, "tensorrt": version if row["backend"] == "trt" else ""} for row in rows],
        "engines": engines, **{name: kept(name) for name in ("answers", "memory", "phases", "seam", "faults")},
        "parts": [part_of(part, version) for part in summary.get("parts", ())], "unavailable": unavailable,
    }  # fmt: skip
    for name in KEYS:
        found[name] = [{**entry, "run": summary.get("began")} for entry in found[name]]
    clean: dict[str, Any] = cleaned(found)
    return judged(clean)


def what_of(line: dict[str, Any]) -> str:
    """Tells lines of one file apart: of memory "grown" or "opened", of phases "graph", of the seam all names."""
    names = [name for name in ("grown", "opened", "graph") if name in line]
    return names[0] if names else ("" if "model" in line else " ".join(line))


def run_of(summary: dict[str, Any], files: dict[str, str], version: str) -> dict[str, Any]:
    """When, with which driver, TensorRT, packages and clocks a run was made."""
    machine = document_of(files.get("documents/versions.json", ""))
    driver = DRIVER.search(files.get("logs/nvidia-smi.log", "") + files.get("documents/versions.json", ""))
    most = machine.get("nvml")
    packages = machine.get("packages") or {}
    return {
        "began": summary.get("began"), "seconds": summary.get("seconds"), "deadline_s": summary.get("deadline_s"),
        "driver": driver and (driver[1] or driver[2]), "cuda": (summary.get("driver") or {}).get("driver_version"),
        "tensorrt": version, "python": str(machine.get("python", "?")).split()[0],
        "processor": str(machine.get("processor", "?")).partition(":")[2].strip() or "?", "cores": machine.get("cores"),
        "packages": {name: packages[name] for name in PACKAGES if name in packages},
        "sm_most_mhz": most.get("sm_most_mhz") if isinstance(most, dict) else None, "clocks": clocks(files),
    }  # fmt: skip


def short(engine: dict[str, Any]) -> dict[str, Any]:
    """A sidecar without hashes and the long list of what was fused, but with how many residual Adds were."""
    layers, name = engine.get("census"), engine["engine"].replace("/engines/", "/").removesuffix(".engine.json")
    version = engine.get("tensorrt") or {}
    found = {"engine": name, "tensorrt": " ".join(filter(None, (version.get("kind"), version.get("version"))))}
    found |= {key: engine[key] for key in OF_ENGINE if key in engine}
    found |= {"file": (engine.get("onnx") or {}).get("file"), "bytes": (engine.get("plan") or {}).get("bytes")}
    if layers is None:
        return found | {"census": None}
    return found | {"census": {k: v for k, v in layers.items() if k != "fused"} | adds_of(layers.get("fused", ()))}


def adds_of(fused: Any) -> dict[str, int]:
    """Residual Adds by where they went: into a convolution, or into another kernel."""
    inside = outside = 0
    for entry in fused:
        ends = [node.rpartition("/")[2] for node in entry["nodes"] if not node.startswith("preprocess")]
        inside += ends.count("Add") if "Conv" in ends else 0
        outside += 0 if "Conv" in ends else ends.count("Add")
    return {"adds_in_convolutions": inside, "adds_elsewhere": outside}


def part_of(part: dict[str, Any], version: str) -> dict[str, Any]:
    """How a part ended: counts of its tests, and each that did not pass."""
    counts: dict[str, int] = {}
    for test in part["tests"].values():
        counts[test["outcome"]] = counts.get(test["outcome"], 0) + 1
    others = {name.rpartition("::")[2]: {"outcome": test["outcome"], "reason": str(test["reason"])[:160]}
              for name, test in part["tests"].items() if test["outcome"] != "passed"}  # fmt: skip
    kept = {name: part[name] for name in ("step", "name", "outcome", "words", "seconds")}
    same = part["step"] in WITHOUT_TENSORRT
    return {**kept, "tensorrt": "" if same else version, "tests": counts, "not_passed": others}


def clocks(files: dict[str, str]) -> dict[str, Any]:
    """Least, median and most of SM MHz, memory MHz, watts and degrees over the run, where they were written down."""
    lines = lines_of(files.get("clocks.jsonl", "")) or lines_of_smi(files.get("clocks.csv", ""))
    found: dict[str, Any] = {}
    for name in ("sm_mhz", "memory_mhz", "watts", "celsius", "memory_used_mib"):
        values = [float(line[name]) for line in lines if line.get(name) is not None]
        if values:
            found[name] = {"least": min(values), "median": statistics.median(values), "most": max(values)}
    if slowed := sorted({reason for line in lines for reason in line.get("slowed_by") or ()}):
        found["slowed_by"] = slowed
    return found


def lines_of_smi(text: str) -> list[dict[str, Any]]:
    """The same of nvidia-smi's own columns, which the first check wrote."""
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line.count(",") >= 6]
    names = {2: "sm_mhz", 3: "memory_mhz", 4: "watts", 5: "celsius"}
    return [{name: row[at] for at, name in names.items() if re.fullmatch(r"[\d.]+", row[at])} for row in rows]


def cleaned(value: Any) -> Any:
    """Floats with six digits behind the point, and no text with a path of the machine."""
    if isinstance(value, dict):
        return {key: cleaned(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [cleaned(entry) for entry in value]
    if isinstance(value, float):
        return round(value, 6)
    return PATHS.sub(lambda found: found[0].rpartition("/")[2], value) if isinstance(value, str) else value


def merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Two documents of one card: the later one's figures take the place of the earlier one's of the same key.

    A part that was not run takes nobody's place.
    """
    if str(second["runs"][0]["began"]) < str(first["runs"][0]["began"]):
        first, second = second, first
    runs = {run["began"]: run for run in [*first["runs"], *second["runs"]]}
    found = {**first, **second, "runs": [runs[began] for began in sorted(runs)]}
    for name, keys in KEYS.items():
        found[name] = list(by_key([*first[name], *second[name]], keys).values())
    found["unavailable"] = first["unavailable"] | second["unavailable"]
    return judged(found)


def by_key(entries: list[dict[str, Any]], keys: tuple[str, ...]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The last of each key, in the order in which the keys first came.

    What a later run found there from an earlier one (an engine, a line of a file) stays of the earlier one.
    """
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for entry in entries:
        key = tuple(entry.get(name) for name in keys)
        before = found.get(key)
        if before is None or (entry.get("outcome") not in NOT_RUN and {**entry, "run": before["run"]} != before):
            found[key] = entry
    return found


def judged(found: dict[str, Any]) -> dict[str, Any]:
    """With how many times as fast as PyTorch eager every row is, and the targets."""
    rows, _ = joined({"all": {"rows": found["rows"], "unavailable": {}}})
    rows = cleaned(rows)
    return {**found, "rows": rows, "targets": cleaned(targets(rows))}


def read(path: Path) -> dict[str, Any]:
    """A tar of a check, a folder of it unpacked, or a document that was saved.

    Raises:
        ValueError: it is none of these, or of another format.
        OSError: it cannot be read.
    """
    if path.suffix == ".json":
        found: dict[str, Any] = json.loads(path.read_text())
        if found.get("format") != FORMAT:
            raise ValueError(f"{path} has format {found.get('format')}, not {FORMAT}")
        return found
    try:
        files = files_of_folder(path) if path.is_dir() else files_of_tar(path)
    except (tarfile.TarError, EOFError, zlib.error) as error:  # the last two of one that is cut short or damaged
        raise ValueError(f"{path} cannot be read: {error}") from error
    if "summary.json" not in files:
        raise ValueError(f"{path} holds no summary.json: it is not of benchmarks/gpu_check.py")
    return gathered(files)


def by_card(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One document a card."""
    found: dict[str, dict[str, Any]] = {}
    for document in documents:
        card = document["card"]
        found[card] = merged(found[card], document) if card in found else document
    return list(found.values())
