"""Claims about the timings that an engine gives on a GPU: the parts of a call, and the GPU's time by batch."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.gpu.conftest import LARGEST_BATCH, Inputs, keep, quick

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]  # foreign libraries warn as they like
SHARE = (0.1, 1.25)  # of a call that its parts on the device may take


@pytest.mark.parametrize("batch", [1, 8, 64, LARGEST_BATCH])
def test_the_phases_of_a_call_add_up_to_a_call(
    batch: int, model: str, runner: Callable[..., Any], inputs: Inputs
) -> None:
    one = runner(model, "fp32")
    images = np.ascontiguousarray(inputs.images[:batch])
    for _ in range(quick(500, 2)):  # an idle GPU's clocks rise for a while
        one.logits(images)
    parts, calls = [], []
    for _ in range(quick(100, 5)):
        parts.append(vars(one.phases(images)))
        began = time.perf_counter()
        one.logits(images)
        calls.append(1000 * (time.perf_counter() - began))
    median = {name: float(np.median([part[name] for part in parts])) for name in parts[0]}
    call_ms = float(np.median(calls))
    print(f"batch {batch}: {median}, a call {call_ms:.4f} ms")
    keep("phases", {"model": model, "batch": batch, "call_ms": call_ms, **median})
    assert median["gpu_ms"] > 0
    assert min(median.values()) >= 0
    device_ms = median["h2d_ms"] + median["gpu_ms"] + median["d2h_ms"]
    # A call is the parts and Python around them; events and launches between the parts cost some microseconds.
    least, most = (0.0, 100.0) if quick(0, 1) else SHARE  # a busy CPU keeps no time
    assert least * call_ms <= device_ms <= most * call_ms + 0.03


def test_more_images_take_the_gpu_longer(model: str, runner: Callable[..., Any], inputs: Inputs) -> None:
    one = runner(model, "fp32")
    medians = []
    for batch in (1, LARGEST_BATCH):
        images = np.ascontiguousarray(inputs.images[:batch])
        medians.append(float(np.median([one.phases(images).gpu_ms for _ in range(quick(50, 3))])))
    print(f"GPU: {medians[0]:.4f} ms for 1, {medians[1]:.4f} ms for {LARGEST_BATCH}")
    assert medians[1] > (1.5 if not quick(0, 1) else 0.0) * medians[0]


def test_the_gpus_time_is_the_same_with_a_graph_and_without(
    model: str, runner: Callable[..., Any], inputs: Inputs
) -> None:
    one, images = runner(model, "fp32"), np.ascontiguousarray(inputs.images[:1])
    with one.without_graph() as plain:
        found = {}
        for name, which in (("graph", one), ("no graph", plain)):
            taken = [vars(which.phases(images)) for _ in range(quick(200, 3))]
            found[name] = {key: float(np.median([part[key] for part in taken])) for key in taken[0]}
    print(found)
    keep("phases", {"model": model, "batch": 1, **found})
    if "enqueue_ms" not in found["graph"]:
        pytest.skip("this version's GPU time holds the launch")
    if quick(0, 1):
        pytest.skip("a busy CPU keeps no time")
    assert found["no graph"]["gpu_ms"] <= 1.3 * found["graph"]["gpu_ms"] + 0.01
