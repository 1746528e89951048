"""Stand-ins for a rehearsal: a libcuda.so.1 on host memory, a TensorRT on it that computes with ONNX Runtime, inputs.

`stand_ins` is the one function that says what takes the place of a GPU and of TensorRT. What the stand-ins cannot do, a
rehearsal names: the one in Python builds no engines, so these are put where a build would have left them.
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

from toolkit.bundle.manifest import FOR_TENSORRT, VARIANTS  # noqa: E402

VERSION, GPU, CAPABILITY = "10.3.0", "Stand-in 0", "SM87"
TINY = ROOT / "tests" / "bundle" / "format-1"
MODELS = ("resnet32x32", "resnet20")  # in a rehearsal both are the tiny net
IMAGES = 600
PATHS = ("PYTHONPATH", "LD_LIBRARY_PATH")
SHIM = '''"""`import tensorrt` in a rehearsal."""
import sys
from tests.runtime import standin_tensorrt
sys.modules[__name__].__dict__.update(vars(standin_tensorrt.module({version!r})))
'''


def stand_ins(work: Path, environment: dict[str, str]) -> tuple[dict[str, str], bool]:
    """What children get so that they find the stand-ins, and whether engines can be built with them.

    NVIDIA's own bindings over a libnvinfer of ours, where that can be made; else a `tensorrt` in Python, which builds
    nothing. $TOOLKIT_GPU_STANDIN says which one is wanted: "python", or a version such as "11.4".

    Ends the program where there is no compiler to make them with.
    """
    folder, wanted = work / "standins", os.environ.get("TOOLKIT_GPU_STANDIN", "11.4")
    inputs(folder / "inputs")
    told = {"TOOLKIT_GPU_INPUTS": str(folder / "inputs"), "TOOLKIT_GPU_QUICK": "1"}
    found = None if wanted == "python" else libnvinfer(wanted)
    if found is not None:
        paths = {name: os.pathsep.join([environment.get(name, ""), found[name]]).strip(os.pathsep) for name in PATHS}
        settings = {name: value for name, value in found.items() if name.startswith(("STUB_", "STANDIN_"))}
        return environment | told | settings | paths | {"TOOLKIT_GPU_STANDIN": "library"}, True
    for name in ("tiny", *MODELS):
        engines(work / "engines", name)
    return environment | told | in_python(folder, environment) | {"TOOLKIT_GPU_STANDIN": "python"}, False


def libnvinfer(version: str) -> dict[str, str] | None:
    """The variables of a child process that has it; None, and why said, where it cannot be made."""
    try:
        from tests.runtime.libnvinfer.standin import Missing, environment
    except ImportError as error:
        print(f"no libnvinfer of our own: {error}", file=sys.stderr)
        return None
    headers = os.environ.get("TOOLKIT_GPU_HEADERS")
    try:
        return environment(version, Path(headers) if headers else None)
    except Missing as missing:
        print(f"no libnvinfer of our own: {missing}", file=sys.stderr)
        return None


def in_python(folder: Path, environment: dict[str, str]) -> dict[str, str]:
    """A libcuda.so.1 on host memory, and a `tensorrt` in Python on it."""
    library(folder / "lib")
    site = folder / "site"
    (site / "tensorrt").mkdir(parents=True, exist_ok=True)
    (site / "tensorrt" / "__init__.py").write_text(SHIM.format(version=VERSION))
    paths = os.pathsep.join(filter(None, [str(folder / "lib"), environment.get("LD_LIBRARY_PATH")]))
    return {"LD_LIBRARY_PATH": paths, "PYTHONPATH": os.pathsep.join([environment["PYTHONPATH"], str(site)])}


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
    """The tiny bundle with an fp16 file."""
    import onnx

    from toolkit.graph.fp16 import fp16_from_onnx

    shutil.copytree(TINY, folder)
    onnx.save(fp16_from_onnx(onnx.load(folder / VARIANTS["fp32"].file)), folder / VARIANTS["fp16"].file)
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
    from toolkit.runtime.ort.runner import OrtRunner

    for model in MODELS:
        bundle(folder / model)
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, 16, 16, 3), np.uint8)
    arrays: dict[str, Any] = {}
    for source in FOR_TENSORRT:
        file, optimize = folder / MODELS[0] / VARIANTS[source].file, VARIANTS[source].optimize
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
        plan = json.dumps(head).encode() + b"\n" + (folder / name / VARIANTS[source].file).read_bytes()
        beside = source == "int8"
        where = f"extra/{name}.int8.engine" if beside else f"{name}/engines/{VARIANTS[source].engine_file}"
        (folder / where).write_bytes(plan)
        facts = sidecar(plan, VARIANTS[source].file)
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
