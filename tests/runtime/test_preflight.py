"""Claims about plans before they are loaded: cut short, changed, foreign, or of another version; one sentence each."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolkit.errors import BackendUnavailable, EngineError, ToolkitError
from toolkit.runtime.driver import Device, Driver
from toolkit.runtime.trt import preflight
from toolkit.runtime.trt.module import TensorRT
from toolkit.runtime.trt.preflight import (
    Plan,
    obstacle_to_running,
    plan_of_file,
    require_runs_here,
    sidecar_of_plan,
    sidecar_path,
    tensorrt_for_plan,
)

PLAN = bytes(range(256)) * 8
ORIN = Device("Orin", "SM87", 7600)
HERE = Driver(True, "", "12.6", (ORIN,))


def tensorrt(version: str, kind: str = "tensorrt") -> TensorRT:
    return TensorRT(SimpleNamespace(), kind, version, True, False)


def sidecar(**changes: Any) -> dict[str, Any]:
    return {
        "format": 1,
        "tensorrt": {"kind": "tensorrt", "version": "10.3.0"},
        "builder": {"device": "Orin", "compute_capability": "SM87", "machine": platform.machine()},
        "compute_capabilities": [],
        "onnx": {"file": "model.int8.onnx", "sha256": "0" * 64},
        "plan": {"sha256": hashlib.sha256(PLAN).hexdigest(), "bytes": len(PLAN)},
        "flags": ["TF32"],
        "profile": {},
        **changes,
    }


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "model.engine"
    path.write_bytes(PLAN)
    sidecar_path(path).write_text(json.dumps(sidecar()))
    return path


def test_a_whole_plan_gives_its_sidecar(plan: Path) -> None:
    assert sidecar_of_plan(plan) == sidecar()
    assert plan_of_file(plan) == Plan(plan, sidecar(), PLAN)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(at=st.integers(0, len(PLAN) - 1), bit=st.integers(0, 7))
def test_one_flipped_bit_anywhere_is_refused(plan: Path, at: int, bit: int) -> None:
    changed = bytearray(PLAN)
    changed[at] ^= 1 << bit
    plan.write_bytes(changed)
    with pytest.raises(EngineError, match="changed since it was built") as caught:
        sidecar_of_plan(plan)
    assert caught.value.fix == "copy it again, or `toolkit.build(BUNDLE)`"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(size=st.integers(0, len(PLAN) - 1))
def test_a_plan_that_was_cut_short_is_refused(plan: Path, size: int) -> None:
    plan.write_bytes(PLAN[:size])
    with pytest.raises(EngineError, match="cut short") as caught:
        sidecar_of_plan(plan, "toolkit build my-bundle")
    assert caught.value.fix == "copy it again, or toolkit build my-bundle"


@pytest.mark.parametrize("content", ["", "[]", "{", '{"format": 2}', '{"format": 1}'])
def test_a_sidecar_that_says_too_little_is_refused(plan: Path, content: str) -> None:
    sidecar_path(plan).write_text(content)
    with pytest.raises(EngineError):
        sidecar_of_plan(plan)


def test_what_a_sidecar_lacks_is_said_with_what_rebuilds_the_plan(plan: Path) -> None:
    document = sidecar()
    del document["flags"]
    sidecar_path(plan).write_text(json.dumps(document))
    for fix, words in (("rebuild it", ("rebuild it",)), ("`toolkit.build(BUNDLE)`", ())):
        with pytest.raises(EngineError, match="lacks an entry") as caught:
            sidecar_of_plan(plan, *words)
        assert caught.value.fix == fix
        assert str(sidecar_path(plan)) in caught.value.what


def test_a_place_where_no_plan_can_be_read_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(ToolkitError, match=r"cannot read .*x") as caught:
        plan_of_file(tmp_path / ("x" * 300))
    assert caught.value.found == "its name is too long"


def test_a_folder_is_no_plan_and_its_engines_are_named(tmp_path: Path) -> None:
    for found, names in (("no engines in it", ()), ("{0}/a.engine, {0}/b.engine", ("b.engine", "a.engine", "c.json"))):
        (tmp_path / "engines").mkdir(exist_ok=True)
        for name in names:
            (tmp_path / "engines" / name).touch()
        with pytest.raises(EngineError, match="is a folder, not an engine") as caught:
            plan_of_file(tmp_path)
        assert caught.value.found == found.format(tmp_path / "engines")
    with pytest.raises(EngineError, match="there is no engine") as caught:
        plan_of_file(tmp_path / "engines" / "x.engine")
    assert caught.value.fix == "`toolkit.build(BUNDLE)`"


@pytest.mark.parametrize("which", [lambda plan: plan, sidecar_path])
def test_a_pipe_is_no_plan_and_no_sidecar(plan: Path, which: Callable[[Path], Path]) -> None:
    which(plan).unlink()
    os.mkfifo(which(plan))
    with pytest.raises(EngineError):
        plan_of_file(plan)


def test_a_plan_alone_is_refused(plan: Path) -> None:
    sidecar_path(plan).unlink()
    with pytest.raises(EngineError, match="no sidecar"):
        sidecar_of_plan(plan)


def test_the_machine_that_built_it_may_run_it() -> None:
    assert obstacle_to_running(sidecar(), tensorrt("10.3.0"), HERE) == ""


@pytest.mark.parametrize(
    ("changes", "version", "driver", "words"),
    [
        ({}, "10.3.1", HERE, "do not outlive an upgrade"),
        ({}, "10.16.2", HERE, "do not outlive an upgrade"),
        ({}, "10.3.0", Driver(True, "", "12.6", (Device("B", "SM90", 1),)), "built for Orin (SM87), and B (SM90)"),
        ({}, "10.3.0", Driver(True, "", "12.6", (Device("Orin NX", "SM87", 1),)), "built for Orin (SM87)"),
        ({}, "10.3.0", Driver(False, "there is no NVIDIA driver"), "there is no NVIDIA driver"),
        (
            {"builder": {"device": "Orin", "compute_capability": "SM87", "machine": "vax"}}, "10.3.0", HERE,
            "built on vax",
        ),
        ({"tensorrt": {"kind": "tensorrt-rtx", "version": "10.3.0"}}, "10.3.0", HERE, "tensorrt-rtx 10.3.0 built it"),
    ],
)  # fmt: skip
def test_a_foreign_plan_says_what_differs(changes: dict[str, Any], version: str, driver: Driver, words: str) -> None:
    assert words in obstacle_to_running(sidecar(**changes), tensorrt(version), driver)


@pytest.mark.parametrize(
    ("built", "here", "fits"),
    [
        ("8.6.1", "8.6.2", True),
        ("8.6.1", "10.3.0", True),
        ("10.3.0", "11.4.0", True),
        ("8.6.1", "11.4.0", False),
        ("10.3.0", "10.1.0", False),
        ("11.4.0", "10.16.2", False),
        ("10.3.0.30", "10.3.0.26", True),  # a build of the same version
    ],
)
def test_version_compatible_plans_go_forward_over_one_major_number(built: str, here: str, fits: bool) -> None:
    compatible = sidecar(flags=["VERSION_COMPATIBLE"], tensorrt={"kind": "tensorrt", "version": built})
    for kind in ("tensorrt", "lean", "dispatch"):
        assert (obstacle_to_running(compatible, tensorrt(here, kind), HERE) == "") == fits
    plain = sidecar(tensorrt={"kind": "tensorrt", "version": built})
    assert obstacle_to_running(plain, tensorrt(here), HERE)
    assert obstacle_to_running(plain, tensorrt(built, "lean"), HERE)


def test_an_rtx_plan_serves_the_capabilities_that_it_was_built_for() -> None:
    rtx = {"tensorrt": {"kind": "tensorrt-rtx", "version": "1.7.1"}}
    card = Driver(True, "", "13.0", (Device("RTX 4090", "SM89", 1),))
    here = tensorrt("1.7.1", "tensorrt-rtx")
    assert obstacle_to_running(sidecar(**rtx), here, card) == ""
    assert obstacle_to_running(sidecar(**rtx, compute_capabilities=["SM89"]), here, card) == ""
    for_others = obstacle_to_running(sidecar(**rtx, compute_capabilities=["SM86", "SM120"]), here, card)
    assert for_others == "it was built for SM86, SM120, and RTX 4090 is SM89"
    assert "Orin is SM87" in obstacle_to_running(sidecar(**rtx), here, HERE)


def test_the_error_says_what_rebuilds_it(plan: Path) -> None:
    with pytest.raises(EngineError, match="not for this machine") as found:
        require_runs_here(plan, sidecar(), tensorrt("10.16.2"), HERE, "toolkit build my-bundle")
    assert found.value.fix == "toolkit build my-bundle"
    with pytest.raises(BackendUnavailable):
        require_runs_here(plan, sidecar(), tensorrt("10.3.0"), Driver(False, "no driver"), "")
    require_runs_here(plan, sidecar(), tensorrt("10.3.0"), HERE, "")


def test_of_several_tensorrts_the_one_that_the_plan_is_for_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    full, rtx, lean = tensorrt("8.6.1"), tensorrt("1.7.1", "tensorrt-rtx"), tensorrt("11.4.0", "lean")
    monkeypatch.setattr(preflight, "installed_tensorrts", lambda: [full, rtx, lean])
    monkeypatch.setattr(preflight, "find_tensorrt", lambda driver: full if driver is HERE else rtx)
    for_rtx = sidecar(tensorrt={"kind": "tensorrt-rtx", "version": "1.7.1"}, compute_capabilities=["SM87"])
    assert tensorrt_for_plan(for_rtx, HERE) is rtx
    assert tensorrt_for_plan(sidecar(flags=["VERSION_COMPATIBLE"]), HERE) is lean
    assert tensorrt_for_plan(sidecar(), HERE) is full  # none is; what goes furthest names the obstacle


def test_a_hardware_compatible_plan_goes_to_other_gpus_from_ampere_on() -> None:
    plan = sidecar(compatible="hardware")
    for capability, fits in (("SM75", False), ("SM80", True), ("SM120", True)):
        here = Driver(True, "", "13.0", (Device("B", capability, 1),))
        assert (obstacle_to_running(plan, tensorrt("10.3.0"), here) == "") == fits
    assert obstacle_to_running(plan, tensorrt("10.3.1"), HERE)


class Untouchable:
    """A TensorRT module that nobody may touch."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} of TensorRT was touched")


def _refusal(plan: Path) -> tuple[str, float]:
    """Sentence and best seconds of three refusals, by the whole pre-flight."""
    best, here = 1e9, TensorRT(Untouchable(), "tensorrt", "10.3.0", True, False)
    for _ in range(3):
        started = time.perf_counter()
        with pytest.raises(EngineError) as caught:
            require_runs_here(plan, sidecar_of_plan(plan), here, HERE, "rebuild")
        best = min(best, time.perf_counter() - started)
    return caught.value.what, best


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("flipped", "changed since it was built"),
        ("cut", "was cut short"),
        ("replaced", "was cut short or replaced"),
        ("older", "is not for this machine"),
        ("other gpu", "is not for this machine"),
        ("rtx", "is not for this machine"),
        ("sidecar", "lacks an entry"),
    ],
)
def test_a_plan_that_is_not_this_machines_is_refused_at_once_without_tensorrt(
    fault: str, said: str, tmp_path: Path
) -> None:
    content = bytearray(b"\x5a" * (4 << 20))  # larger than any engine of a shipped model
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    changes: dict[str, dict[str, Any]] = {
        "older": {"tensorrt": {"kind": "tensorrt", "version": "8.6.2"}},
        "other gpu": {"builder": {"device": "B", "compute_capability": "SM90", "machine": platform.machine()}},
        "rtx": {"tensorrt": {"kind": "tensorrt-rtx", "version": "1.7.1"}},
    }
    document = sidecar(plan=entry, **changes.get(fault, {}))
    if fault == "sidecar":
        del document["flags"]
    content[1 << 20] ^= fault == "flipped"
    path = tmp_path / "model.engine"
    path.write_bytes(bytes({"cut": content[:-1], "replaced": b"ONNX"}.get(fault, content)))
    sidecar_path(path).write_text(json.dumps(document))
    sentence, seconds = _refusal(path)
    assert said in sentence
    assert "\n" not in sentence
    assert seconds < 0.1
