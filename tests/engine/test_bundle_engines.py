"""Claims about engines in a bundle with full TensorRT, by stand-ins: DLA, timings, and what the manifest says."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.engine.standin import Trt
from toolkit.bundle.reading import Bundle, bundle_from_folder
from toolkit.engine import bundle_engines as building
from toolkit.engine import engine_from_onnx as room
from toolkit.engine import trials as repeating
from toolkit.engine.bundle_engines import build_engines
from toolkit.engine.trials import Trials
from toolkit.errors import BackendUnavailable, EngineError
from toolkit.exporting import writing
from toolkit.runtime.driver import Device, Driver
from toolkit.runtime.runner import ClosesItself
from toolkit.runtime.trt.module import described
from toolkit.target import Target

GPU = Driver(True, "", "12.6", (Device("Orin", "SM87", 7620),))
TARGET = Target("mine", "", ("tensorrt",), (4, 4, 4), dla_core=1)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A copy of the bundle of format 1."""
    shutil.copytree(Path(__file__).parents[1] / "bundle/format-1", tmp_path / "bundle")
    return bundle_from_folder(tmp_path / "bundle")


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Makes a stand-in the TensorRT of this machine."""

    def used(trt: Trt) -> None:
        monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
        for module in (building, room):
            monkeypatch.setattr(module, "probe_driver", lambda: GPU)
            monkeypatch.setattr(module, "find_tensorrt", lambda driver: described(trt, "tensorrt"))
        monkeypatch.setattr(repeating, "probe_driver", lambda: GPU)

    return used


@pytest.mark.parametrize(("version", "header"), [("8.6.1", b"TRT-8601-"), ("10.3", b"TRT-100300-")])
def test_the_ranges_of_the_bundle_reach_a_dla_under_the_header_of_the_version(
    bundle: Bundle, use: Any, version: str, header: bytes
) -> None:
    trt = Trt(version, cores=2)
    use(trt)
    built = build_engines(bundle, ("best",), TARGET)
    (entry,) = built.engines
    assert (entry["file"], entry["precision"], entry["dla_core"]) == ("engines/model.int8.dla1.engine", "int8", 1)
    assert trt.calibrated.startswith(header)
    assert trt.calibrated.splitlines()[1:] == (bundle.folder / "calib.cache").read_bytes().splitlines()[1:]
    assert "the GPU keeps 1: preprocess" in built.notes[0]
    assert bundle_from_folder(bundle.folder).engines()[-1] == entry


def test_an_export_with_tensorrt_8_leaves_out_the_file_that_it_misreads_and_says_so(bundle: Bundle, use: Any) -> None:
    use(Trt("8.6.1", layers={"Layers": ["conv1"]}))
    options: Any = SimpleNamespace(target=replace(TARGET, dla_core=None))
    entries, none, notes = writing._build_engines(
        bundle.folder, ("fp32", "int8", "int8-fp16"), options, lambda *at: None
    )
    assert ([entry["precision"] for entry in entries], none) == (["fp32", "int8"], "")
    assert "no engine of model.int8-fp16.onnx: tensorrt 8.6.1 reads its FP16 scales as float32" in notes[0]
    assert "model.onnx: the engine's layers are unknown: the engine inspector lists bare names" in notes[1]
    assert entries[0]["census_reason"] in notes[1]


def test_timings_go_to_the_users_cache_folder(bundle: Bundle, use: Any, tmp_path: Path) -> None:
    use(Trt("10.3"))
    build_engines(bundle, ("fp32",), replace(TARGET, dla_core=None))
    (file,) = (tmp_path / "cache/timing").iterdir()
    assert file.name == "tensorrt_10.3.0_SM87_Orin.cache"


@pytest.mark.parametrize("version", ["8.6.1", "10.3"])
def test_a_build_is_a_bar_where_there_is_a_monitor_and_spins_where_not(bundle: Bundle, use: Any, version: str) -> None:
    use(Trt(version))
    heard: list[tuple[int, int]] = []
    build_engines(bundle, ("fp32",), replace(TARGET, dla_core=None), lambda what, *step: heard.append(step))
    bar = [(0, 100), (0, 100), (50, 100), (100, 100), (100, 100)]
    assert heard == ([(0, 0), (100, 100)] if version == "8.6.1" else bar)


class Golden(ClosesItself):
    """Answers with the golden logits."""

    name, description = "trt", "golden"

    def __init__(self, bundle: Bundle) -> None:
        self.answers = bundle.golden()[1]["fp32"]

    def logits(self, images_nhwc: Any) -> Any:
        return np.resize(self.answers, (len(images_nhwc), self.answers.shape[1]))


def test_repeated_builds_share_no_timings_and_the_manifest_holds_the_one_that_was_kept(
    bundle: Bundle, use: Any, tmp_path: Path
) -> None:
    use(Trt("10.3"))
    trials = Trials(3, seconds=0.02, open_engine=lambda plan: Golden(bundle))
    built = build_engines(bundle, ("fp32",), replace(TARGET, dla_core=None), trials=trials)
    assert not (tmp_path / "cache").exists()
    assert "3 of 3 builds pass" in built.notes[-1]
    sidecar = json.loads((bundle.folder / "engines/model.engine.json").read_text())
    assert len(sidecar["trials"]) == 3
    bundle_from_folder(bundle.folder)  # hashes of what was moved into place


def test_a_target_that_names_another_gpu_or_a_dla_that_is_not_there_is_refused(bundle: Bundle, use: Any) -> None:
    use(Trt("10.16", cores=0))
    with pytest.raises(EngineError, match="for thor is built here") as caught:
        build_engines(bundle, ("fp16",), Target("thor", "", ("tensorrt",), (1, 4, 8), gpus=("SM110",)))
    assert "SM87 is here" in str(caught.value.found)
    with pytest.raises(EngineError, match="no engine for the DLA"):
        build_engines(bundle, ("int8",), TARGET)


def test_judging_needs_a_driver(bundle: Bundle, use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    use(Trt("10.3"))
    monkeypatch.setattr(repeating, "probe_driver", lambda: SimpleNamespace(available=False, reason="no driver"))
    with pytest.raises(BackendUnavailable, match="cannot run an engine here"):
        build_engines(bundle, ("fp32",), replace(TARGET, dla_core=None), trials=Trials())
