"""What a check on a GPU does, in the order of what is learned in a second: named steps of parts, each with its limit.

A part is one command, or one file of tests, in a process group of its own. Steps are independent of each other, but for
`build`, whose engines the steps behind it use; seam, eager and compile need no TensorRT.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODELS = {"resnet32x32": "resnet32x32-cifar10", "resnet20": "resnet20-cifar10"}
TINY = ROOT / "tests" / "bundle" / "format-1"
BATCH, BENCHED = "1:8:256", "1,8,64,256"
STEPS = {
    "machine": "driver, libraries, versions, doctor",
    "seam": "the CUDA seam alone, without TensorRT",
    "tiny": "a tiny net: build, layers, answers, calls",
    "faults": "errors, each in a child process",
    "build": "engines of the real nets, their layers, a second build with the timing cache",
    "answers": "logits and top-1 of every image against ONNX Runtime, calls of a real net",
    "memory": "100,000 calls",
    "bench": "latency of the engines at batch 1, 8, 64 and 256",
    "eager": "latency of PyTorch eager, without TensorRT",
    "commands": "verify, bench, selftest as a person types them",
    "sanitizer": "compute-sanitizer's memcheck on 20 calls",
    "compile": "latency of torch.compile, without TensorRT",
}
TESTS = ("-m", "pytest", "-m", "gpu", "--confcutdir", "tests/gpu", "-p", "no:cacheprovider", "-p", "tests.gpu.journal",
         "-o", "filterwarnings=default", "-q", "--tb=short", "--no-header")  # fmt: skip


@dataclass(frozen=True)
class Part:
    """One command of a step, or one file of tests.

    Attributes:
        words: behind this Python; of a file of tests, behind pytest's own words.
        limit_s: it is ended then. least_s: with less time left it is not started.
        impossible: why it cannot run on this machine; empty where it can.
        document: its standard output is kept as `documents/<name>.json`.
        program: what runs instead of this Python.
    """

    step: str
    name: str
    words: tuple[str, ...]
    limit_s: float
    least_s: float = 5.0
    tests: bool = False
    impossible: str = ""
    document: bool = False
    program: str = ""
    variables: dict[str, str] = field(default_factory=dict)

    def command(self) -> list[str]:
        """What is started."""
        if self.program:
            return [self.program, *self.words]
        return [sys.executable, *(TESTS if self.tests else ()), *self.words]


@dataclass(frozen=True)
class Places:
    """Where things lie: the inputs brought along, what engines are built into, what comes back."""

    inputs: Path
    engines: Path
    results: Path

    @property
    def models(self) -> tuple[str, ...]:
        """The real nets that there are bundles of."""
        return tuple(name for name in MODELS if (self.inputs / name / "manifest.json").is_file())


def parts_of(places: Places, quick: bool = False, builds: bool = True) -> list[Part]:
    """Every part in order.

    Args:
        quick: for a rehearsal: few calls, small batches, PyTorch on the CPU.
        builds: engines are built here; a stand-in that cannot build them has put them there.
    """
    no_inputs = "" if places.models else f"there are no bundles in {places.inputs}: benchmarks/gpu_inputs.py makes them"
    no_builds = "" if builds else "the stand-in for TensorRT builds no engines; they were put there"
    return [
        *machine(),
        file_of_tests("seam", "seam", "test_seam.py", 45),
        *tiny(places, no_builds),
        file_of_tests("faults", "faults", "test_faults.py", 110),
        *builds_of(places, no_inputs, no_inputs or no_builds),
        *answers(places, no_inputs),
        file_of_tests("memory", "memory", "test_memory.py", 60, TOOLKIT_GPU_MODEL=first_model(places)),
        *latencies(places, no_inputs, quick),
        *commands(places),
        sanitizer(places),
        compiled(quick),
        *never(),
    ]


def first_model(places: Places) -> str:
    """The net whose calls are looked at closely."""
    return places.models[0] if places.models else "tiny"


def file_of_tests(step: str, name: str, file: str, limit_s: float, impossible: str = "", **variables: str) -> Part:
    """One file of tests/gpu."""
    return Part(step, name, (f"tests/gpu/{file}",), limit_s, 8, True, impossible, variables=variables)


def machine() -> Iterator[Part]:
    """Driver, libraries, versions."""
    smi = shutil.which("nvidia-smi")
    absent = "" if smi else "there is no nvidia-smi"
    yield Part("machine", "versions", ("benchmarks/gpu_machine.py",), 40, document=True)
    yield Part("machine", "nvidia-smi", ("-q",), 20, 3, impossible=absent, program=smi or "nvidia-smi")
    yield file_of_tests("machine", "doctor", "test_doctor.py", 60)


def build(folder: Path, precision: str, batch: str, *more: str) -> tuple[str, ...]:
    """The words of `toolkit build`."""
    return ("-m", "toolkit", "build", str(folder), "--precision", precision, "--batch", batch, *more)


def tiny(places: Places, no_builds: str) -> Iterator[Part]:
    """The tiny net: engines in seconds, then every claim about calls."""
    folder, level = places.engines / "tiny", ("--opt-level", "0")
    for precision in ("fp32", "int8"):
        words = build(folder, precision, BATCH, *level)
        yield Part("tiny", f"build-tiny-{precision}", words, 60, 10, impossible=no_builds, document=True)
    yield extra(places, "tiny", "tiny", no_builds, 45, *level)
    yield layers(places, "tiny", "tiny", no_builds)
    yield file_of_tests("tiny", "tiny-answers", "test_engines.py", 45, TOOLKIT_GPU_MODELS="tiny")
    yield file_of_tests("tiny", "tiny-calls", "test_calls.py", 75, TOOLKIT_GPU_MODEL="tiny")


def extra(places: Places, step: str, model: str, impossible: str, limit_s: float, *more: str) -> Part:
    """INT8 from model.int8.onnx, the file that this TensorRT would not take by itself: does it answer as the other?"""
    onnx, plan = places.engines / model / "model.int8.onnx", places.engines / "extra" / f"{model}.int8.engine"
    words = ("benchmarks/gpu_engine.py", "build", str(onnx), str(plan), "--batch", BATCH, *more)
    return Part(step, f"build-{model}-int8-alone", words, limit_s, 10, impossible=impossible, document=True)


def layers(places: Places, step: str, model: str, impossible: str) -> Part:
    """The layers of a model's engines as TensorRT writes them."""
    words = ("benchmarks/gpu_engine.py", "layers", str(places.engines), model, str(places.results / "layers"))
    return Part(step, f"layers-{model}", words, 40, 5, impossible=impossible, document=True)


def builds_of(places: Places, no_inputs: str, impossible: str) -> Iterator[Part]:
    """Engines of the real nets, a process each; int8 first, with its layers and its answers, before the others."""
    models = places.models or tuple(MODELS)
    for model in models:
        yield one_build(places, model, "int8", impossible)
    for model in models:
        yield Part(**vars(layers(places, "build", model, impossible)) | {"name": f"layers-{model}-int8"})
    told = {"TOOLKIT_GPU_MODELS": ",".join(models), "TOOLKIT_GPU_SOURCES": "int8-fp16"}
    yield file_of_tests("build", "answers-int8", "test_engines.py", 45, no_inputs, **told)
    for precision in ("fp16", "fp32"):
        for model in models:
            yield one_build(places, model, precision, impossible)
    for model in models:
        yield extra(places, "build", model, impossible, 75)
    model = first_model(places)
    onnx, plan = places.engines / model / "model.int8-fp16.onnx", places.engines / "extra" / f"{model}.again.engine"
    words = ("benchmarks/gpu_engine.py", "build", str(onnx), str(plan), "--batch", BATCH)
    yield Part("build", f"build-{model}-int8-again", words, 60, 10, impossible=impossible, document=True)
    for model in models:
        yield layers(places, "build", model, impossible)


def one_build(places: Places, model: str, precision: str, impossible: str) -> Part:
    """`toolkit build` of one precision."""
    words = build(places.engines / model, precision, BATCH)
    return Part("build", f"build-{model}-{precision}", words, 75, 15, impossible=impossible, document=True)


def answers(places: Places, impossible: str) -> Iterator[Part]:
    """Every image through every engine; then the claims about calls once more on a real net."""
    told = {"TOOLKIT_GPU_MODELS": ",".join(places.models or MODELS), "TOOLKIT_GPU_SOURCES": "fp32,fp16,int8"}
    yield file_of_tests("answers", "answers", "test_engines.py", 75, impossible, **told)
    model = first_model(places)
    yield file_of_tests("answers", f"calls-{model}", "test_calls.py", 60, impossible, TOOLKIT_GPU_MODEL=model)
    yield file_of_tests("answers", f"timings-{model}", "test_timings.py", 45, impossible, TOOLKIT_GPU_MODEL=model)


def latencies(places: Places, impossible: str, quick: bool) -> Iterator[Part]:
    """TensorRT's rows, a process a net; PyTorch eager in a process of its own."""
    for model in places.models or MODELS:
        words = backend_words("trt", (str(places.engines / model),), quick)
        yield Part("bench", f"bench-{model}", words, 75, 15, impossible=impossible, document=True)
    model = first_model(places)
    for wait in ("spin", "block"):
        words = (*backend_words("trt", (str(places.engines / model),), quick, "1"), "--wait", wait)
        yield Part("bench", f"bench-{model}-{wait}", words, 30, 8, impossible=impossible, document=True)
    yield Part("eager", "eager", torch_words("torch", quick), 75, 15, document=True)


def backend_words(backend: str, subjects: tuple[str, ...], quick: bool, batch: str = BENCHED) -> tuple[str, ...]:
    """The words of `gpu_backend.py`."""
    how = ("--batch", "1", "--seconds", "0.05") if quick else ("--batch", batch, "--seconds", "0.2")
    return ("benchmarks/gpu_backend.py", backend, *subjects, *how)


def torch_words(backend: str, quick: bool) -> tuple[str, ...]:
    """PyTorch needs the weights only, which are in the repository."""
    subjects = tuple(f"{role}={model}" for role, model in MODELS.items())
    return backend_words(backend, subjects, quick) + (("--device", "cpu") if quick else ())


def commands(places: Places) -> Iterator[Part]:
    """As a person types them."""
    yield file_of_tests("commands", "commands", "test_commands.py", 100)


def sanitizer(places: Places) -> Part:
    """20 calls of the tiny net's engine."""
    program = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    words = ("--tool", "memcheck", "--error-exitcode", "9", "--print-limit", "20",
             "--report-api-errors", "no", sys.executable,
             "benchmarks/gpu_engine.py", "calls", str(places.engines), "tiny", "20")  # fmt: skip
    absent = "" if program else "there is no compute-sanitizer"
    return Part("sanitizer", "memcheck", words, 60, 15, impossible=absent, program=program or "compute-sanitizer")


def compiled(quick: bool) -> Part:
    """torch.compile with CUDA graphs: minutes of compiling, so it comes last."""
    left_out = "minutes of compiling, left out of a rehearsal" if quick else ""
    return Part("compile", "compile", torch_words("compile", quick), 150, 30, impossible=left_out, document=True)


def never() -> Iterator[Part]:
    """Tests that need what a slot does not have."""
    if not _installed("onnxruntime-gpu"):
        why = "onnxruntime-gpu is not installed: its providers are not checked"
        yield Part("answers", "onnxruntime-gpu", ("tests/gpu/test_ort_on_gpu.py",), 0, tests=True, impossible=why)
    else:
        yield file_of_tests("answers", "onnxruntime-gpu", "test_ort_on_gpu.py", 120)
    if importlib.util.find_spec("pycuda") is None:
        why = "pycuda is not installed: it is not held against cuda-python"
        yield Part("answers", "pycuda", ("tests/gpu/test_pycuda.py",), 0, tests=True, impossible=why)
    else:
        yield file_of_tests("answers", "pycuda", "test_pycuda.py", 60, TOOLKIT_GPU_MODEL="tiny")
    if importlib.util.find_spec("tensorrt_rtx") is None and importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        yield Part("build", "tensorrt-rtx", (), 0, impossible="TensorRT-RTX is not installed, and runs on no SM 9.0")


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def plan_text(parts: list[Part]) -> str:
    """The steps with the seconds that their limits add up to, for people."""
    lines = []
    for step, what in STEPS.items():
        limits = [part.limit_s for part in parts if part.step == step and not part.impossible]
        lines.append(f"{step:10} at most {sum(limits):4.0f} s in {len(limits):2} parts: {what}")
    return "\n".join(lines)


def steps_from_text(text: str) -> tuple[str, ...]:
    """Names with commas; an unknown one ends the program with what is allowed."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if unknown := [name for name in names if name not in STEPS]:
        sys.exit(f"there is no step {', '.join(unknown)}; allowed: {', '.join(STEPS)}")
    return names


def clocks_command() -> list[str]:
    """What writes clocks, power and temperature down every two seconds."""
    return [sys.executable, str(ROOT / "benchmarks" / "gpu_machine.py"), "--watch", "2"]


def facts_of_engines(engines: Path) -> list[dict[str, object]]:
    """What the sidecars say of every engine there is."""
    found: list[dict[str, object]] = []
    for file in sorted(engines.rglob("*.engine.json")):
        try:
            found.append({"engine": str(file.relative_to(engines)), **json.loads(file.read_text())})
        except (OSError, ValueError) as error:
            found.append({"engine": str(file.relative_to(engines)), "unreadable": str(error)})
    return found
