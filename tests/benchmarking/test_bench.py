"""Claims about `toolkit.bench`: a value and a document with a schema; variants, warnings and comparisons."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

import toolkit
from toolkit.benchmarking.baseline import (
    MACHINE,
    SLOWER,
    UNDECIDED,
    WITHIN,
    baseline_from_file,
    require_comparable,
    require_same_runners,
    verdict_of,
)
from toolkit.benchmarking.result import Benchmark
from toolkit.benchmarking.warnings import warnings_of_gpu, warnings_of_host, warnings_of_rows
from toolkit.conditions.host import Disturbances, host_conditions
from toolkit.conditions.jetson import JetsonState
from toolkit.conditions.machine import MachineState
from toolkit.conditions.nvml import GpuState
from toolkit.contracts import Float32, UInt8
from toolkit.deployment.openers import OPENERS
from toolkit.errors import ToolkitError
from toolkit.runtime.null import NullRunner
from toolkit.runtime.runner import Phases, Runner
from toolkit.storage.files import write_json
from toolkit.timing.latency import bench as measure
from toolkit.timing.rank_tests import Ratio

BUNDLE = Path(__file__).parents[1] / "bundle/format-1"
SCHEMA = Path(__file__).parents[2] / "docs/schema/bench.v1.json"


def _valid(found: Benchmark) -> dict[str, Any]:
    """The document as a reader gets it, checked against the published schema."""
    document: dict[str, Any] = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(document, schema, jsonschema.Draft202012Validator)
    return document


class _OnDevice(NullRunner):
    """Says that it has a graph, and times its parts; closing is counted."""

    def __init__(self, gpu_ms: float = 1.0) -> None:
        super().__init__(4)
        self.gpu_ms, self.closed, self.streams = gpu_ms, 0, 0
        self.variants: list[_OnDevice] = []

    def phases(self, images_nhwc: UInt8) -> Phases:
        return Phases(0.001, self.gpu_ms, 0.001, 0.002)

    def without_graph(self) -> Runner:
        self.variants.append(_OnDevice(self.gpu_ms))
        return self.variants[-1]

    def allow_streams(self, count: int) -> None:
        self.streams = count

    def close(self) -> None:
        self.closed += 1


@pytest.fixture(scope="module")
def on_ort() -> Benchmark:
    """ONNX Runtime's fp32 file of a tiny bundle, measured so that a later run can be compared with it."""
    return toolkit.bench(
        BUNDLE, backends="ort", precisions=("fp32", "int8-cpu"), batches=(1, 3), seconds=0.1, comparable=True
    )


@pytest.mark.slow
def test_a_benchmark_is_a_frozen_value_whose_document_has_the_published_schema(on_ort: Benchmark) -> None:
    document = _valid(on_ort)
    assert document["schema"] == "toolkit/bench/1"
    assert [(row["runner"], row["batch"]) for row in document["latency"]] == [
        ("ort fp32", 1), ("ort int8-cpu", 1), ("ort fp32", 3), ("ort int8-cpu", 3),
    ]  # fmt: skip
    assert [row["batch"] for row in document["machine"]] == [1, 3]
    assert document["conditions"]["peak_host_mib"] > 10
    with pytest.raises(dataclasses.FrozenInstanceError):
        on_ort.model = "other"  # type: ignore[misc]


def test_opening_and_the_first_call_are_measured_apart(on_ort: Benchmark) -> None:
    assert set(on_ort.openings) == set(on_ort.runners) == {"ort fp32", "ort int8-cpu"}
    assert all(opening.load_ms > 0 for opening in on_ort.openings.values())
    assert all(row.first_ms > 0 for row in on_ort.latency)
    assert on_ort.latency[0].why_null["phases"] == "it runs on the host, or does not time its parts"


@pytest.mark.slow
def test_graph_both_measures_each_with_and_without_and_closes_all(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[_OnDevice] = []

    def opens(bundle: object, precision: str) -> Runner:
        made.append(_OnDevice())
        return made[-1]

    monkeypatch.setitem(OPENERS, "ort", opens)
    found = toolkit.bench(BUNDLE, backends="ort", precisions="fp32", batches=(1,), seconds=0.05, graph="both")
    assert list(found.runners) == ["ort fp32", "ort fp32 without graph"]
    assert all(row.phases is not None and row.phases.gpu_ms == 1.0 for row in found.latency)
    assert made[0].closed == made[0].variants[0].closed == 1
    _valid(found)
    off = toolkit.bench(BUNDLE, backends="ort", precisions="fp32", batches=(1,), seconds=0.05, graph="off")
    assert list(off.runners) == ["ort fp32 without graph"]


def test_a_gpu_gets_a_stream_for_each_caller_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    made = _OnDevice()
    monkeypatch.setitem(OPENERS, "ort", lambda bundle, precision: made)
    asked = {"backends": "ort", "precisions": "fp32", "batches": (1,), "seconds": 0.05}
    assert toolkit.bench(BUNDLE, callers=3, **asked).settings.streams == made.streams == 3  # type: ignore[arg-type]
    assert toolkit.bench(BUNDLE, callers=3, streams=2, **asked).settings.streams == made.streams == 2  # type: ignore[arg-type]
    with pytest.raises(ToolkitError, match="streams"):
        toolkit.bench(BUNDLE, streams=0, **asked)  # type: ignore[arg-type]


def test_a_batch_whose_parts_cannot_be_timed_is_still_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    class _TakesOne(_OnDevice):
        def phases(self, images_nhwc: UInt8) -> Phases:
            if len(images_nhwc) > 1:
                raise ToolkitError("one call of this engine takes 1 image")
            return super().phases(images_nhwc)

    monkeypatch.setitem(OPENERS, "ort", lambda bundle, precision: _TakesOne())
    found = toolkit.bench(BUNDLE, backends="ort", precisions="fp32", batches=(1, 2), seconds=0.05)
    assert [row.phases is None for row in found.latency] == [False, True]
    assert found.latency[1].why_null["phases"] == "one call of this engine takes 1 image"


def test_asking_for_graphs_where_there_are_none_is_said() -> None:
    found = toolkit.bench(BUNDLE, backends="ort", precisions="fp32", batches=(1,), seconds=0.05, graph="both")
    assert "no-graph" in [warned.kind for warned in found.warnings]
    with pytest.raises(ToolkitError, match="unknown choice of CUDA graphs"):
        toolkit.bench(BUNDLE, backends="ort", precisions="fp32", batches=(1,), seconds=0.05, graph="maybe")


@pytest.mark.parametrize(
    "wrong",
    [
        {"batches": ()},
        {"batches": (0,)},
        {"seconds": 0.0},
        {"callers": 0},
        {"iterations": 0},
        {"ort_threads": -1},
        {"warmup_s": -1.0},
        {"rate_hz": -1.0},
    ],
)
def test_what_cannot_be_measured_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ToolkitError, match=f"{next(iter(wrong))} cannot be measured with"):
        toolkit.bench(BUNDLE, backends="ort", **wrong)


def test_energy_where_there_is_no_meter_is_null_with_a_reason() -> None:
    found = toolkit.bench(BUNDLE, backends="ort", precisions="fp32", batches=(1,), seconds=0.05, energy=True)
    (row,) = found.latency
    assert (row.energy_mj is None) is ("energy_mj" in row.why_null)
    _valid(found)


@pytest.mark.slow
def test_another_bundle_is_measured_in_the_same_rounds() -> None:
    found = toolkit.bench(
        BUNDLE, backends="ort", precisions="fp32", batches=(1,), seconds=0.2, against=BUNDLE, max_regression=1.0
    )
    assert list(found.runners) == ["ort fp32", "ort fp32 (against)"]
    assert found.comparison is not None
    assert found.comparison.paired
    assert found.comparison.ok
    (change,) = found.comparison.changes
    assert (change.runner, change.batch) == ("ort fp32", 1)
    assert change.low is not None
    assert change.high is not None
    assert change.low <= change.ratio <= change.high
    rounds = {len(row.round_medians_ms) for row in found.latency}
    assert len(rounds) == 1
    assert rounds.pop() >= 20
    _valid(found)


def test_a_saved_run_of_this_device_is_compared_and_any_other_is_refused(on_ort: Benchmark, tmp_path: Path) -> None:
    path = tmp_path / "before.json"
    write_json(path, on_ort.as_dict())
    before, load = baseline_from_file(path), (1, None, 0)
    require_comparable(before, on_ort.device, on_ort.model, on_ort.weights_sha256, load)
    other = dataclasses.replace(on_ort.device, gpu="Orin")
    with pytest.raises(ToolkitError, match="measured on another device") as refused:
        require_comparable(before, other, on_ort.model, on_ort.weights_sha256, load)
    assert refused.value.found == "gpu 'none', this one has 'Orin'"
    with pytest.raises(ToolkitError, match="measured with another model"):
        require_comparable(before, on_ort.device, on_ort.model, "f" * 64, load)
    with pytest.raises(ToolkitError, match="measured under another load") as refused:
        require_comparable(before, on_ort.device, on_ort.model, on_ort.weights_sha256, (2, 500.0, 4))
    assert refused.value.allowed == "2 callers, 500 calls a second, 4 threads of ONNX Runtime"
    names = list(on_ort.runners)
    require_same_runners(before, names, (1, 3))
    with pytest.raises(ToolkitError, match="another set of runners") as refused:
        require_same_runners(before, ["ort fp32", "trt int8"], (1, 3))
    assert "only there: ort int8-cpu at batch 1" in str(refused.value)
    assert "only here: trt int8 at batch 1" in str(refused.value)


@pytest.mark.slow
def test_a_comparison_with_a_saved_run_goes_through_the_whole_of_bench(on_ort: Benchmark, tmp_path: Path) -> None:
    path = tmp_path / "before.json"
    document = json.loads(json.dumps(on_ort.as_dict()))
    for row in document["latency"]:  # as if all of it had taken a hundredth of the time
        row["round_medians_ms"] = [value / 100 for value in row["round_medians_ms"]]
    write_json(path, document)
    found = toolkit.bench(
        BUNDLE, backends="ort", precisions="fp32,int8-cpu", batches=(1, 3), seconds=0.1, baseline=path
    )
    assert found.comparison is not None
    assert not found.comparison.ok
    assert {change.verdict for change in found.comparison.changes} == {SLOWER}
    assert found.comparison.machine is not None
    _valid(found)
    with pytest.raises(ToolkitError, match="compared with one thing"):
        toolkit.bench(BUNDLE, backends="ort", baseline=path, against=BUNDLE)


@pytest.mark.parametrize(
    "change",
    [{"schema": "toolkit/bench/2"}, {"latency": [{"runner": "ort fp32"}]}, {"settings": 3}, {"machine": None}],
)
def test_what_is_no_saved_run_is_refused(on_ort: Benchmark, tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "before.json"
    write_json(path, on_ort.as_dict() | change)
    with pytest.raises(ToolkitError, match=r"before\.json (is not a document of toolkit bench|lacks an entry)"):
        baseline_from_file(path)


@pytest.mark.parametrize(
    ("found", "machine", "verdict"),
    [
        (Ratio(1.05, 1.04, 1.06), 1.0, SLOWER),
        (Ratio(1.05, 1.04, 1.06), 1.02, MACHINE),
        (Ratio(1.05, 1.02, 1.08), 1.0, UNDECIDED),
        (Ratio(1.01, None, None), 1.0, UNDECIDED),
        (Ratio(1.02, 1.01, 1.05), 1.0, WITHIN),
        (Ratio(1.05, 1.04, 1.06), 0.9, SLOWER),  # a machine that became faster excuses nothing
    ],
)
def test_slower_is_said_only_where_noise_and_the_machine_do_not_explain_it(
    found: Ratio, machine: float, verdict: str
) -> None:
    assert verdict_of(found, 0.03, machine) == verdict


def _row(**changes: Any) -> Any:
    images = np.zeros((1, 2, 2, 1), np.uint8)
    (row,) = measure({"null": NullRunner(4)}, images, (1,), seconds=0.01)
    return dataclasses.replace(row, **({"stable": True} | changes))


def test_a_launch_bound_runner_is_named() -> None:
    from toolkit.timing.latency import PhaseTimes

    (found,) = warnings_of_rows([_row(phases=PhaseTimes(0.09, 0.01, 0.1, 0.01, 0.085))])
    assert found.kind == "launch-bound"
    assert "a CUDA graph" in found.text
    assert warnings_of_rows([_row(phases=PhaseTimes(0.09, 0.01, 0.1, 0.01, 0.075))]) == []


def test_an_unstable_runner_and_a_rate_not_held_are_named() -> None:
    rows = [_row(stable=False), _row(rate_hz=500.0, rate_reached_hz=321.0, rate_held=False)]
    assert [found.kind for found in warnings_of_rows(rows)] == ["unstable", "rate-not-held"]
    assert "500 calls a second cannot be held, 321.0 were reached" in warnings_of_rows(rows)[1].text


def test_a_host_that_is_not_fit_for_measuring_is_told_why() -> None:
    host = dataclasses.replace(host_conditions(), governor="powersave", cores=4)
    during = Disturbances(1.0, {"chrome (7)": 1.5}, 1.5, 0.1, 4)
    found = warnings_of_host(host, during)
    assert [warned.kind for warned in found] == ["governor", "busy-machine", "stolen-time", "cpu-quota"]
    assert "chrome (7) 1.5" in found[1].text
    calm = Disturbances(1.0, {}, 0.1, 0.0, None)
    assert warnings_of_host(dataclasses.replace(host, governor=None), calm) == []


def _gpu(slowed_by: list[str], processes: list[int], celsius: float = 50) -> GpuState:
    return GpuState("a GPU", 1000, 2000, 5000, celsius, 40, slowed_by, 900, processes, {})


def test_a_gpu_that_is_hot_limited_or_shared_is_told() -> None:
    hot = _gpu(["temperature (hardware)", "clocks set by an application"], [1], celsius=91)
    limited = _gpu(["power limit"], [1, 99], celsius=60)
    found = warnings_of_gpu([hot, limited], own=1)
    assert [warned.kind for warned in found] == ["throttled", "power-limited", "shared-gpu"]
    assert "temperature (hardware); 91 degrees" in found[0].text
    assert found[2].text == "another process is on the GPU: 99"
    jetson = JetsonState(
        "Orin", None, None, None, {"gpu-thermal": 97.0}, None, None, ["gpu-throttle-alert"], 0, {}
    )  # fmt: skip
    assert [warned.kind for warned in warnings_of_gpu([jetson], own=1)] == ["throttled"]


def test_in_a_container_one_unknown_process_may_be_this_one() -> None:
    assert warnings_of_gpu([_gpu([], [5001])], own=1) == []
    assert len(warnings_of_gpu([_gpu([], [5001, 5002])], own=1)) == 1


def test_a_machine_without_gpu_and_jetson_says_why_there_is_nothing(tmp_path: Path) -> None:
    state = MachineState(tmp_path, (None, "there is no NVML"))
    state.look()
    found = state.conditions()
    assert (found.gpu, found.jetson) == (None, None)
    assert found.absent == {"gpu": "there is no NVML", "jetson": "this is not a Jetson"}
    assert state.energy_mj(lambda: None, on_device=True) == (None, "no meter of power can be read here")


def test_a_runner_that_answers_slowly_because_it_waits_is_no_less_measured() -> None:
    class _Waits(NullRunner):
        def logits(self, images_nhwc: UInt8) -> Float32:
            import time

            time.sleep(0.002)
            return super().logits(images_nhwc)

    (row,) = measure({"a": _Waits(4)}, np.zeros((1, 2, 2, 1), np.uint8), (1,), seconds=0.1)
    assert row.min_ms >= 2
