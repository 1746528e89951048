"""Stand-ins for a rehearsal: a libcuda.so.1 on host memory, a `tensorrt` on it that computes with ONNX Runtime, inputs.

`stand_ins` is the one function that says what takes the place of a GPU and of TensorRT. What the stand-ins cannot do, a
rehearsal names: they build no engines, so these are put where a build would have left them.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from toolkit.bundle.reading import FOR_TENSORRT, NEVER_OPTIMISED, ONNX_FILES  # noqa: E402

VERSION, GPU, CAPABILITY = "10.3.0", "Stand-in 0", "SM87"
TINY = ROOT / "tests" / "bundle" / "format-1"
MODELS = ("resnet32x32", "resnet20")  # in a rehearsal both are the tiny net
IMAGES = 600
SHIM = '''"""`import tensorrt` in a rehearsal."""
import sys
from tests.runtime import standin_tensorrt
sys.modules[__name__].__dict__.update(vars(standin_tensorrt.module({version!r})))
'''


def stand_ins(work: Path, environment: dict[str, str]) -> tuple[dict[str, str], bool]:
    """What children get so that they find the stand-ins, and whether engines can be built with them.

    Ends the program where there is no compiler to make them with.
    """
    folder = work / "standins"
    library(folder / "lib")
    site = folder / "site"
    (site / "tensorrt").mkdir(parents=True, exist_ok=True)
    (site / "tensorrt" / "__init__.py").write_text(SHIM.format(version=VERSION))
    inputs(folder / "inputs")
    for name in ("tiny", *MODELS):
        engines(work / "engines", name)
    paths = os.pathsep.join(filter(None, [str(folder / "lib"), environment.get("LD_LIBRARY_PATH")]))
    told = {
        "LD_LIBRARY_PATH": paths, "PYTHONPATH": os.pathsep.join([environment["PYTHONPATH"], str(site)]),
        "TOOLKIT_STANDIN": str(folder), "TOOLKIT_GPU_INPUTS": str(folder / "inputs"), "TOOLKIT_GPU_QUICK": "1",
    }  # fmt: skip
    return environment | told, False


def library(folder: Path) -> None:
    """libcuda.so.1 on host memory."""
    folder.mkdir(parents=True, exist_ok=True)
    source = ROOT / "tests" / "runtime" / "cuda" / "stub" / "libcuda.c"
    words = ["-shared", "-fPIC", "-O2", "-w", "-Wl,-soname,libcuda.so.1", "-o", str(folder / "libcuda.so.1")]
    compiler = shutil.which("gcc")
    if compiler is None:
        sys.exit("a rehearsal needs gcc, to make a libcuda of")
    subprocess.run([compiler, *words, str(source), "-lpthread", "-ldl"], check=True)


def bundle(folder: Path) -> None:
    """The tiny bundle with an fp16 file, which is a copy of fp32."""
    shutil.copytree(TINY, folder)
    shutil.copy(folder / ONNX_FILES["fp32"], folder / ONNX_FILES["fp16"])
    renew(folder, {})


def renew(folder: Path, engines: dict[str, dict[str, Any]]) -> None:
    """Writes engines and every file's hash into the manifest."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["engines"] = [{"file": name, **entry} for name, entry in engines.items()]
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "manifest.json":
            data = path.read_bytes()
            entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            manifest["files"][path.relative_to(folder).as_posix()] = entry
    (folder / "manifest.json").write_text(json.dumps(manifest))


def inputs(folder: Path) -> None:
    """What `gpu_inputs.py` writes: two bundles, images of noise, and ONNX Runtime's logits of every file."""
    if (folder / "inputs.json").is_file():
        return
    from toolkit.runtime.ort import OrtRunner

    for model in MODELS:
        bundle(folder / model)
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, 16, 16, 3), np.uint8)
    arrays: dict[str, Any] = {}
    for source in FOR_TENSORRT:
        file, optimize = folder / MODELS[0] / ONNX_FILES[source], source not in NEVER_OPTIMISED
        with OrtRunner(file, threads=1, optimize=optimize) as runner:
            logits = np.concatenate([runner.logits(images[i : i + 100]) for i in range(0, IMAGES, 100)])
        arrays |= {f"{model} {source}": logits for model in MODELS}
    labels = arrays[f"{MODELS[0]} fp32"].argmax(axis=1)
    np.savez(folder / "inputs.npz", images=images, labels=labels, **arrays)
    facts = {"models": dict.fromkeys(MODELS, "tiny"), "source": "noise", "images": IMAGES, "missing": ""}
    (folder / "inputs.json").write_text(json.dumps(facts))


def engines(folder: Path, name: str) -> None:
    """A bundle with an engine of every file, as `toolkit build` would leave it with the stand-in."""
    if (folder / name).exists():
        return
    bundle(folder / name)
    (folder / name / "engines").mkdir()
    (folder / "extra").mkdir(exist_ok=True)
    entries = {}
    for source in FOR_TENSORRT:
        head = {"smallest": 1, "largest": 256, "scratch": 4096, "works": True}
        plan = json.dumps(head).encode() + b"\n" + (folder / name / ONNX_FILES[source]).read_bytes()
        beside = source == "int8"
        where = f"extra/{name}.int8.engine" if beside else f"{name}/engines/{Path(ONNX_FILES[source]).stem}.engine"
        (folder / where).write_bytes(plan)
        facts = sidecar(plan, ONNX_FILES[source])
        (folder / f"{where}.json").write_text(json.dumps(facts))
        if not beside:
            entries[where.partition("/")[2]] = {"precision": source, "tensorrt": facts["tensorrt"]}
    renew(folder / name, entries)


def sidecar(plan: bytes, onnx: str) -> dict[str, Any]:
    """What `toolkit build` would have written; the layers are unknown."""
    return {
        "format": 1, "tensorrt": {"kind": "tensorrt", "version": VERSION},
        "builder": {"device": GPU, "compute_capability": CAPABILITY, "machine": platform.machine()},
        "compute_capabilities": [], "onnx": {"file": onnx, "sha256": "0" * 64},
        "plan": {"sha256": hashlib.sha256(plan).hexdigest(), "bytes": len(plan)}, "flags": [], "profile": {},
        "build_seconds": None, "census": None, "stand_in": True,
    }  # fmt: skip
