"""Claims about ONNX Runtime's GPU providers on a GPU: every node runs there, and the answers are the CPU's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.gpu.conftest import Inputs, in_batches, top1_percent
from toolkit.bundle.reading import bundle_from_folder
from toolkit.deployment.openers import OPENERS
from toolkit.errors import BackendUnavailable
from toolkit.runtime.driver import Device

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]  # foreign libraries warn as they like
MODELS = ("resnet32x32", "resnet20")
POINTS = {"fp32": 0.05, "fp16": 0.05, "int8": 0.2}


def opened(backend: str, inputs: Inputs, precision: str) -> Any:
    """A runner, or a skip with the reason why there is none in this Python."""
    try:
        return OPENERS[backend](bundle_from_folder(inputs.folder), precision)
    except BackendUnavailable as error:
        pytest.skip(" ".join(str(part) for part in (error.what, error.found) if part)[:300])


@pytest.mark.parametrize("precision", list(POINTS))
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("backend", ["ort-cuda", "ort-trt"])
def test_a_provider_runs_every_node_and_answers_as_the_cpu_does(
    backend: str, model: str, precision: str, inputs_of: Callable[[str], Inputs]
) -> None:
    inputs = inputs_of(model)
    with opened(backend, inputs, precision) as one:
        print(one.description)
        assert one.name == backend
        assert " on CPU (" not in one.description
        got = in_batches(one.logits, inputs.images)
    assert np.isfinite(got).all()
    expected = top1_percent(inputs.logits[precision], inputs.labels)
    allowed = max(POINTS[precision], 100 / len(inputs.images))
    assert abs(top1_percent(got, inputs.labels) - expected) <= allowed + 1e-9


def test_the_second_session_of_the_tensorrt_provider_takes_the_cached_engine(
    gpu: Device, inputs_of: Callable[[str], Inputs], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path))
    inputs = inputs_of(MODELS[0])
    for _ in range(2):
        with opened("ort-trt", inputs, "fp32") as one:
            one.logits(inputs.images[:8])
        plans = sorted(tmp_path.rglob("*.engine"))
        assert len(plans) >= 1
        times = [plan.stat().st_mtime_ns for plan in plans]
        if _ == 0:
            first = times
    assert times == first
