"""The stand-in libcuda's own functions, plans for the stand-in TensorRT, and what both must not have seen."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import json
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runtime import standin_tensorrt
from toolkit.runtime.cuda.libcuda import keep_primary_context
from toolkit.runtime.trt import module as trt_module
from toolkit.runtime.trt.preflight import sidecar_path

COUNTED = ("device memory", "host memory", "streams", "events", "graphs", "graph executables", "retained contexts")
TINY = Path(__file__).parents[3] / "bundle" / "format-1"
IMPLEMENTATIONS = ("cuda-python", "pycuda")


class Stub:
    """libcuda.so.1 as this process has it."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL("libcuda.so.1")
        self.library.stub_calls.restype = ctypes.c_long
        self.library.stub_memory_of.restype = ctypes.c_uint64

    def alive(self) -> dict[str, int]:
        """Everything that was made and not given back, but for the one context that the process keeps to its end."""
        counts = (ctypes.c_long * len(COUNTED))()
        self.library.stub_counts(counts)
        counts[COUNTED.index("retained contexts")] -= keep_primary_context.cache_info().currsize
        return {name: count for name, count in zip(COUNTED, counts, strict=True) if count}

    def calls(self, name: str) -> int:
        """How often a function was called."""
        return int(self.library.stub_calls(name.encode()))

    def fail(self, name: str, code: int, skip: int = 0, times: int = 1) -> None:
        """Lets calls fail: after `skip` good ones, `times` return `code`."""
        self.library.stub_fail(name.encode(), code, skip, times)

    def model(self, kernel: float, launch: float = 0, call: float = 0, copy: float = 0, wake: float = 0) -> None:
        """Gives the device a time of its own, in microseconds; a negative `kernel` takes it away again."""
        self.library.stub_model(*map(ctypes.c_double, (kernel, launch, call, copy, wake)))

    def integrated(self, yes: bool) -> None:
        """Lets the GPU work in the host's memory, as a Jetson's does."""
        self.library.stub_integrated(int(yes))

    def memory_of(self, ordinal: int, size_bytes: int) -> int:
        """Memory of a GPU that counts for nothing and is never given back."""
        return int(self.library.stub_memory_of(ordinal, ctypes.c_size_t(size_bytes)))


class OnDevice:
    """uint8 images in the stand-in's device memory, with `__cuda_array_interface__` of version 3."""

    def __init__(self, stub: Stub, images: Any, ordinal: int = 0, offset: int = 0, **changes: Any) -> None:
        self.memory = stub.memory_of(ordinal, images.nbytes + offset) + offset
        ctypes.memmove(self.memory, np.ascontiguousarray(images).ctypes.data, images.nbytes)
        self.interface = {"shape": images.shape, "typestr": "|u1", "data": (self.memory, True), "version": 3} | changes

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return self.interface


@pytest.fixture
def stub() -> Iterator[Stub]:
    """The stand-in; afterwards nothing more is alive but what a test made with `memory_of`."""
    found = Stub()
    before = found.alive()
    yield found
    assert found.alive() == before


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request: pytest.FixtureRequest) -> str:
    """Each package that speaks to CUDA, where it is installed."""
    name: str = request.param
    if name == "pycuda" and importlib.util.find_spec("pycuda") is None:
        pytest.skip("pycuda is not installed: pip compiles it, with nvcc")
    return name


@pytest.fixture(autouse=True)
def _no_violations() -> Iterator[None]:
    standin_tensorrt.violations.clear()
    standin_tensorrt.constructed.clear()
    yield
    assert standin_tensorrt.violations == []


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Puts a stand-in of a version where TensorRT is looked for."""

    def install(version: str = "10.3.0", kind: str | None = None, **options: Any) -> Any:
        module = standin_tensorrt.module(version, **options)
        kind = kind or ("tensorrt-rtx" if version.startswith("1.") else "tensorrt")
        monkeypatch.setattr(trt_module, "_installed", lambda load: ([(kind, module)], []))
        return module

    return install


@pytest.fixture
def plan(tmp_path: Path) -> Callable[..., Path]:
    """Writes a plan of the tiny net with its sidecar."""

    def write(version: str = "10.3.0", flags: tuple[str, ...] = (), onnx: bytes | None = None, **options: Any) -> Path:
        path = tmp_path / "model.engine"
        data = standin_tensorrt.plan_from_onnx(onnx or (TINY / "model.onnx").read_bytes(), **options)
        path.write_bytes(data)
        sidecar_path(path).write_text(json.dumps(sidecar(data, version, flags)))
        return path

    return write


def sidecar(data: bytes, version: str, flags: tuple[str, ...] = ()) -> dict[str, Any]:
    """What `toolkit build` would have written on the stand-in's GPU."""
    rtx = version.startswith("1.")
    return {
        "format": 1,
        "tensorrt": {"kind": "tensorrt-rtx" if rtx else "tensorrt", "version": version},
        "builder": {"device": "Stand-in 0", "compute_capability": "SM87", "machine": platform.machine()},
        "compute_capabilities": ["SM87"] if rtx else [],
        "onnx": {"file": "model.onnx", "sha256": "0" * 64},
        "plan": {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)},
        "flags": list(flags),
        "profile": {},
    }


@pytest.fixture(scope="session")
def images() -> Any:
    """Twenty images uint8 (20, 16, 16, 3)."""
    return np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), np.uint8)


@pytest.fixture(scope="session")
def expected(images: Any) -> Any:
    """Logits float32 (20, 3) of the images, a call of ONNX Runtime each."""
    from toolkit.runtime.ort.runner import OrtRunner

    with OrtRunner(TINY / "model.onnx", threads=1) as runner:
        return np.concatenate([runner.logits(images[i : i + 1]) for i in range(len(images))])
