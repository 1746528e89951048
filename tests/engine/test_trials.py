"""Claims about drawing engines: each is held against the golden vectors, and the fastest that passes stays."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.manifests import rehashed
from toolkit.bundle.reading import Bundle, bundle_from_folder
from toolkit.engine.engine_from_onnx import Engine
from toolkit.engine.failure import log_path
from toolkit.engine.trials import Trials, fastest_that_passes
from toolkit.errors import BackendUnavailable, EngineError
from toolkit.runtime import driver
from toolkit.runtime.runner import ClosesItself, Runner
from toolkit.runtime.trt.module import described
from toolkit.runtime.trt.preflight import sidecar_path

FORMAT_1 = Path(__file__).parents[1] / "bundle/format-1"


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A copy of the bundle of format 1."""
    shutil.copytree(FORMAT_1, tmp_path / "bundle")
    return bundle_from_folder(tmp_path / "bundle")


class Draw(ClosesItself):
    """A runner that answers with the golden logits, off by `error` times their size, in `seconds`."""

    name, description = "trt", "a draw"

    def __init__(self, bundle: Bundle, error: float, seconds: float) -> None:
        images, golden = bundle.golden()
        self.answers, self.seconds = golden["fp32"] * np.float32(1 + error), seconds
        self.count = len(images)

    def logits(self, images_nhwc: Any) -> Any:
        time.sleep(self.seconds)
        return np.resize(self.answers, (len(images_nhwc), self.answers.shape[1]))


def _drawn(bundle: Bundle, draws: list[tuple[float, float]]) -> Engine:
    """Builds as many engines as there are draws (error, seconds of a call), and keeps one."""
    built: list[Path] = []

    def build(destination: Path) -> Engine:
        built.append(destination)
        destination.parent.mkdir(parents=True)
        destination.write_bytes(f"plan {len(built) - 1}".encode())
        sidecar = {"build_seconds": 1.5, "profile": {"images": [[1, 8, 8, 3], [2, 8, 8, 3], [4, 8, 8, 3]]}}
        sidecar_path(destination).write_text(json.dumps(sidecar))
        log_path(destination).write_text("log")
        return Engine(destination, sidecar, None)

    def opened(plan: Path) -> Runner:
        return Draw(bundle, *draws[built.index(plan)])

    trials = Trials(len(draws), seconds=0.05, open_engine=opened)
    return fastest_that_passes(build, bundle.folder / "engines" / "model.engine", bundle, "fp32", trials)


def test_the_fastest_that_passes_is_kept_with_the_spread_of_all(bundle: Bundle) -> None:
    engine = _drawn(bundle, [(0.0, 0.004), (0.5, 0.0), (1e-4, 0.001)])
    assert engine.path.read_bytes() == b"plan 2"
    assert log_path(engine.path).read_text() == "log"
    sidecar = json.loads(sidecar_path(engine.path).read_text())
    assert sidecar == engine.sidecar
    assert sidecar["trials_kept"] == 2
    first, second, third = sidecar["trials"]
    assert first["reason"] == third["reason"] == ""
    assert third["p50_ms"] < first["p50_ms"]
    assert (first["build_seconds"], first["batch"]) == (1.5, 2)
    assert second["relative_l2"] == pytest.approx(0.5, rel=1e-3)
    assert second["p50_ms"] is None
    assert "relative L2 5.0e-01" in second["reason"]
    assert "2 of 3 builds pass" in engine.notes[0]
    assert sorted(path.name for path in engine.path.parent.iterdir()) == [
        "model.engine", "model.engine.json", "model.engine.log",
    ]  # fmt: skip


@pytest.mark.parametrize("error", [0.5, float("nan")])
def test_where_none_passes_none_is_left(bundle: Bundle, error: float) -> None:
    with pytest.raises(EngineError, match=r"none of 2 builds of model\.engine answers as its ONNX file does") as caught:
        _drawn(bundle, [(error, 0.0), (error, 0.0)])
    assert "build 2: " in str(caught.value.found)
    assert list((bundle.folder / "engines").iterdir()) == []


def test_a_precision_without_golden_logits_cannot_be_judged(bundle: Bundle) -> None:
    images, golden = bundle.golden()
    np.savez(bundle.folder / "golden.npz", images=images.images_nhwc, labels=images.labels, logits_x=golden["fp32"])
    bundle = bundle_from_folder(rehashed(bundle.folder))
    engine = Engine(bundle.folder / "x.engine", {"build_seconds": 1.0, "profile": {"i": [[1], [1], [1]]}}, None)
    trials = Trials(1, open_engine=lambda plan: Draw(bundle, 0.0, 0.0))
    with pytest.raises(EngineError, match="no golden logits of fp32"):
        fastest_that_passes(lambda destination: engine, bundle.folder / "x", bundle, "fp32", trials)


def test_judging_is_refused_before_building_where_no_engine_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    trt = described(SimpleNamespace(__version__="1.7.1", BuilderFlag=object()), "tensorrt-rtx")
    absent, present = driver.Driver(False, "there is no NVIDIA driver"), driver.Driver(True, "")
    monkeypatch.setattr("toolkit.engine.trials.probe_driver", lambda: absent)
    with pytest.raises(BackendUnavailable, match="cannot run an engine here") as caught:
        Trials(3).require_can_run(trt)
    assert caught.value.found == "there is no NVIDIA driver"
    with pytest.raises(EngineError, match="`repeats=` is out of range"):
        Trials(0).require_can_run(trt)
    monkeypatch.setattr("toolkit.engine.trials.probe_driver", lambda: present)
    Trials(3).require_can_run(trt)
