"""All that needs a GPU, in one go: inputs, engines, `pytest -m gpu`, `benchmarks/gpu.py`. `make gpu` calls this.

    python benchmarks/gpu_check.py [--trt-python COMMAND] [--torch-python COMMAND] [--steps inputs,engines,tests,bench]
    python benchmarks/gpu_check.py --list      the tests by name, as docs/gpu.md has them

Writes bundles/gpu-results/: engines, a JUnit file for each Python, bench.json, logs, and summary.json, which says of
every test whether it passed, failed, or was skipped and why: what was skipped everywhere has not been checked. Without
a GPU it says so and exits 1. The two Pythons may be one; each runs every test and skips what it has no engine for.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from toolkit.runtime.driver import probe_driver  # noqa: E402

STEPS = ("inputs", "engines", "tests", "bench")
INPUTS, RESULTS = ROOT / "bundles" / "gpu-inputs", ROOT / "bundles" / "gpu-results"
TESTS = ("-m", "pytest", "tests/gpu", "-m", "gpu", "--confcutdir", "tests/gpu", "-p", "no:cacheprovider")
BATCH = "1:8:256"


def say(text: str) -> None:
    """A line for people."""
    print(text, file=sys.stderr, flush=True)


def run(name: str, command: list[str], limit_s: float, **variables: str) -> int:
    """Runs a step, its words into a log; returns its exit code, and says how long it took."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": paths} | variables
    log, began = RESULTS / f"{name}.log", time.monotonic()
    RESULTS.mkdir(parents=True, exist_ok=True)
    say(f"{name} ...")
    try:
        with log.open("w") as stream:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, stdout=stream, stderr=subprocess.STDOUT, timeout=limit_s
            )
        code, words = done.returncode, "ok" if done.returncode == 0 else f"exit code {done.returncode}"
    except subprocess.TimeoutExpired:
        code, words = 124, f"not done within {limit_s:.0f} s"
    except OSError as error:
        code, words = 127, f"{command[0]} cannot be started: {error}"
    say(f"{name}: {words}, {time.monotonic() - began:.0f} s{'' if code == 0 else f'; see {log}'}")
    if code != 0 and log.is_file():
        say("\n".join(f"    {line[:200]}" for line in log.read_text(errors="replace").splitlines()[-15:]))
    return code


def make_inputs(python: list[str]) -> bool:
    """Bundles and reference logits, unless they were brought along."""
    if (INPUTS / "inputs.json").is_file():
        return True
    return run("inputs", [*python, "benchmarks/gpu_inputs.py", "--out", str(INPUTS)], 600) == 0


def build_engines(python: list[str]) -> bool:
    """Fresh copies of the bundles, each with engines of every precision."""
    shutil.rmtree(RESULTS / "bundles", ignore_errors=True)
    good = (INPUTS / "inputs.json").is_file()
    for manifest in sorted(INPUTS.glob("*/manifest.json")):
        folder = RESULTS / "bundles" / manifest.parent.name
        shutil.copytree(manifest.parent, folder)
        words = ["-m", "toolkit", "build", str(folder), "--precision", "fp32,fp16,int8", "--batch", BATCH]
        good &= run(f"engines-{folder.name}", [*python, *words], 600) == 0
    return good


def run_tests(pythons: dict[str, list[str]]) -> bool:
    """Every test in every Python that is a different one."""
    good = True
    variables = {"TOOLKIT_GPU_INPUTS": str(INPUTS), "TOOLKIT_GPU_ENGINES": str(RESULTS / "bundles")}
    for name, python in pythons.items():
        file = RESULTS / f"tests-{name}.xml"
        file.unlink(missing_ok=True)
        good &= run(f"tests-{name}", [*python, *TESTS, "--junitxml", str(file)], 900, **variables) == 0
    return good


def run_bench(pythons: dict[str, list[str]], seconds: float) -> bool:
    """Latencies of all backends, each in the Python that has it."""
    folders = [str(manifest.parent) for manifest in sorted((RESULTS / "bundles").glob("*/manifest.json"))]
    if not folders:
        say("bench: there are no bundles with engines")
        return False
    chosen = [f"trt={shlex.join(pythons['trt'])}"]
    chosen += [f"{family}={shlex.join(pythons.get('torch', pythons['trt']))}" for family in ("torch", "ort")]
    words = [word for entry in chosen for word in ("--python", entry)]
    words += ["--seconds", str(seconds), "--json", str(RESULTS / "bench.json")]
    good = run("bench", [sys.executable, "benchmarks/gpu.py", *folders, *words], 900) == 0
    say((RESULTS / "bench.log").read_text(errors="replace").rpartition("\n{")[0])
    return good


def outcomes_from_junit(file: Path) -> dict[str, str]:
    """Of every test "passed", "failed" or "skipped: why", by its name as pytest collects it."""
    found = {}
    for case in ElementTree.parse(file).iter("testcase"):
        name = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"
        verdict = "passed"
        for child in case:
            if child.tag == "skipped":
                verdict = f"skipped: {child.get('message')}"
            elif child.tag in ("failure", "error"):
                verdict = "failed"
        found[name] = verdict
    return found


def summary(pythons: dict[str, list[str]], steps: dict[str, bool]) -> dict[str, Any]:
    """What every test came to over all Pythons: failed anywhere, else passed anywhere, else skipped and why."""
    outcomes: dict[str, dict[str, str]] = {}
    for name in pythons:
        if (RESULTS / f"tests-{name}.xml").is_file():
            for test, verdict in outcomes_from_junit(RESULTS / f"tests-{name}.xml").items():
                outcomes.setdefault(test, {})[name] = verdict
    tests: dict[str, Any] = {"failed": [], "passed": [], "not_checked": {}}
    for test, verdicts in outcomes.items():
        if "failed" in verdicts.values():
            tests["failed"].append(test)
        elif "passed" in verdicts.values():
            tests["passed"].append(test)
        else:
            tests["not_checked"][test] = verdicts
    return {"steps": steps, "device": [vars(device) for device in probe_driver().devices], "tests": tests}


def collected() -> list[str]:
    """The tests that carry the marker, as pytest collects them."""
    done = subprocess.run([sys.executable, *TESTS, "--collect-only", "-q"], cwd=ROOT, capture_output=True, text=True)
    return [line for line in done.stdout.splitlines() if "::" in line]


def markdown(names: list[str]) -> str:
    """Tests as a list of sentences under their files, parameters in brackets: `docs/gpu.md` holds it."""
    lines: list[str] = []
    cases: dict[tuple[str, str], list[str]] = {}
    for name in names:
        file, _, test = name.partition("::")
        plain, _, parameters = test.partition("[")
        cases.setdefault((file, plain), []).append(parameters.rstrip("]"))
    for file in dict.fromkeys(file for file, _ in cases):
        lines += [f"`{file}`", ""]
        for (where, plain), parameters in cases.items():
            if where == file:
                shown = f" ({', '.join(parameters)})" if parameters != [""] else ""
                lines.append(f"- `{plain}`{shown}")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    """1 where there is no GPU, a step fails or a test fails."""
    parser = argparse.ArgumentParser(description="All that needs a GPU.")
    parser.add_argument("--trt-python", default=sys.executable, help="a command: a Python with TensorRT")
    parser.add_argument("--torch-python", default=sys.executable, help="a command: a Python with torch and onnxruntime")
    parser.add_argument("--steps", default=",".join(STEPS), help="of inputs, engines, tests, bench")
    parser.add_argument("--seconds", type=float, default=0.5, help="measuring time of a runner at a batch")
    parser.add_argument("--list", action="store_true", help="the tests by name, and nothing else")
    options = parser.parse_args()
    if options.list:
        print(markdown(collected()), end="")
        return 0
    driver = probe_driver()
    if not driver.available:
        say(f"There is no GPU to check anything on: {driver.reason}.")
        return 1
    say(f"{driver.devices[0].name} ({driver.devices[0].compute_capability}), CUDA {driver.driver_version}")
    pythons = {"trt": shlex.split(options.trt_python), "torch": shlex.split(options.torch_python)}
    if pythons["trt"] == pythons["torch"]:
        del pythons["torch"]
    wanted, done = options.steps.split(","), {}
    work = {
        "inputs": lambda: make_inputs(shlex.split(options.torch_python)),
        "engines": lambda: build_engines(pythons["trt"]),
        "tests": lambda: run_tests(pythons),
        "bench": lambda: run_bench(pythons, options.seconds),
    }
    began = time.monotonic()
    for step in STEPS:
        if step in wanted:
            done[step] = work[step]()
    say(f"all steps: {(time.monotonic() - began) / 60:.1f} minutes")
    found = summary(pythons, done)
    (RESULTS / "summary.json").write_text(json.dumps(found, indent=2) + "\n")
    show(found, RESULTS)
    checked_something = "tests" not in done or found["tests"]["passed"]
    return 0 if all(done.values()) and checked_something else 1


def show(found: dict[str, Any], results: Path) -> None:
    """What failed and what was not checked, by reason, for people."""
    tests = found["tests"]
    for test in tests["failed"]:
        say(f"FAILED: {test}")
    by_reason: dict[str, list[str]] = {}
    for test, why in tests["not_checked"].items():
        reason = "; ".join(f"{name} {verdict}" for name, verdict in why.items())
        by_reason.setdefault(reason, []).append(test.rpartition("::")[2])
    for reason, names in by_reason.items():
        say(f"NOT CHECKED, {reason}:")
        say("\n".join(f"    {name}" for name in names))
    counts = ", ".join(f"{len(tests[name])} {name.replace('_', ' ')}" for name in ("passed", "failed", "not_checked"))
    steps = ", ".join(f"{name} {'ok' if good else 'FAILED'}" for name, good in found["steps"].items())
    say(f"Tests: {counts}. Steps: {steps}. Results in {results}")


if __name__ == "__main__":
    sys.exit(main())
