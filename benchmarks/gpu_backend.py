"""What `benchmarks/gpu.py` measures of one backend, in a process and a Python of its own: rows as JSON on stdout.

    python benchmarks/gpu_backend.py trt BUNDLE ... [--device cuda] [--batch 1,8,64,256] [--seconds 1]

A row has whole Python calls (`toolkit.latency`: uint8 in host memory to float32 in host memory) and, where the backend
can say it, the GPU's own time between events of its stream.
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
from toolkit.latency import bench

FEWEST_CALLS = 50


@dataclass(frozen=True)
class Candidate:
    """Something to measure; `gpu_ms` answers images once and says how long the GPU took, None where nobody can."""

    precision: str
    variant: str
    runner: Any
    gpu_ms: Callable[[Any], float] | None = None


def engines(bundle: Bundle, device: str) -> Iterator[Candidate]:
    """Every engine of a bundle, replayed from a graph and enqueued."""
    from toolkit.runtime.trt_runner import TrtRunner

    if not bundle.engines():
        raise BackendUnavailable(f"{bundle.folder} has no engines", fix=f"toolkit build {bundle.folder}")
    for entry in bundle.engines():
        runner = TrtRunner(bundle.folder / entry["file"])
        if not runner.graph.startswith("off"):
            yield Candidate(entry["precision"], "graph", runner, lambda x, r=runner: r.phases(x).gpu_ms)
        plain = runner.without_graph()
        yield Candidate(entry["precision"], "no graph", plain, lambda x, r=plain: r.phases(x).gpu_ms)


def pytorch(bundle: Bundle, device: str, compiled: bool = False) -> Iterator[Candidate]:
    """The model in float32, eager or compiled with CUDA graphs (mode "reduce-overhead")."""
    import torch

    from toolkit.models.checkpoint import folder_of_model, load_model
    from toolkit.runtime.pytorch import TorchRunner

    if device == "cuda" and not torch.cuda.is_available():
        raise BackendUnavailable("this torch has no GPU", found=f"torch {torch.__version__}")
    model = load_model(folder_of_model(bundle.manifest["model"].get("folder_hint") or bundle.model)).classifier
    runner = TorchRunner(model, device=device, label=bundle.model)
    if compiled:
        runner.classifier = torch.compile(runner.classifier, mode="reduce-overhead", dynamic=False)

    def gpu_ms(images: Any) -> float:
        there = torch.tensor(images, device="cuda")
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        with torch.inference_mode():
            before.record()
            runner.classifier(there)
            after.record()
        torch.cuda.synchronize()
        return float(before.elapsed_time(after))

    yield Candidate("fp32", "compile" if compiled else "eager", runner, gpu_ms if device == "cuda" else None)


def onnxruntime(bundle: Bundle, device: str, backend: str) -> Iterator[Candidate]:
    """The bundle's files with one provider; it does not say the GPU's own time."""
    from toolkit.bundle.runners import OPENERS

    for precision in ("fp32", "fp16", "int8"):
        if precision in bundle.precisions:
            yield Candidate(precision, "session", OPENERS[backend](bundle, precision))


def candidates(backend: str, bundle: Bundle, device: str) -> list[Candidate]:
    """What one backend has to measure."""
    if backend == "trt":
        return list(engines(bundle, device))
    if backend in ("torch", "compile"):
        return list(pytorch(bundle, device, backend == "compile"))
    return list(onnxruntime(bundle, device, backend))


def measured(
    backend: str, bundle: Bundle, device: str, batches: tuple[int, ...], seconds: float
) -> Iterator[dict[str, Any]]:
    """A row for each candidate and batch of one bundle; the candidates take turns."""
    found = {f"{one.precision} {one.variant}": one for one in candidates(backend, bundle, device)}
    images, _ = bundle.golden()
    for batch in batches:
        pixels = np.ascontiguousarray(np.resize(images.images_nhwc, (batch, *images.images_nhwc.shape[1:])))
        for latency in bench({name: one.runner for name, one in found.items()}, pixels, (batch,), seconds=seconds):
            one = found[latency.runner]
            yield {
                "model": bundle.folder.name,
                "backend": backend,
                "precision": one.precision,
                "variant": variant_now(one),
                "batch": batch,
                "calls": latency.calls,
                "call_p50_ms": latency.p50_ms,
                "call_p99_ms": latency.p99_ms,
                "images_per_s": latency.images_per_s,
                "stable": latency.stable,
                **gpu_times(one, pixels, seconds),
                "description": one.runner.description,
            }
    for one in found.values():
        one.runner.close()


def variant_now(one: Candidate) -> str:
    """A runner whose capture failed goes on without graphs, and is not measured as one that has them."""
    return "no graph" if one.variant == "graph" and one.runner.graph.startswith("off") else one.variant


def gpu_times(one: Candidate, pixels: Any, seconds: float) -> dict[str, float | None]:
    """p50 and p99 of the GPU's own time; for half the measuring time."""
    if one.gpu_ms is None:
        return {"gpu_p50_ms": None, "gpu_p99_ms": None}
    values, end = [], time.monotonic() + seconds / 2
    while len(values) < FEWEST_CALLS or time.monotonic() < end:
        values.append(one.gpu_ms(pixels))
    p50, p99 = np.quantile(values, (0.5, 0.99), method="inverted_cdf").tolist()  # latencies that really occurred
    return {"gpu_p50_ms": p50, "gpu_p99_ms": p99}


def main() -> None:
    """Measures one backend on every bundle; what cannot run is named with its reason."""
    parser = argparse.ArgumentParser(description="One backend of benchmarks/gpu.py.")
    parser.add_argument("backend")
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--batch", default="1,8,64,256")
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    batches = tuple(int(part) for part in options.batch.split(","))
    rows: list[dict[str, Any]] = []
    unavailable = {}
    for folder in options.bundles:
        try:
            bundle = bundle_from_folder(folder)
            rows += measured(options.backend, bundle, options.device, batches, options.seconds)
        except (ToolkitError, ImportError, RuntimeError) as error:
            parts = (error.what, error.found, error.fix) if isinstance(error, ToolkitError) else (repr(error),)
            unavailable[f"{options.backend} {folder.name}"] = " ".join("; ".join(filter(None, parts)).split())[:400]
    print("\n" + json.dumps({"rows": rows, "unavailable": unavailable, "python": sys.version.split()[0]}))


if __name__ == "__main__":
    main()
