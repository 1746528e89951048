"""The GPU as the toolkit reaches it: driver, PyTorch, pycuda, cuda-python, and every TensorRT that is installed.

A driver that answers may still be too old for the CUDA that a TensorRT was made for, and two TensorRTs on one machine
may be made for different ones: so each is asked by itself, in a process of its own.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from toolkit.doctor.machine import Absent, Answer
from toolkit.doctor.packages import TINY_CONV, torch_conv
from toolkit.errors import EngineError
from toolkit.lazy import needs
from toolkit.runtime.driver import Driver, probe_driver
from toolkit.runtime.trt.causes import cause_of
from toolkit.runtime.trt.module import (
    MODULES,
    NEEDS_NO_GPU,
    Log,
    TensorRT,
    described,
    find_tensorrt,
    require_cuda_starts,
)


@contextmanager
def temporary(data: bytes, name: str) -> Iterator[Path]:
    """A file with these bytes, for as long as it is looked at."""
    with tempfile.TemporaryDirectory(prefix="toolkit-doctor-") as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        yield path


def torch_on_cuda() -> Answer:
    """The same on the GPU; without a driver torch is not imported for this, which takes seconds."""
    _require_driver()
    with needs("train on a GPU"):
        import torch
    if torch.version.cuda is None:
        raise Absent("this torch is built without CUDA", "pip install --force-reinstall torch (its CUDA build)")
    version = torch_conv("cuda")
    return version, f"convolution on {torch.cuda.get_device_name(0)} is right"


def _require_driver() -> None:
    driver = probe_driver()
    if not driver.available:
        raise Absent(driver.reason)


def cuda_driver() -> Answer:
    """The driver and its GPUs."""
    driver = probe_driver()
    if not driver.available:
        raise Absent(driver.reason, "install the NVIDIA driver (on a Jetson it comes with JetPack)")
    devices = (f"{d.name} ({d.compute_capability}, {d.memory_mib:,} MiB)" for d in driver.devices)
    return f"CUDA {driver.driver_version}", ", ".join(devices)


def pycuda_devices() -> Answer:
    """The GPUs that pycuda counts."""
    with needs("drive the GPU with pycuda"):
        import pycuda
    _require_driver()
    driver = importlib.import_module("pycuda.driver")
    driver.init()
    return str(pycuda.VERSION_TEXT), f"{driver.Device.count()} GPUs"


def cuda_python_devices() -> Answer:
    """The GPUs that cuda-python counts, through the driver's interface, as runners use it."""
    from toolkit.runtime.cuda.cuda_python import HOLDS, bindings, lets_go

    with needs("drive the GPU with cuda-python"):
        driver, version = bindings()
    _require_driver()
    count = 0
    for call, answer in (("cuInit", driver.cuInit(0)), ("cuDeviceGetCount", driver.cuDeviceGetCount())):
        if int(answer[0]) != 0:
            raise RuntimeError(f"{call} returned {answer[0].name}")
        count = answer[-1]
    return version, f"{count} GPUs" + ("" if lets_go(version) else f"; {HOLDS}")


def tensorrt_build() -> Answer:
    """A convolution as an engine, where this TensorRT builds."""
    from toolkit.engine.engine_from_onnx import engine_from_onnx  # here, because it needs numpy and the rest does not

    found = find_tensorrt()
    if not found.can_build:
        return found.version, f"{found.kind}: runs engines, cannot build them"
    with temporary(TINY_CONV, "conv.onnx") as onnx:
        engine = engine_from_onnx(onnx, onnx.with_name("conv.plan"), batch=(1, 1, 1))
    size, seconds = engine.sidecar["plan"]["bytes"], engine.sidecar["build_seconds"]
    return found.version, f"{found.kind} built a convolution, {size:,} bytes in {seconds:.2f} s"


def cuda_with(kind: str) -> Answer:
    """Whether a TensorRT that is installed uses the GPU; `kind` is one of `MODULES`' values."""
    found, driver = _tensorrt_of(kind), probe_driver()
    if not driver.available:
        raise Absent(driver.reason)
    if kind == NEEDS_NO_GPU:
        _require_loads(found, driver)
        return found.version, f"it loads an engine, and the driver speaks CUDA {driver.driver_version}"
    require_cuda_starts(found, driver)
    return found.version, f"it starts CUDA, and the driver speaks CUDA {driver.driver_version}"


def _tensorrt_of(kind: str) -> TensorRT:
    """The TensorRT of a kind; one that is installed and does not import raises what its import raised."""
    for name in (name for name, its in MODULES.items() if its == kind):
        try:
            return described(importlib.import_module(name), kind)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise RuntimeError(f"{name} is installed but lacks {error.name}") from error
    raise Absent(f"{kind} is not installed")


def _require_loads(found: TensorRT, driver: Driver) -> None:
    """Loads a convolution: the Runtime of TensorRT-RTX asks nothing of CUDA before it gets a plan (seen on 1.7.1).

    Raises:
        EngineError: it does not load; with TensorRT's words and what to do.
    """
    log = Log(found.module)
    with temporary(TINY_CONV, "conv.onnx") as onnx:
        plan = _plan(found, driver, log, onnx)
    engine = found.module.Runtime(log.logger).deserialize_cuda_engine(plan)
    if engine is None:
        said = log.errors()
        cause = cause_of(said)
        what = f"{found.name} loads no engine here" + (f": {cause.means}" if cause else "")
        raise EngineError(what, found=next(iter(said), "it said nothing"), fix=cause.cure if cause else None)


def _plan(found: TensorRT, driver: Driver, log: Log, onnx: Path) -> bytes:
    from toolkit.engine.build import Build, BuildSettings
    from toolkit.engine.failure import log_path
    from toolkit.engine.monitor import Monitor

    build = Build(found, driver, log, onnx, (1, 1, 1), BuildSettings(), log_path(onnx))
    return build.run(Monitor(None))[0]
