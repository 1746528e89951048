"""What `benchmarks/gpu.py` measures of one backend, in a process and a Python of its own: rows as JSON on stdout.

    python benchmarks/gpu_backend.py trt BUNDLE ... [--device cuda] [--batch 1,8,64,256] [--seconds 1]
    python benchmarks/gpu_backend.py torch resnet20=resnet20-cifar10     a model's weights: PyTorch needs no bundle

A row has whole Python calls (`toolkit.timing.latency`: uint8 in host memory to float32 in host memory) and, where the
backend can say it, the GPU's own time between events of its stream and the host's time to enqueue it. Each row is
printed as a line {"row": ...} when it is known; the last line has all of them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from toolkit.bundle.reading import Bundle, bundle_from_folder
from toolkit.errors import BackendUnavailable, ToolkitError
from toolkit.timing.latency import Load, bench

FEWEST_CALLS = 50
THREADS, THREADED = 8, (1, 8)  # callers at once, and the batches at which they are measured


@dataclass(frozen=True)
class Candidate:
    """Something to measure.

    Attributes:
        times: answers images once and gives milliseconds by name: "gpu", and "enqueue" where the host's is known; None
            where nobody can say.
        threaded: also measured with `THREADS` callers at once.
    """

    precision: str
    variant: str
    runner: Any
    times: Callable[[Any], dict[str, float]] | None = None
    threaded: bool = False


def phases_of(runner: Any) -> Callable[[Any], dict[str, float]]:
    """The parts of a call of a TensorRT runner; "pure" is 1 where the GPU's time is without the launch."""

    def times(images: Any) -> dict[str, float]:
        found = vars(runner.phases(images))
        pure = float("enqueue_ms" in found)
        return {name.removesuffix("_ms"): value for name, value in found.items() if value is not None} | {"pure": pure}

    return times


def engines(bundle: Bundle, wait: str) -> Iterator[Candidate]:
    """Every engine of a bundle, replayed from a graph and enqueued; how a call waits is said where it was asked for."""
    from toolkit.runtime.trt.runner import TrtRunner

    if not bundle.engines():
        raise BackendUnavailable(f"{bundle.folder} has no engines", fix=f"toolkit build {bundle.folder}")
    for entry in bundle.engines():
        runner = TrtRunner(bundle.folder / entry["file"], **({"wait": wait} if wait else {}))
        if wait:
            yield Candidate(entry["precision"], f"graph, {wait}", runner)
            continue
        if not runner.graph.startswith("off"):
            yield Candidate(entry["precision"], "graph", runner, phases_of(runner), True)
        plain = runner.without_graph()
        yield Candidate(entry["precision"], "no graph", plain, phases_of(plain))


def pytorch(name: str, device: str, compiled: bool = False) -> Iterator[Candidate]:
    """The model in float32, eager or compiled with CUDA graphs (mode "reduce-overhead")."""
    import torch

    from toolkit.models.checkpoint import folder_of_model, load_model
    from toolkit.runtime.pytorch import TorchRunner

    if device == "cuda" and not torch.cuda.is_available():
        raise BackendUnavailable("this torch has no GPU", found=f"torch {torch.__version__}")
    model = load_model(folder_of_model(name)).classifier
    runner = TorchRunner(model, device=device, label=name)
    if compiled:
        torch._dynamo.config.recompile_limit = 64  # every batch of every net is compiled anew, from the same code
        runner.classifier = torch.compile(runner.classifier, mode="reduce-overhead", dynamic=False)

    def times(images: Any) -> dict[str, float]:
        there = torch.tensor(images, device="cuda")
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        with torch.inference_mode():
            before.record()
            began = time.perf_counter()
            runner.classifier(there)
            enqueued = 1000 * (time.perf_counter() - began)
            after.record()
        torch.cuda.synchronize()
        return {"gpu": float(before.elapsed_time(after)), "enqueue": enqueued}

    yield Candidate("fp32", "compile" if compiled else "eager", runner, times if device == "cuda" else None)


def onnxruntime(bundle: Bundle, device: str, backend: str) -> Iterator[Candidate]:
    """The bundle's files with one provider; it does not say the GPU's own time."""
    from toolkit.deployment.openers import OPENERS

    for precision in ("fp32", "fp16", "int8"):
        if precision in bundle.precisions:
            yield Candidate(precision, "session", OPENERS[backend](bundle, precision))


@dataclass(frozen=True)
class Subject:
    """What is measured: a bundle, or a model's weights alone, with images to answer."""

    name: str
    model: str
    images: Any
    bundle: Bundle | None = None


def subject_from_word(word: str) -> Subject:
    """A bundle's folder, or "name=model", which gets images of noise.

    Raises:
        ToolkitError: there is no such bundle or model.
    """
    name, _, model = word.partition("=")
    if model:
        from toolkit.models.checkpoint import folder_of_model, load_model

        shape = load_model(folder_of_model(model)).card.preprocessing.shape
        return Subject(name, model, np.random.default_rng(0).integers(0, 256, (64, *shape), np.uint8))
    bundle = bundle_from_folder(Path(word))
    model = bundle.manifest["model"].get("folder_hint") or bundle.model
    return Subject(bundle.folder.name, model, bundle.golden()[0].images_nhwc, bundle)


def candidates(backend: str, subject: Subject, device: str, wait: str) -> list[Candidate]:
    """What one backend has to measure."""
    if backend in ("torch", "compile"):
        return list(pytorch(subject.model, device, backend == "compile"))
    if subject.bundle is None:
        raise BackendUnavailable(f"{backend} needs a bundle", found=f"{subject.name}={subject.model}")
    if backend == "trt":
        return list(engines(subject.bundle, wait))
    return list(onnxruntime(subject.bundle, device, backend))


def measured(
    backend: str, subject: Subject, device: str, batches: tuple[int, ...], seconds: float, wait: str = ""
) -> Iterator[dict[str, Any]]:
    """A row for each candidate, batch and number of callers; the candidates take turns."""
    found = {f"{one.precision} {one.variant}": one for one in candidates(backend, subject, device, wait)}
    for batch in batches:
        pixels = np.ascontiguousarray(np.resize(subject.images, (batch, *subject.images.shape[1:])))
        runners = {name: one.runner for name, one in found.items()}
        for latency in bench(runners, pixels, (batch,), seconds=seconds):
            one = found[latency.runner]
            yield row_of(backend, subject, one, latency) | gpu_times(one, pixels, seconds)
        threaded = {name: one.runner for name, one in found.items() if one.threaded and batch in THREADED}
        for runner in threaded.values():
            runner.allow_streams(THREADS)
        for latency in bench(threaded, pixels, (batch,), seconds=seconds / 2, load=Load(THREADS)) if threaded else ():
            yield row_of(backend, subject, found[latency.runner], latency) | gpu_times(None, pixels, 0)
    for one in found.values():
        one.runner.close()


def row_of(backend: str, subject: Subject, one: Candidate, latency: Any) -> dict[str, Any]:
    """What whole calls took."""
    return {
        "model": subject.name,
        "backend": backend,
        "precision": one.precision,
        "variant": variant_now(one),
        "batch": latency.batch,
        "threads": latency.threads,
        "calls": latency.calls,
        "call_p50_ms": latency.p50_ms,
        "call_p99_ms": latency.p99_ms,
        "images_per_s": latency.images_per_s,
        "stable": latency.stable,
        "description": one.runner.description,
    }


def variant_now(one: Candidate) -> str:
    """A runner whose capture failed goes on without graphs, and is not measured as one that has them."""
    return "no graph" if one.variant == "graph" and one.runner.graph.startswith("off") else one.variant


def gpu_times(one: Candidate | None, pixels: Any, seconds: float) -> dict[str, Any]:
    """p50 and p99 of the GPU's own time, median of the host's to enqueue it; for half the measuring time.

    `gpu_is` says what the GPU's time is: "pure", or "with launch" where events lie around a launch into an idle stream.
    """
    absent = {"gpu_p50_ms": None, "gpu_p99_ms": None, "enqueue_p50_ms": None, "gpu_is": None, "phases_p50_ms": None}
    if one is None or one.times is None:
        return absent
    found: list[dict[str, float]] = []
    end = time.monotonic() + seconds / 2
    try:
        one.times(pixels)  # of torch.compile the first holds a compilation
        while len(found) < FEWEST_CALLS or time.monotonic() < end:
            found.append(one.times(pixels))
    except ToolkitError as error:  # a call's time is known all the same
        if not found:
            return absent | {"gpu_is": f"not measured: {error.in_one_line()}"}
    values = {name: [entry[name] for entry in found] for name in found[0]}
    pure = values.pop("pure", [0.0])[0] > 0
    medians = {name: quantile(numbers, 0.5) for name, numbers in values.items()}
    return {
        "gpu_p50_ms": medians["gpu"],
        "gpu_p99_ms": quantile(values["gpu"], 0.99),
        "enqueue_p50_ms": medians.get("enqueue"),
        "gpu_is": "pure" if pure else "with launch",
        "phases_p50_ms": medians,
    }


def quantile(values: list[float], part: float) -> float:
    """A latency that really occurred."""
    return float(np.quantile(values, part, method="inverted_cdf"))


def main() -> None:
    """Measures one backend on every bundle; what cannot run is named with its reason."""
    parser = argparse.ArgumentParser(description="One backend of benchmarks/gpu.py.")
    parser.add_argument("backend")
    parser.add_argument("subjects", nargs="+", help="folders of bundles, or name=model")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--batch", default="1,8,64,256")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--wait", choices=("spin", "block"), default="", help="how TensorRT's calls wait")
    options = parser.parse_args()
    batches = tuple(int(part) for part in options.batch.split(","))
    rows: list[dict[str, Any]] = []
    unavailable = {}
    for word in options.subjects:
        try:
            subject, how = subject_from_word(word), (options.device, batches, options.seconds, options.wait)
            for row in measured(options.backend, subject, *how):
                print(json.dumps({"row": row}), flush=True)
                rows.append(row)
        except (ToolkitError, ImportError, RuntimeError) as error:
            parts = (error.what, error.found, error.fix) if isinstance(error, ToolkitError) else (repr(error),)
            name = Path(word.partition("=")[0]).name
            unavailable[f"{options.backend} {name}"] = " ".join("; ".join(filter(None, parts)).split())[:400]
    print("\n" + json.dumps({"rows": rows, "unavailable": unavailable, "python": sys.version.split()[0]}))
    sys.exit(0 if rows else 1)


if __name__ == "__main__":
    main()
