"""All that needs a GPU in one call of known length, and nothing that it learns is lost. `make gpu` calls this.

    python benchmarks/gpu_check.py --out DIR [--deadline 420] [--steps seam,eager,...] [--skip compile] [--inputs DIR]
    python benchmarks/gpu_check.py --rehearse --out DIR      the same plan on stand-ins, without a GPU
    python benchmarks/gpu_check.py --list                    the tests by name, as docs/gpu.md has them

Each part is a process group of its own with a limit and is ended whole; a test that crashes or hangs costs itself.
After each step DIR/results.tar.gz is written anew (JSON, logs, layer reports, sidecars; no plans), DIR/summary.json
beside it. What would begin with too little time left is named as not started. docs/gpu.md says how to read it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import gpu_results as results  # noqa: E402
import gpu_steps as plan  # noqa: E402
from gpu_process import Ended, end_all, end_group, last_words, run_in_group, run_tests  # noqa: E402

FINISH_S = 8.0  # kept back for the last tar and the words at the end
PROBE = """import dataclasses, json
from toolkit.runtime.driver import probe_driver
print(json.dumps(dataclasses.asdict(probe_driver())))"""


class Stopped(BaseException):
    """Somebody outside ended the check."""


def say(text: str) -> None:
    """A line for people."""
    print(text, file=sys.stderr, flush=True)


class Check:
    """One run: its parts, its clock, what they came to."""

    def __init__(self, options: argparse.Namespace, work: Path, environment: dict[str, str], driver: dict[str, Any]):
        self.began, self.deadline_s = options.began, options.deadline
        self.out, self.work, self.environment = options.out, work, environment
        self.places = plan.Places(Path(environment["TOOLKIT_GPU_INPUTS"]), work / "engines", work / "results")
        self.summary: dict[str, Any] = {
            "format": 1, "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "argv": sys.argv[1:],
            "deadline_s": self.deadline_s, "seconds": 0.0, "driver": driver, "machine": machine_in_words(driver),
            "rehearsal": bool(options.rehearse), "parts": [],
        }  # fmt: skip

    @property
    def left_s(self) -> float:
        """Seconds to the deadline."""
        return float(self.began + self.deadline_s - time.monotonic())

    def run(self, parts: list[plan.Part]) -> None:
        """Every part, or why it was not started; the tar after each step."""
        step = ""
        for part in parts:
            if step and part.step != step:
                self.keep(tar=True)
            step = part.step
            self.summary["parts"].append(self.outcome_of(part))
            self.keep(tar=part.tests)

    def outcome_of(self, part: plan.Part) -> dict[str, Any]:
        """Runs a part within what is left, and says what it came to."""
        found: dict[str, Any] = {"step": part.step, "name": part.name, "seconds": 0.0, "tests": {}, "problem": ""}
        limit_s = min(part.limit_s, self.left_s - FINISH_S)
        if part.impossible:
            found |= {"outcome": "not possible", "words": part.impossible, "last_words": ""}
        elif limit_s < part.least_s:
            found |= {"outcome": "not started", "words": f"{max(0.0, self.left_s):.0f} s left", "last_words": ""}
        else:
            began = time.monotonic()
            try:
                found |= self.tested(part, limit_s) if part.tests else self.done(part, limit_s)
            except Exception as error:  # what this script itself does wrong must not lose the rest
                found |= {"outcome": "failed", "words": f"{type(error).__name__}: {error}", "last_words": ""}
            except Stopped:
                end_all()
                found |= {"outcome": "failed", "words": "the check was told to stop", "last_words": ""}
                self.summary["parts"].append(found)
                raise
            found["seconds"] = round(time.monotonic() - began, 2)
        say(f"[{self.deadline_s - self.left_s:5.0f} s] {part.name}: {found['words']} ({found['seconds']:.1f} s)")
        return found

    def log_of(self, part: plan.Part) -> Path:
        """Where a part's words go."""
        return self.places.results / "logs" / f"{part.name}.log"

    def done(self, part: plan.Part, limit_s: float) -> dict[str, Any]:
        """A command's outcome."""
        log, document = self.log_of(part), self.places.results / "documents" / f"{part.name}.json"
        document.parent.mkdir(parents=True, exist_ok=True)
        ended: Ended = run_in_group(
            part.command(), log, limit_s, self.environment | part.variables, ROOT, document if part.document else None
        )
        last = last_words(log) or (last_words(document) if part.document else "")
        return {"outcome": "ok" if ended.good else "failed", "words": ended.words, "last_words": last}

    def tested(self, part: plan.Part, limit_s: float) -> dict[str, Any]:
        """The outcomes of a file of tests."""
        log, journal = self.log_of(part), self.places.results / "journals" / f"{part.name}.jsonl"
        variables = self.environment | part.variables | {"TOOLKIT_GPU_PART": part.name}
        tests = run_tests(part.command(), journal, log, limit_s, variables, ROOT)
        good = not tests.problem and all(one["outcome"] in results.GOOD for one in tests.outcomes.values())
        numbers: dict[str, int] = {}
        for one in tests.outcomes.values():
            numbers[one["outcome"]] = numbers.get(one["outcome"], 0) + 1
        words = ", ".join(f"{number} {name}" for name, number in numbers.items()) or tests.problem
        return {
            "outcome": "ok" if good else "failed", "words": words, "tests": tests.outcomes, "problem": tests.problem,
            "starts": tests.starts, "last_words": last_words(log) if tests.problem else "",
        }  # fmt: skip

    def keep(self, tar: bool) -> bool:
        """Writes down what is known, and whether it could; nothing that goes wrong here ends the check."""
        self.summary["seconds"] = round(self.deadline_s - self.left_s, 1)
        try:
            results.write_json_whole(self.places.results / results.SUMMARY, self.summary)
            results.write_json_whole(self.out / results.SUMMARY, self.summary)
            if tar:
                engines = plan.facts_of_engines(self.places.engines)
                results.write_json_whole(self.places.results / "engines.json", engines)
                results.write_tar(self.places.results, self.out)
        except Exception as error:
            say(f"the results could not be written: {type(error).__name__}: {error}")
            return False
        return True

    def finish(self) -> int:
        """The last tar and the words at the end; 0 where all was good, something was checked and is written down."""
        written = self.keep(tar=True)
        try:
            from gpu_tables import figures_of_folder

            figures = figures_of_folder(self.places.results)
        except Exception as error:
            figures = f"no tables: {type(error).__name__}: {error}"
        print(results.in_words(self.summary, figures), flush=True)
        numbers = results.counts(self.summary)
        bad = sum(number for name, number in numbers.items() if name not in (*results.GOOD, "not possible"))
        return 0 if written and not bad and numbers.get("passed", 0) + numbers.get("ok", 0) else 1


def machine_in_words(driver: dict[str, Any]) -> str:
    """One line: the GPU and the newest CUDA that its driver speaks."""
    if not driver["available"]:
        return f"no GPU: {driver['reason']}"
    first = driver["devices"][0]
    return (
        f"{first['name']} ({first['compute_capability']}, {first['memory_mib']} MiB), CUDA {driver['driver_version']}"
    )


def environment_of(options: argparse.Namespace, work: Path) -> dict[str, str]:
    """What every child gets: the repository first, caches that can be written, no plugin of pytest but our own."""
    cache, paths = work / "cache", [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    folders = {
        "TOOLKIT_CACHE": "toolkit", "XDG_CACHE_HOME": "xdg", "TORCHINDUCTOR_CACHE_DIR": "inductor",
        "TRITON_CACHE_DIR": "triton", "CUPY_CACHE_DIR": "cupy", "CUDA_CACHE_PATH": "cuda", "TMPDIR": "tmp",
    }  # fmt: skip
    for name in folders.values():
        (cache / name).mkdir(parents=True, exist_ok=True)
    told = {
        "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", "NO_COLOR": "1",
        "COLUMNS": "160", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "TOOLKIT_GPU_INPUTS": str(options.inputs),
        "TOOLKIT_GPU_ENGINES": str(work / "engines"), "TOOLKIT_GPU_RESULTS": str(work / "results"),
    }  # fmt: skip
    environment = os.environ | {name: str(cache / folder) for name, folder in folders.items()} | told
    environment.pop("PYTEST_ADDOPTS", None)
    return environment


def driver_of(environment: dict[str, str]) -> dict[str, Any]:
    """What the driver answers, asked in a child: whatever happens there is a reason."""
    absent: dict[str, Any] = {"available": False, "driver_version": None, "devices": []}
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROBE], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return answer
    except subprocess.TimeoutExpired:
        return absent | {"reason": "the driver gave no answer within 60 s"}
    except (IndexError, ValueError, OSError) as error:
        return absent | {"reason": f"the driver cannot be asked: {type(error).__name__}: {error}"}


def prepare(places: plan.Places) -> None:
    """Bundles to build into, copied once; a second run over the same folder takes the engines that are there."""
    for folder in (places.engines / "extra", *(places.results / name for name in ("logs", "documents", "journals"))):
        folder.mkdir(parents=True, exist_ok=True)
    for name, source in {"tiny": plan.TINY, **{model: places.inputs / model for model in places.models}}.items():
        if not (places.engines / name / "manifest.json").is_file():
            try:
                shutil.copytree(source, places.engines / name, dirs_exist_ok=True)
            except (OSError, shutil.Error) as error:
                say(f"{name} cannot be copied, and its parts will fail: {error}")


def collected() -> list[str]:
    """The tests that carry the marker, as pytest collects them."""
    words = ("-m", "pytest", "tests/gpu", "-m", "gpu", "--confcutdir", "tests/gpu", "-p", "no:cacheprovider")
    done = subprocess.run([sys.executable, *words, "--collect-only", "-q"], cwd=ROOT, capture_output=True, text=True)
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


def options_of(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="All that needs a GPU.")
    parser.add_argument("--out", type=Path, help="where the results go (default: bundles/gpu-results)")
    parser.add_argument("--deadline", type=float, default=780.0, metavar="SECONDS", help="all is over by then")
    parser.add_argument("--inputs", type=Path, default=ROOT / "bundles" / "gpu-inputs", help="of gpu_inputs.py")
    parser.add_argument("--steps", default=",".join(plan.STEPS), help="of " + ", ".join(plan.STEPS))
    parser.add_argument("--skip", default="", metavar="STEPS", help="left out of them")
    parser.add_argument("--work", type=Path, help="a folder to work in; engines that are there are used again")
    parser.add_argument("--rehearse", action="store_true", help="on stand-ins for libcuda and TensorRT, without a GPU")
    parser.add_argument("--list", action="store_true", help="the tests by name, and nothing else")
    parser.add_argument("--plan", action="store_true", help="the steps and their limits, and nothing else")
    return parser.parse_args(words)


def _stop(number: int, frame: Any) -> None:
    raise Stopped


def main() -> int:
    """1 where there is no GPU, something fails, or time was too short for something."""
    began = time.monotonic()
    options = options_of()
    options.began = began
    if options.list:
        print(markdown(collected()), end="")
        return 0
    wanted = [step for step in plan.steps_from_text(options.steps) if step not in plan.steps_from_text(options.skip)]
    asked, out = options.out is not None, options.out or ROOT / "bundles" / "gpu-results"
    options.out, options.inputs = out.resolve(), options.inputs.resolve()
    require_writable(options.out)
    work = options.work.resolve() if options.work else Path(tempfile.mkdtemp(prefix="gpu-check-"))
    work.mkdir(parents=True, exist_ok=True)
    environment, builds = environment_of(options, work), True
    if options.rehearse:
        from gpu_rehearsal import stand_ins

        environment, builds = stand_ins(work, environment)
        options.began = time.monotonic()  # to make stand-ins may take minutes, once
    driver = driver_of(environment)
    places = plan.Places(Path(environment["TOOLKIT_GPU_INPUTS"]), work / "engines", work / "results")
    if options.plan:
        print(plan.plan_text(plan.parts_of(places)))
        return 0
    if not driver["available"]:
        say(f"There is no GPU to check anything on: {driver['reason']}.")
        if not asked:
            return 1
        wanted = ["machine"]  # whoever named a folder learns why
    prepare(places)
    check = Check(options, work, environment, driver)
    say(f"{check.summary['machine']}; {check.left_s:.0f} s left; work in {work}")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _stop)
    clocks = start_clocks(places, environment)
    try:
        parts = plan.parts_of(places, quick=options.rehearse, builds=builds)
        check.run([part for part in parts if part.step in wanted or part.name == "versions"])
    except Stopped:
        say("told to stop: what is known is written down")
    finally:
        if clocks is not None:
            end_group(clocks)
    return check.finish()


def require_writable(out: Path) -> None:
    """Ends the program where results could not be written: they are all that a check is for."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        sys.exit(f"--out {out} cannot be written to: {error.strerror}; name a folder")


def start_clocks(places: plan.Places, environment: dict[str, str]) -> subprocess.Popen[bytes] | None:
    """Clocks, power and temperature all the while, where NVML tells."""
    command = plan.clocks_command()
    try:
        with (places.results / "clocks.jsonl").open("wb") as stream:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True, env=environment
            )
    except OSError:
        return None


if __name__ == "__main__":
    sys.exit(main())
