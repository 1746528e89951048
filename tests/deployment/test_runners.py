"""Claims about which runners a bundle has: files for each backend, and reasons for what is not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from toolkit.bundle.reading import Bundle, bundle_from_folder
from toolkit.deployment import openers
from toolkit.deployment.runners import BACKENDS, open_runners, require_backends
from toolkit.errors import BackendUnavailable, ToolkitError
from toolkit.lazy import requirement
from toolkit.runtime.driver import Device, Driver
from toolkit.runtime.null import NullRunner
from toolkit.runtime.ort.runner import CUDA, TENSORRT
from toolkit.runtime.runner_id import RunnerId

OLD_BUNDLE = Path(__file__).parents[1] / "bundle/format-1"
PRECISIONS = ("fp32", "int8", "int8-fp16", "int8-cpu")


@pytest.fixture
def bundle() -> Bundle:
    """A small bundle with every file but fp16."""
    return bundle_from_folder(OLD_BUNDLE)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """What is asked of ONNX Runtime, on a machine that says it has a GPU and all providers."""
    calls: list[dict[str, Any]] = []

    def runner(model: Path, **how: Any) -> NullRunner:
        calls.append({"file": model.name, **how})
        return NullRunner(classes=10)

    gpu = Driver(True, "", "12.6", (Device("Orin", "SM87", 7620),))
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, TENSORRT])
    monkeypatch.setattr("toolkit.runtime.ort.runner.probe_driver", lambda: gpu)
    monkeypatch.setattr("toolkit.runtime.ort.runner._load_libraries", lambda _: None)
    monkeypatch.setattr(openers, "probe_driver", lambda: gpu)
    monkeypatch.setattr("toolkit.runtime.ort.runner.OrtRunner", runner)
    return calls


def test_cuda_gets_every_file_that_a_gpu_runs_and_no_other(bundle: Bundle, asked: list[dict[str, Any]]) -> None:
    opened = open_runners(bundle, ("ort-cuda",), PRECISIONS)
    assert list(map(str, opened.runners)) == ["ort-cuda fp32", "ort-cuda int8", "ort-cuda int8-fp16"]
    assert [call["provider"] for call in asked] == [CUDA] * 3
    assert [call["optimize"] for call in asked] == [True, True, False]
    unasked = open_runners(bundle, ("ort-cuda",), PRECISIONS, by_name=False)
    assert list(map(str, unasked.runners)) == ["ort-cuda fp32", "ort-cuda int8"]


def test_tensorrt_gets_the_graphs_as_they_stand_with_the_targets_batches(
    bundle: Bundle, asked: list[dict[str, Any]], tmp_path: Path
) -> None:
    opened = open_runners(bundle, ("ort-trt",), PRECISIONS, by_name=False)
    assert list(map(str, opened.runners)) == ["ort-trt fp32", "ort-trt int8", "ort-trt int8-fp16"]
    assert {(call["provider"], call["optimize"], call["largest_batch"]) for call in asked} == {(TENSORRT, False, 64)}
    for call in asked:
        options = call["provider_options"]
        assert options["trt_profile_max_shapes"].startswith("images:64x")
        assert Path(options["trt_engine_cache_path"]).parent == tmp_path / "ort-trt"
    assert len({call["provider_options"]["trt_engine_cache_path"] for call in asked}) == 3


def test_what_is_not_here_is_named_once_each(bundle: Bundle) -> None:
    opened = open_runners(bundle, BACKENDS, PRECISIONS)
    opened.close()
    for backend in ("trt", "ort-cuda", "ort-trt"):
        if not any(name.backend == backend for name in opened.runners):
            assert len([name for name in opened.unavailable if name.backend == backend]) == 1
    assert RunnerId("ort", "int8-cpu") in opened.runners


def test_a_gpu_provider_alone_that_is_not_here_is_one_error(bundle: Bundle) -> None:
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has the CUDA provider")
    with pytest.raises(BackendUnavailable, match="no backend that was asked for") as caught:
        open_runners(bundle, ("ort-cuda",), PRECISIONS)
    assert f"pip install {requirement('gpu')}" in str(caught.value.found)


def test_backends_are_read_in_their_order_and_unknown_ones_refused() -> None:
    assert require_backends("ort-trt, ort,ort-trt") == ("ort-trt", "ort")
    assert require_backends("all") == BACKENDS
    assert require_backends("all", ("ort",)) == ("ort",)
    with pytest.raises(ToolkitError, match="unknown backend") as caught:
        require_backends("ort,cuda")
    assert caught.value.allowed == "all, torch, ort, trt, ort-cuda, ort-trt"
