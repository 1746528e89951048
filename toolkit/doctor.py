"""Tries every backend by computing something with it, each in its own process, and says what mends what fails."""

from __future__ import annotations

import base64
import importlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from toolkit.errors import BackendUnavailable, MissingPackage, ToolkitError
from toolkit.lazy import needs
from toolkit.runtime.driver import probe_driver
from toolkit.runtime.ort_biases import OPTIMISER, SWITCH, breaks_half_biases

TIMEOUT_S = 120  # a cold import of torch on an SD card takes most of a minute
NEEDED_FREE_GIB = 1.0
CPU_FEATURES = {
    "avx2": "avx2",
    "avx512f": "avx512",
    "avx512_vnni": "avx512-vnni",
    "avx_vnni": "avx-vnni",
    "avx512_bf16": "avx512-bf16",
    "amx_bf16": "amx-bf16",
    "amx_int8": "amx-int8",
    "asimddp": "int8 dot product",
    "i8mm": "int8 matmul",
    "bf16": "bf16",
    "fphp": "fp16",
}

# A 1x1 convolution with one weight, 2.0, over float32 "x" (1, 1, 4, 4) to "y": opset 17, as onnx.helper writes it.
# As bytes, because a device has TensorRT but no onnx.
TINY_CONV = base64.b64decode(
    "CAg6ZgoPCgF4CgF3EgF5IgRDb252EgRjb252KhMIAQgBCAEIARABIgQAAABAQgF3WhsKAXgSFgoUCAESEAoCCAEKAggBCgIIBAoC"
    "CARiGwoBeRIWChQIARIQCgIIAQoCCAEKAggECgIIBEIECgAQEQ=="
)


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        ok: it works; False: it is needed or installed and does not work; None: optional and absent.
        version: of the thing checked, where it has one.
        detail: what was computed or what went wrong, one line.
        fix: the command that mends it, where one does.
    """

    name: str
    ok: bool | None
    version: str | None = None
    detail: str = ""
    fix: str | None = None


class Absent(Exception):
    """Something optional is not here: what, and the command that brings it."""

    def __init__(self, detail: str, fix: str | None = None) -> None:
        super().__init__(detail)
        self.fix = fix


Answer = tuple[str | None, str]  # version, detail


def checks() -> list[Check]:
    """Every check, in the order in which a person reads them. Prints nothing and raises nothing; some seconds."""
    return [check(name) for name in CHECKS]


def check(name: str) -> Check:
    """One check by its name in `CHECKS`; those that load foreign libraries run in a process of their own."""
    alone, _ = CHECKS[name]
    return in_own_process(name) if alone else answered(name)


def answered(name: str) -> Check:
    """Runs a check in this process; whatever it raises becomes its finding."""
    try:
        return Check(name, True, *CHECKS[name][1]())
    except Absent as absent:
        return Check(name, None, None, str(absent), absent.fix)
    except ToolkitError as error:
        detail = error.what if error.found is None else f"{error.what}: {error.found}"
        if name in REQUIRED or not _is_absence(error):
            return Check(name, False, None, _one_line(detail), FIXES.get(name, error.fix))
        return Check(name, None, None, _one_line(detail), error.fix)
    except Exception as error:
        return Check(name, False, None, _one_line(f"{type(error).__name__}: {error}"), FIXES.get(name))


def _is_absence(error: ToolkitError) -> bool:
    """Whether something is simply not installed, rather than installed and broken."""
    if isinstance(error, MissingPackage):
        return isinstance(error.__cause__, ModuleNotFoundError)
    return isinstance(error, BackendUnavailable) and "is installed but" not in (error.found or "")


def in_own_process(name: str, timeout_s: float = TIMEOUT_S) -> Check:
    """Runs a check in a fresh Python, so that a library that crashes or hangs ends only that one."""
    program = f"from toolkit import doctor; doctor.answer_to_parent({name!r})"
    paths = [str(Path(__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    try:
        child = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=timeout_s, env=environment
        )
    except subprocess.TimeoutExpired:
        return Check(name, False, None, f"no answer within {timeout_s:g} s", FIXES.get(name))
    except OSError as error:
        return Check(name, False, None, f"no process could be started: {error}")
    if child.returncode < 0:
        died = signal.Signals(-child.returncode).name
        return Check(name, False, None, f"the library ended its process with {died}", FIXES.get(name))
    try:
        return Check(**json.loads(child.stdout.splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        last = (child.stderr or child.stdout).strip().splitlines()[-1:] or [f"exit code {child.returncode}"]
        return Check(name, False, None, _one_line(last[0]), FIXES.get(name))


def answer_to_parent(name: str) -> None:
    """The child's half of `in_own_process`: the finding as the last line of stdout."""
    sys.stdout.write("\n" + json.dumps(vars(answered(name))) + "\n")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:400]


@contextmanager
def _temporary(data: bytes, name: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="toolkit-doctor-") as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        yield path


def _expect(right: bool, wrong: str) -> None:
    """An `assert` that python -O keeps."""
    if not right:
        raise RuntimeError(f"wrong answer: {wrong}")


def _python() -> Answer:
    if tuple(sys.version_info) < (3, 10):  # possible in a checkout, which pip never saw
        raise RuntimeError(f"Python {platform.python_version()} is too old, 3.10 is needed")
    return platform.python_version(), sys.executable


def _disk() -> Answer:
    free_gib = shutil.disk_usage(".").free / 2**30
    if free_gib < NEEDED_FREE_GIB:
        raise RuntimeError(f"{free_gib:.1f} GiB free in {Path.cwd()}, {NEEDED_FREE_GIB:g} GiB are needed")
    return None, f"{free_gib:.1f} GiB free in {Path.cwd()}"


def _cpu() -> Answer:
    lines = _text("/proc/cpuinfo").splitlines()
    if not lines:
        raise Absent("/proc/cpuinfo cannot be read, so the CPU's features are unknown")
    words = {word for line in lines if line.lower().startswith(("flags", "features")) for word in line.split()}
    names = [name for flag, name in CPU_FEATURES.items() if flag in words]
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return None, f"{model}, {os.cpu_count()} cores, {', '.join(names) or 'none of the features that help'}"


def _jetson() -> Answer:
    release = _text("/etc/nv_tegra_release").partition("\n")[0]
    model = _text("/proc/device-tree/model").strip("\0\n")
    if not release and "jetson" not in model.lower():
        raise Absent("this is not a Jetson")
    return l4t_version(release), model or "unknown model"


def l4t_version(release: str) -> str | None:
    """L4T's version from the first line of /etc/nv_tegra_release: "# R36 (release), REVISION: 4.3, ..." is 36.4.3."""
    words = release.replace(",", " ").split()
    if "REVISION:" not in words[:-1]:
        return None
    major = next((word[1:] for word in words if word[0] == "R" and word[1:].isdigit()), None)
    return f"{major}.{words[words.index('REVISION:') + 1]}" if major else None


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _numpy() -> Answer:
    with needs("compute anything"):
        import numpy as np
    product = np.arange(6.0).reshape(2, 3) @ np.ones((3, 2))
    _expect(product.tolist() == [[3.0, 3.0], [12.0, 12.0]], f"a matmul gave {product.tolist()}")
    return np.__version__, "matmul is right"


def _safetensors() -> Answer:
    with needs("read and write weights"):
        import numpy as np
        import safetensors
        from safetensors.numpy import load, save
    weights = np.arange(4, dtype=np.float32)
    _expect((load(save({"w": weights}))["w"] == weights).all(), "weights came back changed")
    return safetensors.__version__, "round trip is right"


def _pillow() -> Answer:
    with needs("read PNG and JPEG files"):
        import io

        import PIL
        from PIL import Image
    stream = io.BytesIO()
    Image.new("RGB", (2, 2), (1, 2, 3)).save(stream, "PNG")
    _expect(Image.open(stream).getpixel((1, 1)) == (1, 2, 3), "a pixel came back changed")
    return PIL.__version__, "PNG round trip is right"


def _torch_conv(device: str) -> str:
    """Convolves ones on a device, checks the sum and returns torch's version."""
    import torch

    answer = torch.nn.functional.conv2d(torch.ones(1, 2, 4, 4, device=device), torch.ones(3, 2, 3, 3, device=device))
    _expect(abs(float(answer.sum()) - 216) < 1e-3, f"a convolution gave {float(answer.sum())} instead of 216")
    return str(torch.__version__)


def _torch_cpu() -> Answer:
    with needs("train and export models"):
        version = _torch_conv("cpu")
    return version, "convolution on the CPU is right"


def _torch_cuda() -> Answer:
    with needs("train on a GPU"):
        import torch
    if torch.version.cuda is None:
        raise Absent("this torch is built without CUDA", "pip install --force-reinstall torch (its CUDA build)")
    _require_driver()
    version = _torch_conv("cuda")
    return version, f"convolution on {torch.cuda.get_device_name(0)} is right"


def _require_driver() -> None:
    driver = probe_driver()
    if not driver.available:
        raise Absent(driver.reason)


def _relu(provider: str) -> Answer:
    """Makes a Relu model in memory and runs it with one provider of ONNX Runtime, which leaves nothing to the CPU."""
    from toolkit.runtime.ort import require_provider

    with needs("run ONNX files"):
        import numpy as np
        import onnx
        import onnxruntime
        from onnx import TensorProto, helper
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    require_provider(onnxruntime, provider)
    options = onnxruntime.SessionOptions()
    if provider != "CPUExecutionProvider":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[provider], enable_fallback=0)
    if session.get_providers()[0] != provider:
        raise RuntimeError(f"{provider} did not start, onnxruntime fell back to {session.get_providers()[0]}")
    (answer,) = session.run(None, {"x": np.array([-1, 0, 1, 2], np.float32)})
    _expect(answer.tolist() == [0, 0, 1, 2], f"Relu gave {answer.tolist()}")
    return f"{onnxruntime.__version__} (onnx {onnx.__version__})", f"Relu with {provider} is right"


def _onnxruntime_cpu() -> Answer:
    version, detail = _relu("CPUExecutionProvider")
    if breaks_half_biases():
        detail += f"; outside the toolkit it computes FP16 with Q/DQ wrongly unless {SWITCH} is {OPTIMISER}"
    return version, detail


def _driver() -> Answer:
    driver = probe_driver()
    if not driver.available:
        raise Absent(driver.reason, "install the NVIDIA driver (on a Jetson it comes with JetPack)")
    devices = (f"{d.name} ({d.compute_capability}, {d.memory_mib:,} MiB)" for d in driver.devices)
    return f"CUDA {driver.driver_version}", ", ".join(devices)


def _tensorrt() -> Answer:
    from toolkit.export.engine_from_onnx import engine_from_onnx
    from toolkit.runtime.trt import find_tensorrt

    found = find_tensorrt()
    if not found.can_build:
        return found.version, f"{found.kind}: runs engines, cannot build them"
    with _temporary(TINY_CONV, "conv.onnx") as onnx:
        engine = engine_from_onnx(onnx, onnx.with_name("conv.plan"), batch=(1, 1, 1))
    size, seconds = engine.sidecar["plan"]["bytes"], engine.sidecar["build_seconds"]
    return found.version, f"{found.kind} built a convolution, {size:,} bytes in {seconds:.2f} s"


def _pycuda() -> Answer:
    with needs("drive the GPU with pycuda"):
        import pycuda
    _require_driver()
    driver = importlib.import_module("pycuda.driver")
    driver.init()
    return str(pycuda.VERSION_TEXT), f"{driver.Device.count()} GPUs"


def _cuda_python() -> Answer:
    with needs("drive the GPU with cuda-python"):
        try:
            runtime = importlib.import_module("cuda.bindings.runtime")  # since 12.6
        except ModuleNotFoundError:
            runtime = importlib.import_module("cuda.cudart")
    _require_driver()
    code, count = runtime.cudaGetDeviceCount()
    if int(code) != 0:
        raise RuntimeError(f"cudaGetDeviceCount returned {code}")
    return getattr(importlib.import_module("cuda.bindings"), "__version__", None), f"{count} GPUs"


# name: (runs in its own process, the check)
CHECKS: dict[str, tuple[bool, Callable[[], Answer]]] = {
    "python": (False, _python),
    "disk space": (False, _disk),
    "cpu": (False, _cpu),
    "jetson": (False, _jetson),
    "numpy": (True, _numpy),
    "pillow": (True, _pillow),
    "safetensors": (True, _safetensors),
    "torch cpu": (True, _torch_cpu),
    "torch cuda": (True, _torch_cuda),
    "onnxruntime cpu": (True, _onnxruntime_cpu),
    "onnxruntime cuda": (True, partial(_relu, "CUDAExecutionProvider")),
    "onnxruntime tensorrt": (True, partial(_relu, "TensorrtExecutionProvider")),
    "cuda driver": (True, _driver),
    "tensorrt": (True, _tensorrt),
    "pycuda": (True, _pycuda),
    "cuda-python": (True, _cuda_python),
}

REQUIRED = ("python", "disk space", "numpy")

FIXES = {
    "python": "install Python 3.10 or newer",
    "disk space": "free some space, or work in another folder",
    "numpy": "pip install --force-reinstall numpy",
    "pillow": "pip install --force-reinstall pillow",
    "safetensors": "pip install --force-reinstall safetensors",
    "torch cpu": "pip install --force-reinstall torch",
    "torch cuda": "install a torch whose CUDA the driver speaks (nvidia-smi shows it)",
    "onnxruntime cpu": "pip install --force-reinstall onnx onnxruntime",
    "onnxruntime cuda": "pip uninstall onnxruntime; pip install --force-reinstall 'onnxruntime-gpu[cuda,cudnn]'",
    "onnxruntime tensorrt": "install the TensorRT that this onnxruntime-gpu was built with",
    "tensorrt": "pip install --force-reinstall 'trt-edge-toolkit[rtx]'",
    "pycuda": "PATH=/usr/local/cuda/bin:$PATH pip install --force-reinstall 'trt-edge-toolkit[pycuda]'",
    "cuda-python": "pip install --force-reinstall cuda-python",
}
