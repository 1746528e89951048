"""Claims about finding TensorRT, hearing its log, and saying why an engine cannot run."""

from __future__ import annotations

import gc
import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from toolkit.errors import BackendUnavailable, EngineError
from toolkit.runtime.driver import Device, Driver
from toolkit.runtime.trt import module as room
from toolkit.runtime.trt.layer_report import LayerReport, layer_report_from_log
from toolkit.runtime.trt.module import (
    Log,
    described,
    find_tensorrt,
    require_can_run,
    require_cuda_starts,
)
from toolkit.runtime.trt.runner import TrtRunner

GPU = Driver(True, "", "12.6", (Device("Orin", "SM87", 7620),))
NO_GPU = Driver(False, "there is no NVIDIA driver")
needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx_bindings") is None, reason="TensorRT-RTX is not installed"
)

# Which of the names that decide exist, read off the wheels of each version.
FULL_8_6 = SimpleNamespace(
    __version__="8.6.1", Builder=object, OnnxParser=object, BuilderFlag=SimpleNamespace(FP16=0, INT8=1)
)
FULL_11 = SimpleNamespace(
    __version__="11.0.0.114", Builder=object, OnnxParser=object, BuilderFlag=SimpleNamespace(TF32=6)
)
RTX = SimpleNamespace(__version__="1.7.1.116", Builder=object, OnnxParser=object, BuilderFlag=SimpleNamespace(TF32=6))
LEAN = SimpleNamespace(__version__="11.4.0.106", BuilderFlag=SimpleNamespace(TF32=6))


def _loader(**modules: Any) -> Callable[[str], Any]:
    """An import_module that knows these modules; an exception among them is raised."""

    def load(name: str) -> Any:
        if name not in modules:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if isinstance(modules[name], Exception):
            raise modules[name]
        return modules[name]

    return load


@pytest.mark.slow
@pytest.mark.parametrize(("version", "kind"), [("10.6.0", "tensorrt"), ("11.2.0", "lean"), ("1.7.1", "tensorrt-rtx")])
@pytest.mark.parametrize(
    ("code", "cure"),
    [
        (35, "update the NVIDIA driver"),
        (2, "free memory of the GPU"),
        (36, "update the NVIDIA driver"),
        (999, "look at nvidia-smi"),
    ],
)
def test_a_tensorrt_is_asked_once_whether_cuda_starts_and_what_is_dead_is_never_freed(
    version: str, kind: str, code: int, cure: str
) -> None:
    made: list[str] = []
    freed: list[str] = []

    class Dead:
        def __init__(self, logger: Any) -> None:
            made.append("Runtime")
            logger.log(SimpleNamespace(name="ERROR"), f"CUDA initialization failure with error: {code}")

        def __del__(self) -> None:
            freed.append("Runtime")

    module = SimpleNamespace(__version__=version, ILogger=object, Runtime=Dead, BuilderFlag=SimpleNamespace(TF32=6))
    found = described(module, kind)
    for _ in range(3):
        with pytest.raises(BackendUnavailable, match=f"{kind} {version} cannot start CUDA here") as caught:
            require_cuda_starts(found, GPU)
        assert f"CUDA initialization failure with error: {code} (the driver speaks CUDA 12.6)" in str(caught.value)
        assert cure in str(caught.value.fix)
    gc.collect()
    assert (made, freed) == (["Runtime"], [])


@pytest.mark.parametrize(
    ("runtime", "said"),
    [
        ("print('[TRT] [W] CUDA initialization failure with error: 35'); os.kill(os.getpid(), 11)", "with error: 35"),
        ("os.kill(os.getpid(), 11)", "its Runtime ended a process with SIGSEGV"),
        ("print('[TRT] [I] all is well')", None),
    ],
)
def test_a_runtime_of_8_6_is_asked_in_a_process_of_its_own(
    runtime: str, said: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"tensorrt_8_6_{said and len(said)}"
    (tmp_path / f"{name}.py").write_text(
        "import os\n__version__ = '8.6.1'\nclass BuilderFlag: FP16 = 0\nclass Logger: pass\n"
        f"def Runtime(logger):\n    {runtime}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = described(importlib.import_module(name), "tensorrt")
    for _ in range(2):
        if said is None:
            require_cuda_starts(found, GPU)
            continue
        with pytest.raises(BackendUnavailable, match="cannot start CUDA here") as caught:
            require_cuda_starts(found, GPU)
        assert said in str(caught.value.found)


def test_one_logger_tells_everybody_who_listens_and_nobody_who_left() -> None:
    module = SimpleNamespace(ILogger=object)
    one, other = Log(module), Log(module)
    assert one.logger is other.logger  # TensorRT takes the first of a process and ignores the rest
    one.logger.log(SimpleNamespace(name="ERROR"), "first")
    del other
    gc.collect()
    one.logger.log(SimpleNamespace(name="INFO"), "second")
    assert one.lines == [("ERROR", "first"), ("INFO", "second")]
    assert Log(module).lines == []


def test_full_tensorrt_is_chosen_where_there_is_a_gpu() -> None:
    found = find_tensorrt(_loader(tensorrt=FULL_8_6, tensorrt_rtx=RTX), GPU)
    assert (found.kind, found.version, found.can_build, found.strongly_typed_only) == ("tensorrt", "8.6.1", True, False)


def test_rtx_goes_first_where_there_is_no_gpu_and_the_reason_is_given() -> None:
    found = find_tensorrt(_loader(tensorrt=FULL_11, tensorrt_rtx=RTX), NO_GPU)
    assert found.kind == "tensorrt-rtx"
    assert "builds without a GPU" in " ".join(found.reasons)


def test_full_tensorrt_11_has_no_precision_flags() -> None:
    assert find_tensorrt(_loader(tensorrt=FULL_11), GPU).strongly_typed_only


def test_bindings_alone_are_found() -> None:
    assert find_tensorrt(_loader(tensorrt_rtx_bindings=RTX), NO_GPU).name == "tensorrt-rtx 1.7.1.116"


@pytest.mark.parametrize("kind", ["lean", "dispatch"])
def test_a_runtime_only_tensorrt_cannot_build(kind: str) -> None:
    found = find_tensorrt(_loader(**{f"tensorrt_{kind}": LEAN}), GPU)
    assert (found.kind, found.can_build) == (kind, False)


def test_a_tensorrt_that_builds_goes_before_one_that_only_runs() -> None:
    assert find_tensorrt(_loader(tensorrt_lean=LEAN, tensorrt_rtx=RTX), GPU).kind == "tensorrt-rtx"


def test_no_tensorrt_is_an_error_with_the_pip_command() -> None:
    with pytest.raises(BackendUnavailable) as caught:
        find_tensorrt(_loader(), NO_GPU)
    assert caught.value.found == "not installed: tensorrt, tensorrt-rtx, lean, dispatch"
    assert "pip install" in (caught.value.fix or "") or "apt install" in (caught.value.fix or "")


def test_a_jetson_is_told_of_the_system_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.runtime.trt.module.platform.machine", lambda: "aarch64")
    with pytest.raises(BackendUnavailable, match="--system-site-packages"):
        find_tensorrt(_loader(), GPU)


def test_an_installed_tensorrt_that_does_not_load_is_told_from_an_absent_one() -> None:
    broken = OSError("libnvinfer.so.11: cannot open shared object file")
    with pytest.raises(BackendUnavailable) as caught:
        find_tensorrt(_loader(tensorrt=broken), NO_GPU)
    assert "tensorrt is installed but does not load: OSError: libnvinfer.so.11" in str(caught.value.found)
    assert "not installed: tensorrt-rtx, lean, dispatch" in str(caught.value.found)


def test_a_front_module_without_its_bindings_is_named() -> None:
    broken = ModuleNotFoundError("No module named 'tensorrt_libs'", name="tensorrt_libs")
    with pytest.raises(BackendUnavailable, match="tensorrt is installed but lacks tensorrt_libs"):
        find_tensorrt(_loader(tensorrt=broken), NO_GPU)


def test_the_reason_lists_what_is_not_installed() -> None:
    with pytest.raises(BackendUnavailable) as caught:
        find_tensorrt(_loader(), NO_GPU)
    assert caught.value.found == "not installed: tensorrt, tensorrt-rtx, lean, dispatch"


def test_running_without_tensorrt_names_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "find_tensorrt", lambda **_: find_tensorrt(_loader(), NO_GPU))
    with pytest.raises(BackendUnavailable, match="no TensorRT can be imported here"):
        require_can_run(NO_GPU)


@needs_rtx
def test_running_without_a_driver_gives_the_probes_reason() -> None:
    with pytest.raises(BackendUnavailable) as caught:
        require_can_run(NO_GPU)
    assert caught.value.found == "there is no NVIDIA driver"
    assert "`backend='ort'`" in (caught.value.fix or "")


def test_running_with_everything_there_gives_the_tensorrt_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "find_tensorrt", lambda **_: find_tensorrt(_loader(tensorrt=FULL_11), GPU))
    assert require_can_run(GPU).name == "tensorrt 11.0.0.114"


def test_a_runner_of_no_plan_is_refused_before_anything_is_imported(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="there is no engine"):
        TrtRunner(tmp_path / "model.plan")


class _Trt:
    """A namespace with the logger's base class and nothing else."""

    class ILogger:
        pass


def test_a_log_keeps_errors_once_and_drops_verbose_lines_except_layers() -> None:
    log = Log(_Trt)
    for severity, message in [
        ("VERBOSE", "a tactic took 1 ms"),
        ("VERBOSE", "Layers:\nName: x"),
        ("ERROR", "no"),
        ("ERROR", "no"),
        ("INTERNAL_ERROR", "worse"),
        ("INFO", "Opset version:    17"),
    ]:
        log.logger.log(SimpleNamespace(name=severity), message)
    assert log.errors() == ("no", "worse")
    assert "tactic" not in log.text()
    assert log.opset() == 17


def test_a_log_without_layers_has_no_layer_report() -> None:
    assert layer_report_from_log([]) == (None, "the build log lists no layers")


def test_a_layer_report_counts_layers_by_kind_and_types() -> None:
    io = "[ { Name: t, Dimensions: [1], Datatype: %s, Format: (Linear) Row major }]"
    line = "Name: a b, LayerType: correlation, Inputs: {}, Constants: [], Outputs: {}, TacticName: t, StreamId: 0"
    log = Log(_Trt)
    both = io[:-1] % "Half" + ", { Name: u, Datatype: Half }]"
    lines = [
        line.format(io % "Int8", io % "Float"),
        line.format(io % "Int8", io % "Float"),
        line.format(both, io % "Half"),
    ]
    log.add("VERBOSE", "Layers:\n" + "\n".join(lines) + "\n\nI/O Tensors:\n Name: images, IOMode: Input")
    layers, reason = layer_report_from_log(message for _, message in log.lines)
    assert reason == ""
    assert layers is not None
    assert layers == LayerReport((("correlation", "Int8", "Float", 2), ("correlation", "Half+Half", "Half", 1)))
    assert (layers.layers, layers.convolutions(), layers.convolutions("Int8"), layers.convolutions("Half")) == (
        3,
        3,
        2,
        1,
    )
    assert layers.as_dict()["convolutions_reading"] == {"Int8": 2, "Half": 1, "Float": 0}


@needs_rtx
def test_a_real_logger_hears_a_real_builder() -> None:
    rtx = importlib.import_module("tensorrt_rtx_bindings")
    log = Log(rtx)
    assert rtx.Builder(log.logger).create_network(1 << 30) is None
    assert "Parameter check failed" in log.text()
