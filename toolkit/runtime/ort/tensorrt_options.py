"""Options of ONNX Runtime's TensorRT execution provider: caches that cannot go stale, the target's batches, types.

Names and meanings: https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from toolkit.lazy import needs
from toolkit.runtime.ort.session_options import session_options
from toolkit.storage.files import Content, os_errors
from toolkit.storage.folders import make_private

LIBRARY = "libonnxruntime_providers_tensorrt.so"
TYPES_IN_THE_FILE = 11  # from this TensorRT on there are no FP16 and INT8 flags


def tensorrt_of_provider(package: Path) -> int | None:
    """The major version of the TensorRT that an onnxruntime package is linked with; None where it does not say.

    Args:
        package: the folder of the `onnxruntime` module.
    """
    library = package / "capi" / LIBRARY
    found = re.search(rb"libnvinfer\.so\.(\d+)", library.read_bytes()) if library.is_file() else None
    return int(found[1]) if found else None


def tensorrt_options(
    model: Content, types: tuple[str, ...], batch: tuple[int, int, int], cache: Path, device: str
) -> dict[str, str]:
    """Provider options for one ONNX file.

    The provider names a cached engine after the names of inputs and nodes, not after weights, so a net that was trained
    again would be answered by its old engine. Therefore every file has a folder of its own, named after its bytes,
    ONNX Runtime, TensorRT, the GPU and the options.

    Args:
        types: "FP16", "INT8" or both, for a file that needs them: below TensorRT 11 they are builder flags.
        batch: smallest, best served and largest, of the target; an input with a fixed batch ignores it.
        cache: where engines and timings of this user are kept; made if it is not there.
        device: the GPU's name.

    Raises:
        ToolkitError: the cache cannot be written. MissingPackage: no onnxruntime.
    """
    with needs("run ONNX files"):
        import onnxruntime
    major = tensorrt_of_provider(Path(onnxruntime.__file__).parent)
    flags = types if major is not None and major < TYPES_IN_THE_FILE else ()
    options = {f"trt_{flag.lower()}_enable": "True" for flag in flags} | _profile(onnxruntime, model, batch)
    version = f"onnxruntime {onnxruntime.__version__}, tensorrt {major}, {device}"
    key = hashlib.sha256(json.dumps([model.sha256, version, options], sort_keys=True).encode()).hexdigest()
    engines = cache / f"{model.path.stem}-{key[:16]}"
    timings = cache / f"timings-{hashlib.sha256(version.encode()).hexdigest()[:16]}"
    for folder in (engines, timings):
        with os_errors(folder):
            make_private(folder)  # an engine is code: nobody else may put one here
    return options | {
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(engines),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(timings),
    }


def _profile(onnxruntime: Any, model: Content, batch: tuple[int, int, int]) -> dict[str, str]:
    """The range of the first input's batch, as `name:1x32x32x3`; none where its batch is fixed."""
    settings = session_options()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.data, settings, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    first, *rest = entry.shape
    if isinstance(first, int):
        return {}
    sizes = {name: "x".join(map(str, (n, *rest))) for name, n in zip(("min", "opt", "max"), batch, strict=True)}
    return {f"trt_profile_{name}_shapes": f"{entry.name}:{size}" for name, size in sizes.items()}
