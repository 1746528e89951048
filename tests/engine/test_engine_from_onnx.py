"""Claims about engine building, by real TensorRT-RTX builds on the CPU."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.bundle.manifest import VARIANTS
from toolkit.engine import engine_from_onnx as room
from toolkit.engine.build import BuildSettings
from toolkit.engine.engine_from_onnx import engine_from_onnx
from toolkit.errors import EngineError, ToolkitError
from toolkit.runtime.trt.preflight import sidecar_path

onnx = pytest.importorskip("onnx", reason="the graphs are made with onnx.helper")

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx_bindings") is None, reason="TensorRT-RTX is not installed"
)


def _net(precision: str = "fp32", height: int | str = 8, batch: int | str = "batch") -> Any:
    """A small net of the form that the toolkit exports: uint8 NHWC in, two convolutions, float32 logits out."""
    helper, numpy_helper, kinds = onnx.helper, onnx.numpy_helper, onnx.TensorProto
    real = np.float16 if VARIANTS[precision].half else np.float32
    rng = np.random.default_rng(0)
    values: dict[str, Any] = {
        "scale": np.full((1, 3, 1, 1), 1 / 64, real),
        "shift": np.full((1, 3, 1, 1), -2, real),
        "w1": (rng.standard_normal((16, 3, 3, 3)) * 0.2).astype(real),
        "w2": (rng.standard_normal((16, 16, 3, 3)) * 0.1).astype(real),
        "wf": (rng.standard_normal((4, 16)) * 0.2).astype(real),
    }
    nodes: list[Any] = []

    def node(op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def quantized(tensor: str, axis: int | None = None) -> str:
        """Q/DQ around a tensor, as TensorRT fuses it: rank-0 scales for activations, axis 0 for weights."""
        if VARIANTS[precision].precision != "int8":
            return tensor
        scale = np.array(0.05, real) if axis is None else np.full(len(values[tensor]), 0.01, real)
        values[f"{tensor}_s"], values[f"{tensor}_z"] = scale, np.zeros(scale.shape, np.int8)
        extra = {} if axis is None else {"axis": axis}
        node("QuantizeLinear", [tensor, f"{tensor}_s", f"{tensor}_z"], f"{tensor}_q", **extra)
        return node("DequantizeLinear", [f"{tensor}_q", f"{tensor}_s", f"{tensor}_z"], f"{tensor}_dq", **extra)

    x = node("Cast", ["images"], "cast", to=kinds.FLOAT if real is np.float32 else kinds.FLOAT16)
    x = node(
        "Add", [node("Mul", [node("Transpose", [x], "nchw", perm=[0, 3, 1, 2]), "scale"], "scaled"), "shift"], "normal"
    )
    for i in (1, 2):
        x = node("Conv", [quantized(x), quantized(f"w{i}", 0)], f"conv{i}", pads=[1, 1, 1, 1])
        x = node("Relu", [x], f"relu{i}")
    x = node("Flatten", [node("GlobalAveragePool", [x], "pool")], "flat")
    x = node("Gemm", [x, "wf"], "logits" if real is np.float32 else "half_logits", transB=1)
    if real is np.float16:
        node("Cast", [x], "logits", to=kinds.FLOAT)
    graph = helper.make_graph(
        nodes,
        precision,
        [helper.make_tensor_value_info("images", kinds.UINT8, [batch, height, 8, 3])],
        [helper.make_tensor_value_info("logits", kinds.FLOAT, [batch, 4])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    opset = 17 if real is np.float32 else 19  # float16 scales need opset 19
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.checker.check_model(model)
    return model


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The float32 net on disk, in a folder of its own."""
    path = tmp_path / "in" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(_net().SerializeToString())
    return path


@pytest.fixture
def plan(tmp_path: Path) -> Iterator[Path]:
    """Where an engine goes; afterwards no temporary file may lie there."""
    path = tmp_path / "out" / "model.plan"
    yield path
    left = {entry.name for entry in path.parent.iterdir()} if path.parent.is_dir() else set()
    assert left in (set(), {f"{path.name}.log"}, {path.name, f"{path.name}.json", f"{path.name}.log"})


def _saved(file: Path, model: Any) -> Path:
    file.write_bytes(model.SerializeToString())
    return file


def _refused(file: Path, plan: Path, **arguments: Any) -> ToolkitError:
    with pytest.raises(ToolkitError) as caught:
        engine_from_onnx(file, plan, **arguments)
    assert not plan.exists()
    assert not sidecar_path(plan).exists()
    return caught.value


@needs_rtx
@pytest.mark.parametrize(
    ("precision", "reads"), [("fp32", "Float"), ("fp16", "Half"), ("int8", "Int8"), ("int8-fp16", "Int8")]
)
def test_convolutions_run_in_the_precision_of_the_file(file: Path, plan: Path, precision: str, reads: str) -> None:
    engine = engine_from_onnx(_saved(file, _net(precision)), plan)
    assert engine.layer_report is not None
    assert engine.layer_report.convolutions() == engine.layer_report.convolutions(reads) == 2
    assert engine.sidecar["census"]["convolutions_reading"][reads] == 2


@needs_rtx
def test_the_sidecar_says_what_the_plan_is(file: Path, plan: Path) -> None:
    engine = engine_from_onnx(
        file, plan, batch=(1, 4, 32), settings=BuildSettings(compute_capabilities=("SM86", "SM89"), workspace_mib=64)
    )
    sidecar = json.loads(sidecar_path(plan).read_text())
    assert sidecar == engine.sidecar
    assert sidecar["format"] == 1
    assert sidecar["tensorrt"]["kind"] == "tensorrt-rtx"
    assert sidecar["builder"]["note"].startswith("portable")
    assert sidecar["compute_capabilities"] == ["SM86", "SM89"]
    assert sidecar["flags"] == ["TF32"]
    assert sidecar["onnx"] == {"file": "model.onnx", "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    assert sidecar["plan"] == {"sha256": hashlib.sha256(plan.read_bytes()).hexdigest(), "bytes": plan.stat().st_size}
    assert sidecar["profile"] == {"images": [[1, 8, 8, 3], [4, 8, 8, 3], [32, 8, 8, 3]]}
    assert sidecar["inputs"] == [{"name": "images", "dtype": "uint8", "shape": [-1, 8, 8, 3]}]
    assert sidecar["outputs"] == [{"name": "logits", "dtype": "float32", "shape": [-1, 4]}]
    assert sidecar["build_seconds"] > 0
    assert sidecar["census_reason"] is None


@needs_rtx
def test_a_fixed_batch_needs_no_range(file: Path, plan: Path) -> None:
    engine = engine_from_onnx(_saved(file, _net(batch=2)), plan)
    assert engine.sidecar["profile"] == {"images": [[2, 8, 8, 3]] * 3}


@needs_rtx
def test_weights_in_an_external_file_are_read(file: Path, plan: Path) -> None:
    onnx.save_model(_net(), file, save_as_external_data=True, location="weights.bin", size_threshold=0)
    layer_report = engine_from_onnx(file, plan).layer_report
    assert layer_report is not None
    assert layer_report.convolutions("Float") == 2


@pytest.mark.slow
@needs_rtx
def test_a_second_build_replaces_the_first_and_has_its_own_log(file: Path, plan: Path) -> None:
    first = engine_from_onnx(file, plan)
    second = engine_from_onnx(_saved(file, _net("int8")), plan)
    assert first.layer_report is not None
    assert second.layer_report is not None
    assert (first.layer_report.convolutions("Int8"), second.layer_report.convolutions("Int8")) == (0, 2)
    assert second.sidecar["plan"]["bytes"] == plan.stat().st_size


@needs_rtx
def test_progress_names_phases_and_never_passes_the_end(file: Path, plan: Path) -> None:
    heard: list[tuple[str, int, int]] = []
    engine_from_onnx(file, plan, on_progress=lambda *step: heard.append(step))
    assert heard[0][0] == "Building engine"
    assert ("Building engine", heard[0][2], heard[0][2]) in heard
    assert all(0 <= done <= steps for _, done, steps in heard)


@needs_rtx
def test_ctrl_c_ends_the_build_and_leaves_nothing(file: Path, plan: Path) -> None:
    interrupted: list[str] = []

    def interrupt(phase: str, done: int, steps: int) -> None:
        if not interrupted:
            os.kill(os.getpid(), signal.SIGINT)
            interrupted.append(phase)

    with pytest.raises(KeyboardInterrupt):
        engine_from_onnx(file, plan, on_progress=interrupt)
    assert not plan.parent.exists()


@needs_rtx
def test_a_failing_progress_function_fails_the_build_with_its_own_error(file: Path, plan: Path) -> None:
    def fail(phase: str, done: int, steps: int) -> None:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        engine_from_onnx(file, plan, on_progress=fail)
    assert not plan.parent.exists()


@needs_rtx
def test_a_truncated_file_is_refused_with_the_parsers_words(file: Path, plan: Path) -> None:
    file.write_bytes(file.read_bytes()[:-200])
    error = _refused(file, plan)
    assert "Failed to parse the ONNX model" in str(error.found)
    assert "export it again" in str(error.fix)


@needs_rtx
@pytest.mark.parametrize("data", [b"this is no ONNX file at all, " * 20, b"PK\x03\x04" * 50, b"\0" * 100])
def test_a_file_that_is_not_onnx_is_refused(file: Path, plan: Path, data: bytes) -> None:
    file.write_bytes(data)
    assert isinstance(_refused(file, plan), EngineError)


def test_an_empty_file_is_refused(file: Path, plan: Path) -> None:
    file.write_bytes(b"")
    assert _refused(file, plan).found == "0 bytes"


def test_a_missing_file_is_refused(tmp_path: Path, plan: Path) -> None:
    assert _refused(tmp_path / "none.onnx", plan).found == "it does not exist"


def test_an_engine_never_overwrites_its_model(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(EngineError, match="would overwrite its ONNX file"):
        engine_from_onnx(file, file)
    assert file.read_bytes() == before


@needs_rtx
def test_an_unknown_operator_is_refused_by_its_nodes_name(file: Path, plan: Path) -> None:
    model = _net()
    next(node for node in model.graph.node if node.name == "conv2").op_type = "Konv"
    error = _refused(_saved(file, model), plan)
    assert "conv2" in str(error.found)
    assert "Konv" in str(error.found)
    assert "no such operator" in error.what


@needs_rtx
def test_a_failed_build_gives_tensorrts_words_and_a_cure(file: Path, plan: Path) -> None:
    error = _refused(file, plan, settings=BuildSettings(compute_capabilities=("SM75",)))
    assert "FP32 GEMM is not supported" in str(error.found)
    assert "SM75" in str(error.fix)


@needs_rtx
@pytest.mark.parametrize("names", [("SM87",), ("NONE",), ("SM86", "SM90"), ("SM86", "SM86"), ("sm86",)])
def test_an_unknown_compute_capability_is_refused_with_the_allowed_ones(
    file: Path, plan: Path, names: tuple[str, ...]
) -> None:
    error = _refused(file, plan, settings=BuildSettings(compute_capabilities=names))
    assert "SM86, SM89, SM120" in str(error.allowed)
    assert "NONE" not in str(error.allowed)


@pytest.mark.parametrize("batch", [(4, 2, 8), (1, 8, 4), (0, 1, 2), (-1, 1, 1), (1, 2)])
def test_a_batch_range_that_is_none_is_refused(file: Path, plan: Path, batch: Any) -> None:
    assert "1 <= min <= opt <= max" in str(_refused(file, plan, batch=batch).allowed)


def test_a_workspace_of_nothing_is_refused(file: Path, plan: Path) -> None:
    assert "at least 1 MiB" in str(_refused(file, plan, settings=BuildSettings(workspace_mib=0)).allowed)


@needs_rtx
def test_an_input_with_an_open_height_is_refused(file: Path, plan: Path) -> None:
    assert _refused(_saved(file, _net(height="h")), plan).found == "[-1, -1, 8, 3]"


@needs_rtx
def test_a_plan_whose_sidecar_cannot_be_written_is_taken_back(
    file: Path, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, document: Any) -> None:
        raise ToolkitError("the disk is full")

    monkeypatch.setattr(room, "write_json", full)
    with pytest.raises(ToolkitError, match="disk is full"):
        engine_from_onnx(file, plan)
    assert list(plan.parent.iterdir()) == []


@needs_rtx
def test_a_failed_build_keeps_the_engine_of_before(file: Path, plan: Path) -> None:
    engine_from_onnx(file, plan)
    before = plan.read_bytes()
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(EngineError):
        engine_from_onnx(file, plan)
    assert plan.read_bytes() == before
