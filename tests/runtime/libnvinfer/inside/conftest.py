"""The TensorRT of this process, an engine of the tiny bundle that it built, and what its guide forbids."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.cuda.inside import conftest as cuda
from tests.runtime.cuda.inside.conftest import TINY, expected, images
from tests.runtime.libnvinfer.standin import KINDS
from toolkit.engine.build import BuildSettings
from toolkit.engine.engine_from_onnx import Engine, engine_from_onnx
from toolkit.runtime.trt.module import TensorRT, find_tensorrt

__all__ = ["expected", "images"]
VERSION = os.environ.get("STANDIN_VERSION", "11.4")
OLD = VERSION in ("8.6", "10.3", "10.6")  # up to 10.12 the binding raises without Python's lock: SIGSEGV
RTX = KINDS[VERSION].module == "tensorrt_rtx"


@pytest.fixture(scope="session")
def tensorrt() -> TensorRT:
    """Found as the toolkit finds it."""
    return find_tensorrt()


class Stub(cuda.Stub):
    """The stand-in libcuda under the stand-in libnvinfer."""

    def __init__(self) -> None:
        super().__init__()
        self.tensorrt = ctypes.CDLL(KINDS[VERSION].library)

    def alive(self) -> dict[str, int]:
        """As there, but for the context that TensorRT too keeps to the end of the process."""
        found = super().alive()
        found["retained contexts"] = found.get("retained contexts", 0) - self.tensorrt.standin_retained()
        return {name: count for name, count in found.items() if count}


@pytest.fixture
def stub(tensorrt: TensorRT) -> Iterator[Stub]:
    """Afterwards nothing more is alive, and nothing was done that TensorRT's guide forbids."""
    found = Stub()
    before, violations = found.alive(), found.tensorrt.standin_violations()
    yield found
    assert (found.alive(), found.tensorrt.standin_violations()) == (before, violations)


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Engine]:
    """Builds one of the tiny bundle's files."""

    def built(file: str = "model.onnx", name: str = "model.engine", **settings: Any) -> Engine:
        on_progress = settings.pop("on_progress", None)
        told = BuildSettings(**settings)
        return engine_from_onnx(TINY / file, tmp_path / name, batch=(1, 4, 8), settings=told, on_progress=on_progress)

    return built
