"""Claims about the TensorRT runner, on a stand-in TensorRT that computes with ONNX Runtime in real streams."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.runtime.trt_runner import TrtRunner

VERSIONS = ("8.6.1", "10.3.0", "11.4.0")
Plan = Callable[..., Path]
Install = Callable[..., Any]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_batch_up_to_the_profile_and_beyond_answers_as_onnx_runtime(
    version: str, implementation: str, plan: Plan, tensorrt: Install, images: Any, expected: Any, stub: Any
) -> None:
    tensorrt(version, shared_profile=version != "8.6.1")
    with TrtRunner(plan(version), cuda=implementation) as runner:
        for _ in range(3):
            for count in (1, 2, 3, 8, 5, 20, 1):
                assert np.allclose(runner.logits(images[:count]), expected[:count], atol=1e-5), count
        assert runner.graph == ("on" if implementation == "cuda-python" else "off, pycuda 2026.1 has none")
        assert implementation in runner.description
        assert runner.logits(images[:0]).shape == (0, 3)
    assert stub.alive().get("graph executables", 0) == 0
