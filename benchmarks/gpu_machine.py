"""What a machine is: system, processor, packages, driver, GPU, tools; JSON on stdout. Imports nothing foreign.

python benchmarks/gpu_machine.py [--watch SECONDS]      clocks, power and temperature again and again
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from toolkit.conditions.nvml import gpu_here
from toolkit.runtime.driver import probe_driver

PACKAGES = (
    "numpy", "torch", "triton", "onnx", "onnxruntime", "onnxruntime-gpu", "pytest", "typer", "rich", "cuda-bindings",
    "cuda-python", "cuda-core", "cupy-cuda13x", "cupy-cuda12x", "pycuda", "nvidia-ml-py", "tensorrt", "tensorrt-cu12",
    "tensorrt-cu13", "tensorrt_cu12_bindings", "tensorrt-rtx-cu13-bindings", "safetensors", "hypothesis",
)  # fmt: skip
VARIABLES = ("CUDA", "LD_", "PYTHON", "NVIDIA", "TOOLKIT")
TOOLS = ("nvidia-smi", "nvcc", "compute-sanitizer", "cuda-gdb", "gcc", "g++", "trtexec")
MODULES = ("tensorrt", "tensorrt_bindings", "tensorrt_rtx", "cuda.bindings", "cupy", "torch", "onnxruntime", "pycuda")


def version_of(package: str) -> str | None:
    """Of an installed package; None where there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def place_of(module: str) -> str | None:
    """Where a module would come from, without importing it."""
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return None if found is None else str(found.origin or list(found.submodule_search_locations or ()))


def lines_of(path: str, start: str) -> list[str]:
    """Lines of a file that begin with a word."""
    try:
        return [line for line in Path(path).read_text(errors="replace").splitlines() if line.startswith(start)]
    except OSError:
        return []


def libraries() -> list[str]:
    """The dynamic linker's cache, as far as CUDA and TensorRT are concerned, and what lies in LD_LIBRARY_PATH."""
    found = []
    try:
        done = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, timeout=10)
        words = ("libcuda.", "libnvinfer", "libnvonnx", "libcudart", "libnvidia-ml")
        found = [line.strip() for line in done.stdout.splitlines() if any(word in line for word in words)]
    except (OSError, subprocess.TimeoutExpired) as error:
        found = [f"ldconfig: {error}"]
    for folder in filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(":")):
        found += [str(path) for pattern in ("libnv*", "libcuda*") for path in sorted(Path(folder).glob(pattern))]
    return found


def nvml() -> Any:
    """Clocks, temperature and memory now; else why not."""
    gpu, reason = gpu_here()
    if gpu is None:
        return reason
    with gpu:
        return gpu.state()


def watch(seconds: float) -> None:
    """Clocks, power, temperature and what slows the GPU down, a line of JSON each time, until somebody ends it."""
    gpu, reason = gpu_here()
    while gpu is not None:
        print(json.dumps({"at": round(time.time(), 2), **gpu.state()}), flush=True)
        time.sleep(seconds)
    print(json.dumps({"absent": reason}), flush=True)


def main() -> None:
    """Prints everything as one document."""
    if sys.argv[1:2] == ["--watch"]:
        return watch(float(sys.argv[2]))
    document = {
        "python": sys.version,
        "executable": sys.executable,
        "platform": platform.platform(),
        "processor": (lines_of("/proc/cpuinfo", "model name") or ["unknown"])[0],
        "cores": os.cpu_count(),
        "memory": lines_of("/proc/meminfo", "Mem"),
        "packages": {name: version for name in PACKAGES if (version := version_of(name))},
        "modules": {name: place for name in MODULES if (place := place_of(name))},
        "tools": {name: place for name in TOOLS if (place := shutil.which(name))},
        "libraries": libraries(),
        "driver": dataclasses.asdict(probe_driver()),
        "nvml": nvml(),
        "environment": {
            k: v for k, v in os.environ.items() if k.startswith(("CUDA", "LD_", "PYTHON", "NVIDIA", "TOOLKIT"))
        },
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
