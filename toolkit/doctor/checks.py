"""Tries every backend by computing something with it, each in its own process, and says what mends what fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from toolkit.doctor import gpu, machine, packages
from toolkit.doctor.machine import Absent, Answer
from toolkit.errors import BackendUnavailable, MissingPackage, ToolkitError
from toolkit.lazy import requirement
from toolkit.runtime.trt.module import CudaDoesNotStart
from toolkit.storage.documents import Document

TIMEOUT_S = 120  # a cold import of torch on an SD card takes most of a minute


@dataclass(frozen=True)
class Check(Document):
    """One finding.

    Attributes:
        ok: it works; false: it is needed or installed and does not work; null: optional and absent.
        version: of the thing checked, where it has one.
        detail: what was computed or what went wrong, one line.
        fix: the command that mends it, where one does.
    """

    name: str
    ok: bool | None
    version: str | None = None
    detail: str = ""
    fix: str | None = None


@dataclass(frozen=True)
class Doctor(Document):
    """What toolkit doctor prints.

    Attributes:
        ok: nothing that is needed or installed is broken.
    """

    SCHEMA = "toolkit/doctor/1"
    ok: bool
    checks: tuple[Check, ...]


def examined(found: Iterable[Check]) -> Doctor:
    """Checks that were made, together."""
    made = tuple(found)
    return Doctor(all(check.ok is not False for check in made), made)


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
            return Check(name, False, None, _one_line(detail), _cure(name, error))
        return Check(name, None, None, _one_line(detail), error.fix)
    except Exception as error:
        return Check(name, False, None, _one_line(f"{type(error).__name__}: {error}"), FIXES.get(name))


def _cure(name: str, error: ToolkitError) -> str | None:
    """The error's own, which knows the cause; but a broken package is not mended by the command that installs it."""
    if isinstance(error, MissingPackage) or error.fix is None:
        return FIXES.get(name, error.fix)
    return error.fix


def _is_absence(error: ToolkitError) -> bool:
    """Whether something is simply not installed, rather than installed and broken."""
    if isinstance(error, CudaDoesNotStart):
        return False
    if isinstance(error, MissingPackage):
        return isinstance(error.__cause__, ModuleNotFoundError)
    return isinstance(error, BackendUnavailable) and "is installed but" not in (error.found or "")


def in_own_process(name: str, timeout_s: float = TIMEOUT_S) -> Check:
    """Runs a check in a fresh Python, so that a library that crashes or hangs ends only that one."""
    program = f"from toolkit.doctor import checks; checks.answer_to_parent({name!r})"
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
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


# name: (runs in its own process, the check)
CHECKS: dict[str, tuple[bool, Callable[[], Answer]]] = {
    "python": (False, machine.python_version),
    "disk space": (False, machine.disk_space),
    "cache": (False, machine.cache_size),
    "cpu": (False, machine.cpu_features),
    "jetson": (False, machine.jetson_release),
    "numpy": (True, packages.numpy_product),
    "pillow": (True, packages.png_round_trip),
    "safetensors": (True, packages.weights_round_trip),
    "torch cpu": (True, packages.torch_on_cpu),
    "torch cuda": (True, gpu.torch_on_cuda),
    "onnx": (True, packages.onnx_model),
    "onnxruntime cpu": (True, packages.ort_on_cpu),
    "onnxruntime cuda": (True, partial(packages.relu_with, "CUDAExecutionProvider")),
    "onnxruntime tensorrt": (True, partial(packages.relu_with, "TensorrtExecutionProvider")),
    "cuda driver": (True, gpu.cuda_driver),
    "tensorrt": (True, gpu.tensorrt_build),
    "cuda with tensorrt": (True, partial(gpu.cuda_with, "tensorrt")),
    "cuda with tensorrt-rtx": (True, partial(gpu.cuda_with, "tensorrt-rtx")),
    "cuda with lean": (True, partial(gpu.cuda_with, "lean")),
    "cuda with dispatch": (True, partial(gpu.cuda_with, "dispatch")),
    "pycuda": (True, gpu.pycuda_devices),
    "cuda-python": (True, gpu.cuda_python_devices),
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
    "onnx": "pip install --force-reinstall onnx",
    "onnxruntime cpu": "pip install --force-reinstall onnxruntime",
    "onnxruntime cuda": "pip uninstall onnxruntime; pip install --force-reinstall 'onnxruntime-gpu[cuda,cudnn]'",
    "onnxruntime tensorrt": "install the TensorRT that this onnxruntime-gpu was built with",
    "tensorrt": "mend what the rows 'cuda with ...' name; if all start CUDA, install this TensorRT again",
    "cuda with tensorrt": "install it again: pip install --force-reinstall tensorrt, on a Jetson sudo apt install "
    "--reinstall python3-libnvinfer",
    "cuda with tensorrt-rtx": f"pip install --force-reinstall {requirement('rtx')}",
    "cuda with lean": "pip install --force-reinstall tensorrt-lean",
    "cuda with dispatch": "pip install --force-reinstall tensorrt-dispatch",
    "pycuda": f"PATH=/usr/local/cuda/bin:$PATH pip install --force-reinstall {requirement('pycuda')}",
    "cuda-python": "pip install --force-reinstall cuda-python",
}
