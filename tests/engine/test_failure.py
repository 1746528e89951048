"""Claims about builds that fail: real files that a real TensorRT-RTX refuses, each with cause, node, cure and log."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from toolkit.engine.engine_from_onnx import engine_from_onnx
from toolkit.engine.failure import failure, log_path, log_text
from toolkit.errors import EngineError
from toolkit.runtime.trt.module import Log

onnx = pytest.importorskip("onnx", reason="the graphs are made with onnx.helper")
needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx_bindings") is None, reason="TensorRT-RTX is not installed"
)
KINDS = onnx.TensorProto
TRT = SimpleNamespace(ILogger=type("ILogger", (), {"__init__": lambda self: None}))


def _file(folder: Path, nodes: list[tuple[str, list[str], str]], values: dict[str, Any], kind: int) -> Path:
    """A graph from "x" (n, 3, 8, 8) to "y"; each node is named as its output is."""
    helper = onnx.helper
    made = [helper.make_node(op, inputs, [output], name=f"the {output}") for op, inputs, output in nodes]
    graph = helper.make_graph(
        made,
        "g",
        [helper.make_tensor_value_info("x", kind, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", KINDS.FLOAT, None)],
        [onnx.numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    path = folder / "model.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())
    return path


WEIGHTS = np.ones((4, 3, 3, 3), np.float32)
SCALE, ZERO = np.array(0.1, np.float32), np.array(0, np.int8)
Q, DQ = ("QuantizeLinear", ["x", "s", "z"], "q"), ("DequantizeLinear", ["q", "s", "z"], "y")
CASES: dict[str, tuple[list[tuple[str, list[str], str]], dict[str, Any], int, str]] = {
    "mixed convolution": ([("Conv", ["x", "w"], "y")], {"w": WEIGHTS}, KINDS.FLOAT16, "tensors of two types"),
    "mixed sum": ([("Add", ["x", "w"], "y")], {"w": np.ones(8, np.float32)}, KINDS.FLOAT16, "tensors of two types"),
    "no operator": ([("Konv", ["x"], "y")], {}, KINDS.FLOAT, "no such operator"),
    "bias": (
        [("DequantizeLinear", ["b", "s"], "bias"), ("Conv", ["x", "w", "bias"], "y")],
        {"w": WEIGHTS, "b": np.ones(4, np.int32), "s": SCALE}, KINDS.FLOAT, "quantizes a bias",
    ),
    "zero point": ([Q, DQ], {"s": SCALE, "z": np.array(3, np.int8)}, KINDS.FLOAT, "quantized asymmetrically"),
    "negative scale": ([Q, DQ], {"s": -SCALE, "z": ZERO}, KINDS.FLOAT, "not above 0"),
    "zero points": (
        [Q, DQ], {"s": np.ones(3, np.float32), "z": ZERO}, KINDS.FLOAT, "another number of zero points",
    ),
    "QLinear": (
        [("QLinearConv", ["x", "s", "z", "w", "s", "z", "s", "z"], "y")],
        {"w": np.ones((4, 3, 3, 3), np.int8), "s": SCALE, "z": ZERO}, KINDS.INT8, "Q/DQ only",
    ),
    "dynamic": ([("ConvInteger", ["x", "w"], "y")], {"w": np.ones((4, 3, 3, 3), np.int8)}, KINDS.UINT8, "Q/DQ only"),
    "the CPU's": ([("Pad", ["x", "p"], "y")], {"p": np.zeros(8, np.int64)}, KINDS.UINT8, "computes with uint8"),
    "uint8 scale": ([("DequantizeLinear", ["x", "s"], "y")], {"s": SCALE}, KINDS.UINT8, "computes with uint8"),
    "training": (
        [("Dropout", ["x", "r", "t"], "y")], {"r": SCALE, "t": np.array(True)}, KINDS.FLOAT, "training mode",
    ),
    "use": ([("Unique", ["x"], "y")], {}, KINDS.FLOAT, "not the way the file uses it"),
    "uint8": ([("Transpose", ["x"], "y")], {}, KINDS.UINT8, "uint8 images"),
    "shape": ([("Conv", ["x", "w"], "y")], {"w": np.ones((4, 5, 3, 3), np.float32)}, KINDS.FLOAT, "contradicts itself"),
    "absent": ([("Conv", ["x", "gone"], "y")], {}, KINDS.FLOAT, "contradicts itself"),
}  # fmt: skip


@needs_rtx
@pytest.mark.parametrize("case", CASES)
def test_a_file_that_tensorrt_refuses_is_explained(case: str, tmp_path: Path) -> None:
    nodes, values, kind, said = CASES[case]
    with pytest.raises(EngineError) as caught:
        engine_from_onnx(_file(tmp_path, nodes, values, kind), tmp_path / "model.engine")
    error = caught.value
    assert said in f"{error.what} {error.fix}"
    assert f"the {nodes[-1][2]}" in str(error.found) or f"the {nodes[0][2]}" in str(error.found)
    assert "cudaError" not in str(error.found)  # that there is no driver is not why
    log = log_path(tmp_path / "model.engine")
    assert str(error.found).endswith(f"whole log: {log}")
    assert "Opset version" in log.read_text()


@needs_rtx
@pytest.mark.parametrize("bytes_left", [None, 100])
def test_weights_that_lie_in_a_file_that_is_gone_are_named_as_the_cause(tmp_path: Path, bytes_left: int | None) -> None:
    path = _file(tmp_path, [("Conv", ["x", "w"], "y")], {"w": WEIGHTS}, KINDS.FLOAT)
    onnx.save_model(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    data = tmp_path / "weights.bin"
    data.unlink() if bytes_left is None else data.write_bytes(data.read_bytes()[:bytes_left])
    with pytest.raises(EngineError, match="the file beside it that holds them is missing or cut short"):
        engine_from_onnx(path, tmp_path / "model.engine")


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69\nsize 12345\n"


@needs_rtx
@pytest.mark.parametrize("content", [POINTER, b"PK\x03\x04" + bytes(100), None])
def test_bytes_that_are_no_whole_model_are_named_as_such(tmp_path: Path, content: bytes | None) -> None:
    path = _file(tmp_path, [("Conv", ["x", "w"], "y")], {"w": WEIGHTS}, KINDS.FLOAT)
    path.write_bytes(path.read_bytes()[:200] if content is None else content)
    with pytest.raises(EngineError, match="cut short, is no ONNX file") as caught:
        engine_from_onnx(path, tmp_path / "model.engine")
    assert "git lfs pull" in str(caught.value.fix)


@needs_rtx
def test_a_constant_of_another_type_is_not_called_a_missing_file(tmp_path: Path) -> None:
    path = _file(tmp_path, [Q, DQ], {"s": SCALE, "z": np.array(0, np.int16)}, KINDS.FLOAT)
    with pytest.raises(EngineError, match="a constant of the file has a type that TensorRT does not read"):
        engine_from_onnx(path, tmp_path / "model.engine")


@needs_rtx
def test_uint8_zero_points_of_zero_parse_and_are_refused_all_the_same(tmp_path: Path) -> None:
    path = _file(tmp_path, [Q, DQ], {"s": SCALE, "z": np.array(0, np.uint8)}, KINDS.FLOAT)
    with pytest.raises(EngineError, match=r"would read model\.onnx wrongly: the file computes with uint8") as caught:
        engine_from_onnx(path, tmp_path / "model.engine")
    assert "Defaulting to INT8 instead" in str(caught.value.found)
    assert not (tmp_path / "model.engine").exists()


@needs_rtx
def test_the_log_lies_beside_a_good_engine_too(tmp_path: Path) -> None:
    path = _file(tmp_path, [("Conv", ["x", "w"], "y")], {"w": WEIGHTS}, KINDS.FLOAT)
    engine = engine_from_onnx(path, tmp_path / "model.engine")
    text = log_path(engine.path).read_text()
    assert "[INFO] Opset version:    17" in text
    assert "Layers:" in text


def _log(*messages: str, severity: str = "ERROR") -> Log:
    log = Log(TRT)
    for message in messages:
        log.add(severity, message)
    return log


def test_a_long_log_keeps_its_beginning_and_its_end() -> None:
    log = _log(*(f"line {n}" for n in range(10_000)), severity="INFO")
    text = log_text(log, most_bytes=4096)
    assert len(text) <= 4096
    assert text.startswith(b"[INFO] line 0\n")
    assert text.endswith(b"[INFO] line 9999\n")
    assert b"bytes are left out here" in text
    assert log_text(_log("short"), most_bytes=4096) == b"[ERROR] short\n"


def test_a_log_that_cannot_be_kept_hides_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    error = failure("it failed", _log("Plugin not found"), (), tmp_path / "file" / "log")
    assert "the log could not be kept" in str(error.found)
    assert error.what == "it failed: TensorRT has no such operator"


def test_a_missing_driver_is_the_cause_only_where_a_driver_is_needed(tmp_path: Path) -> None:
    noise = (
        "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (In catchCudaError at "
        "/_src/common/dispatch/checkMacros.cpp:250 (cudaError 35: CUDA driver version is insufficient for CUDA runtime "
        "version))"
    )
    assert "the driver is older" in failure("it failed", _log(noise), (), tmp_path / "log").what
    assert failure("it failed", _log(noise), (), tmp_path / "log", has_driver=False).what == "it failed"
