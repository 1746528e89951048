"""Claims about ONNX Runtime's GPU providers on a GPU: every node runs there, and the answers are the CPU's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.gpu.conftest import MODELS, Inputs, in_batches, top1_percent
from toolkit.bundle.reading import bundle_from_folder
from toolkit.bundle.runners import OPENERS
from toolkit.errors import BackendUnavailable
from toolkit.runtime.driver import Device

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]  # foreign libraries warn as they like
POINTS = {"fp32": 0.05, "fp16": 0.05, "int8": 0.2}


def opened(backend: str, inputs: Inputs, model: str, precision: str) -> Any:
    """A runner, or a skip with the reason why there is none in this Python."""
    try:
        return OPENERS[backend](bundle_from_folder(inputs.bundle(model)), precision)
    except BackendUnavailable as error:
        pytest.skip(" ".join(str(part) for part in (error.what, error.found) if part)[:300])


@pytest.mark.parametrize("precision", list(POINTS))
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("backend", ["ort-cuda", "ort-trt"])
def test_a_provider_runs_every_node_and_answers_as_the_cpu_does(
    backend: str, model: str, precision: str, inputs: Inputs
) -> None:
    with opened(backend, inputs, model, precision) as one:
        print(one.description)
        assert one.name == backend
        assert " on CPU (" not in one.description
        got = in_batches(one.logits, inputs.images)
    assert np.isfinite(got).all()
    expected = top1_percent(inputs.logits[f"{model} {precision}"], inputs.labels)
    allowed = max(POINTS[precision], 100 / len(inputs.images))
    assert abs(top1_percent(got, inputs.labels) - expected) <= allowed + 1e-9


def test_the_second_session_of_the_tensorrt_provider_takes_the_cached_engine(
    gpu: Device, inputs: Inputs, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path))
    for _ in range(2):
        with opened("ort-trt", inputs, MODELS[0], "fp32") as one:
            one.logits(inputs.images[:8])
        plans = sorted(tmp_path.rglob("*.engine"))
        assert len(plans) >= 1
        times = [plan.stat().st_mtime_ns for plan in plans]
        if _ == 0:
            first = times
    assert times == first
