"""Claims about the selftest: it compares something or fails, and records no noise."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.manifests import rehashed
from toolkit.contracts import Float32, UInt8
from toolkit.deployment import selftest as module
from toolkit.deployment.selftest import FAILED, OK, Check, selftest, why_not_settled
from toolkit.runtime.null import NullRunner
from toolkit.timing.latency import Latency, bench

SOURCE = Path(__file__).parents[1] / "bundle/format-1"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy that a test may write into."""
    return Path(shutil.copytree(SOURCE, tmp_path / "b"))


def checked(bundle: Path, **options: Any) -> dict[str, Check]:
    """Every check by what it looked at."""
    found = selftest(bundle, backends="ort", seconds=0.02, **options)
    return {check.what: check for check in found.checks}


def measuring(monkeypatch: pytest.MonkeyPatch, change: Callable[[Latency], Latency]) -> list[int]:
    """Changes every latency that is measured; returns how many runners each measurement had."""
    runs: list[int] = []

    def other(runners: dict[str, Any], *arguments: Any, **options: Any) -> list[Latency]:
        runs.append(len(runners))
        return [change(one) for one in bench(runners, *arguments, **options)]

    monkeypatch.setattr(module, "bench", other)
    return runs


def calm(latency: Latency) -> Latency:
    """As if nothing else ran."""
    return replace(latency, p50_ms=1.0, min_ms=0.9, converged=True, stable=True)


def test_a_bundle_without_golden_logits_fails_because_nothing_was_compared(bundle: Path) -> None:
    with np.load(bundle / "golden.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    np.savez(bundle / "golden.npz", **{name: arrays[name] for name in ("images", "labels")})
    found = checked(rehashed(bundle))
    compared = {name: check.verdict for name, check in found.items() if name.startswith("ort ")}
    assert len(compared) >= 3
    assert set(compared.values()) == {FAILED}
    assert "nothing to compare with" in found["ort fp32"].found


def test_a_machine_that_never_settles_is_measured_again_and_not_saved(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = measuring(monkeypatch, lambda one: replace(one, p50_ms=12 * one.min_ms))
    found = checked(bundle, save=True)
    assert len(runs) == module.MOST_TRIES
    assert found["speed of ort fp32"].verdict == FAILED
    assert "did not settle" in found["speed of ort fp32"].found
    assert not list(bundle.glob("selftest-*"))


def test_a_machine_that_settles_later_is_saved_as_it_was_then(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = itertools.count()
    runs = measuring(monkeypatch, lambda one: calm(one) if next(turns) > 6 else replace(one, p50_ms=50, min_ms=1))
    found = checked(bundle, save=True)
    assert found["speed"] == Check("speed", OK, "saved now")
    assert len(runs) > 1
    (path,) = bundle.glob("selftest-*")
    assert set(module._read_saved(path).p50_ms.values()) == {1.0}


def test_a_run_that_is_far_faster_than_what_was_saved_doubts_it(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measuring(monkeypatch, lambda one: replace(calm(one), p50_ms=34.0, min_ms=33.0))
    assert checked(bundle, save=True)["speed"].verdict == OK
    measuring(monkeypatch, lambda one: replace(calm(one), p50_ms=2.8))
    check = checked(bundle)["speed of ort fp32"]
    assert check.verdict == OK
    assert "far faster" in check.found
    assert "save=True" in check.fix


def test_a_runner_that_is_slow_half_of_the_time_is_not_settled() -> None:
    class Disturbed(NullRunner):
        turns = itertools.count()

        def logits(self, images_nhwc: UInt8) -> Float32:
            time.sleep(0.02 if next(self.turns) % 4 else 0.001)
            return super().logits(images_nhwc)

    (found,) = bench({"null": Disturbed(3)}, np.zeros((1, 4, 4, 3), np.uint8), (1,), seconds=0.5)
    assert "half of its calls" in why_not_settled(found)
    assert why_not_settled(calm(found)) == ""
    assert "10 %" in why_not_settled(replace(calm(found), converged=False, stable=False))
