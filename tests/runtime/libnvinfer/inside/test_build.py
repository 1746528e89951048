"""Claims about builds with NVIDIA's real bindings: parser, layers, timing cache, progress."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.runtime.cuda.inside.conftest import TINY
from tests.runtime.libnvinfer.inside.conftest import RTX, VERSION, Stub
from toolkit.engine.engine_from_onnx import Engine, engine_from_onnx
from toolkit.engine.failure import log_path
from toolkit.errors import EngineError
from toolkit.runtime.trt.module import Log, TensorRT

Build = Callable[..., Engine]


def test_a_plan_and_its_sidecar_say_what_was_built(build: Build, tensorrt: TensorRT, stub: Stub) -> None:
    engine = build()
    sidecar = engine.sidecar
    assert sidecar["tensorrt"] == {"kind": tensorrt.kind, "version": tensorrt.version}
    assert sidecar["builder"]["device"] == "Stand-in 0"
    assert sidecar["profile"] == {"images": [[n, 16, 16, 3] for n in (1, 4, 8)]}
    assert sidecar["inputs"] == [{"name": "images", "dtype": "uint8", "shape": [-1, 16, 16, 3]}]
    assert sidecar["outputs"] == [{"name": "logits", "dtype": "float32", "shape": [-1, 3]}]
    assert "Opset version:    17" in log_path(engine.path).read_text()
    assert stub.alive() == {}


@pytest.mark.skipif(RTX, reason="TensorRT-RTX lists its layers in the log")
def test_the_inspectors_text_holds_raw_control_characters(build: Build, tensorrt: TensorRT, stub: Stub) -> None:
    trt = tensorrt.module
    engine = trt.Runtime(Log(trt).logger).deserialize_cuda_engine(build().path.read_bytes())
    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    assert "]\x1e[ONNX Layer: " in text
    with pytest.raises(json.JSONDecodeError, match="control character"):
        json.loads(text)
    names = [layer["Name"] for layer in json.loads(text, strict=False)["Layers"]]
    assert "stem.0/Conv + stem.2/Relu" in names


def test_the_layers_of_an_int8_engine_are_counted(build: Build, stub: Stub) -> None:
    engine = build("model.int8.onnx")
    assert engine.layer_report is not None, engine.sidecar["census_reason"]
    assert engine.layer_report.convolutions() == engine.layer_report.convolutions("Int8") > 0
    assert ("stem.0/Conv", "stem.2/Relu") in [nodes for _, nodes in engine.layer_report.fused]


@pytest.mark.skipif(RTX, reason="TensorRT-RTX keeps no timings")
def test_a_second_build_takes_its_timings_from_the_cache(build: Build, tmp_path: Path, stub: Stub) -> None:
    cache = tmp_path / "timings"
    logs = [log_path(build(name=f"{n}.engine", timing_cache=cache).path).read_text() for n in range(2)]
    assert ["Timed every kernel" in log for log in logs] == [True, False]
    assert "Took every timing from the timing cache" in logs[1]
    for file in cache.glob("*.cache"):
        file.write_bytes(b"standin-timings 1.2.3\n" + file.read_bytes())
    engine = build(name="3.engine", timing_cache=cache)
    assert any("not of this TensorRT and device" in note for note in engine.notes)
    assert "Timed every kernel" in log_path(engine.path).read_text()


@pytest.mark.skipif(VERSION == "8.6", reason="8.6 has no progress monitor")
def test_progress_is_told_and_a_build_can_be_stopped(build: Build, stub: Stub) -> None:
    seen: list[tuple[str, int, int]] = []
    build(on_progress=lambda *step: seen.append(step))
    assert seen == [("Building Engine", done, 4) for done in (0, 1, 2, 3, 4, 4)]

    class Stopped(Exception):
        pass

    def stop(phase: str, done: int, steps: int) -> None:
        if done == 2:
            raise Stopped

    with pytest.raises(Stopped):
        build(name="stopped.engine", on_progress=stop)


def test_a_node_that_tensorrt_lacks_is_named(tmp_path: Path, stub: Stub) -> None:
    import onnx

    model = onnx.load(str(TINY / "model.onnx"))
    model.graph.node[3].domain = "com.example"
    onnx.save(model, str(tmp_path / "foreign.onnx"))
    with pytest.raises(EngineError) as caught:
        engine_from_onnx(tmp_path / "foreign.onnx", tmp_path / "foreign.engine")
    assert "No importer registered for op: Add" in (caught.value.found or "")
    assert VERSION == "8.6" or "preprocess/Add" in (caught.value.found or "")


def test_bytes_that_are_no_onnx_are_refused(tmp_path: Path, stub: Stub) -> None:
    (tmp_path / "text.onnx").write_text("this is no model")
    with pytest.raises(EngineError, match=r"text\.onnx"):
        engine_from_onnx(tmp_path / "text.onnx", tmp_path / "text.engine")
