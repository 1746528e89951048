"""Claims about a bundle whose engines run: what answers, what is named where there is none, and the golden vectors."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import toolkit
from tests.manifests import rehashed
from tests.runtime import standin_tensorrt
from tests.runtime.cuda.inside.conftest import TINY, OnDevice, Stub, sidecar
from toolkit.bundle.manifest import VARIANTS
from toolkit.bundle.reading import bundle_from_folder
from toolkit.deployment.runners import open_runners
from toolkit.deployment.selftest import selftest
from toolkit.errors import BackendUnavailable, DataError, EngineError, ToolkitError
from toolkit.runtime.runner_id import RunnerId


@pytest.fixture(autouse=True)
def _on_the_standin(tensorrt: Callable[..., Any]) -> None:
    tensorrt()


def bundle_with_engines(folder: Path, *precisions: str, of: str | None = None) -> Path:
    """The tiny bundle with an engine of each precision; `of` puts another file's model into all of them."""
    shutil.copytree(TINY, folder)
    (folder / "engines").mkdir()
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["engines"] = []
    for precision in precisions:
        onnx = (folder / VARIANTS[of or precision].file).read_bytes()
        data = standin_tensorrt.plan_from_onnx(onnx, largest=64)
        name = f"engines/{VARIANTS[precision].engine_file}"
        for file, content in ((name, data), (f"{name}.json", json.dumps(sidecar(data, "10.3.0")).encode())):
            (folder / file).write_bytes(content)
            manifest["files"][file] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        manifest["engines"].append({"file": name, "precision": precision})
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_a_net_is_answered_by_the_best_engine_that_was_built(tmp_path: Path, images: Any, stub: Stub) -> None:
    folder = bundle_with_engines(tmp_path / "b", "fp32", "int8")
    with toolkit.load(folder) as net, toolkit.load(folder, backend="ort", precision="int8") as reference:
        assert (net.backend, net.precision, net.passed_over) == ("trt", "int8", {})
        assert np.allclose(net.logits(images), reference.logits(images), atol=1e-5)
        assert net.classify(images[0]).labels == reference.classify(images[0]).labels
        assert "model.int8.engine" in net.description


def test_a_net_reads_device_memory_through_tensorrt_and_onnx_runtime_says_no(
    tmp_path: Path, images: Any, expected: Any, stub: Stub
) -> None:
    folder = bundle_with_engines(tmp_path / "b", "fp32")
    with toolkit.load(folder) as net:
        for given, rows in ((OnDevice(stub, images), expected), (OnDevice(stub, images[0]), expected[:1])):
            assert np.allclose(net.logits(given), rows, atol=1e-5)
    with toolkit.load(folder, backend="ort") as net, pytest.raises(DataError, match="lie on a GPU"):
        net.logits(OnDevice(stub, images))


def test_an_engine_of_another_precision_is_never_taken(tmp_path: Path, stub: Stub) -> None:
    bundle = bundle_from_folder(bundle_with_engines(tmp_path / "b", "int8-fp16"))
    with pytest.raises(BackendUnavailable, match="has no int8 engine") as caught:
        toolkit.load(bundle.folder, backend="trt", precision="int8")
    assert caught.value.found == "int8-fp16"
    opened = open_runners(bundle, ("ort", "trt"), ("fp32", "int8-fp16"))
    assert {str(name) for name in opened.runners} == {"ort fp32", "ort int8-fp16", "trt int8-fp16"}
    assert "toolkit.build" in opened.unavailable[RunnerId("trt", "fp32")]
    opened.close()


def test_a_bundle_without_engines_says_what_builds_them(tmp_path: Path) -> None:
    folder = bundle_with_engines(tmp_path / "b")
    with pytest.raises(BackendUnavailable) as caught:
        toolkit.load(folder, backend="trt", precision="fp32")
    assert caught.value.fix == f"`toolkit.build({str(folder)!r}, precisions='fp32')`"
    with toolkit.load(folder) as net:
        assert net.backend == "ort"
        assert "engine" in net.passed_over["trt"]


def test_a_foreign_engine_is_an_error_and_not_passed_over(tmp_path: Path) -> None:
    folder = bundle_with_engines(tmp_path / "b", "fp32")
    path = folder / "engines" / "model.engine.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"tensorrt": {"kind": "tensorrt", "version": "10.16.1"}}))
    rehashed(folder)
    with pytest.raises(EngineError, match="not for this machine") as caught:
        toolkit.load(folder)
    assert caught.value.fix == f"`toolkit.build({str(folder)!r}, precisions='fp32')`"
    assert standin_tensorrt.constructed == []


def test_a_tensorrt_that_cannot_start_cuda_is_passed_over_with_its_words_and_the_cure(
    tmp_path: Path, images: Any, stub: Stub, tensorrt: Callable[..., Any]
) -> None:
    tensorrt(cuda_fails=35)
    folder = bundle_with_engines(tmp_path / "b", "fp32")
    for _ in range(2):  # asked once, remembered
        with toolkit.load(folder) as net:
            assert net.backend == "ort"
            said = net.passed_over["trt"]
    assert "CUDA initialization failure with error: 35" in said
    assert "the driver speaks CUDA 13.0" in said
    assert "update the NVIDIA driver" in said
    with pytest.raises(BackendUnavailable, match="cannot start CUDA here"):
        toolkit.load(folder, backend="trt")
    assert standin_tensorrt.constructed == ["10.3.0"]


def test_a_net_is_warmed_up_for_threads_and_sizes(tmp_path: Path, images: Any, expected: Any, stub: Stub) -> None:
    folder = bundle_with_engines(tmp_path / "b", "fp32")
    with toolkit.load(folder, wait="spin") as net, toolkit.load(folder, backend="ort", precision="fp32") as other:
        assert "wait spin" in net.description
        for one in (net, other):
            one.warm_up((1, 8), streams=2)
            assert np.allclose(one.logits(images[:8]), expected[:8], atol=1e-5)
            with pytest.raises(ToolkitError, match="nothing to warm up for"):
                one.warm_up((0,))
    with pytest.raises(ToolkitError, match="closed"):
        net.warm_up()
    assert stub.library.cuDevicePrimaryCtxSetFlags_v2(0, 0) == 0


def test_bench_times_the_layers_of_an_engine_and_of_onnx_runtime(tmp_path: Path, stub: Stub) -> None:
    folder = bundle_with_engines(tmp_path / "b", "fp32")
    asked = {"precisions": "fp32", "batches": (2,), "iterations": 20, "warmup_s": 0}
    found = toolkit.bench(folder, backends="trt,ort", dump_profile=True, ort_threads=1, **asked)  # type: ignore[arg-type]
    engine, onnx = found.profiles or ()
    assert (engine.runner, engine.batch, engine.sum_ms) == ("trt fp32", 2, 2.0)
    assert [(layer.name, layer.part) for layer in engine.layers[:1]] == [("stem/conv + stem/relu", 0.5)]
    assert onnx.runner == "ort fp32"
    assert "Gemm" in {layer.kind for layer in onnx.layers}
    assert [row.calls for row in found.latency] == [20, 20]
    assert toolkit.bench(folder, backends="ort", **asked).profiles is None  # type: ignore[arg-type]


def test_golden_vectors_go_through_the_engines(tmp_path: Path, stub: Stub) -> None:
    folder = bundle_with_engines(tmp_path / "a", "fp32", "int8")
    checks = {c.what: c for c in selftest(folder, backends="trt").checks}
    assert (checks["trt fp32"].verdict, checks["trt int8"].verdict) == ("ok", "ok")
    assert checks["engines/model.engine"].verdict == "ok"
    assert "trt int8-fp16" not in checks  # one TensorRT builds int8 or int8-fp16, and nobody asked for both


def test_an_engine_of_another_model_fails_the_golden_vectors(tmp_path: Path, stub: Stub) -> None:
    folder = bundle_with_engines(tmp_path / "b", "fp32", of="int8")
    (check,) = [c for c in selftest(folder, backends="trt").checks if c.what == "trt fp32"]
    assert check.verdict == "failed"
    assert "allowed" in check.found
