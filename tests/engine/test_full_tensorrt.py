"""Claims about builds with full TensorRT of 8.6 to 11, by stand-ins that have the names of each version's wheel."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.engine.standin import Layer, Trt
from toolkit.engine import engine_from_onnx as room
from toolkit.engine.build import BuildSettings
from toolkit.engine.dla import Dla
from toolkit.engine.engine_from_onnx import engine_from_onnx
from toolkit.engine.failure import log_path
from toolkit.engine.network import network_flags, precision_flags, profile_from_network
from toolkit.errors import BackendUnavailable, EngineError, ToolkitError
from toolkit.runtime.driver import Device, Driver
from toolkit.runtime.trt.module import described

GPU = Driver(True, "", "12.6", (Device("Orin", "SM87", 7620),))
NO_GPU = Driver(False, "there is no NVIDIA driver")
VERSIONS = ("8.6.1", "10.3", "10.13", "10.16", "11.0", "11.4")
STRONG = VERSIONS[1:]
TENSORS = {"Inputs": [{"Format/Datatype": "Int8"}], "Outputs": [{"Format/Datatype": "Int8"}]}
LAYERS = {"Layers": [{"Name": "conv1", "LayerType": "CaskConvolution", **TENSORS}]}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Bytes that a stand-in's parser takes for a model."""
    path = tmp_path / "model.onnx"
    path.write_bytes(b"onnx")
    return path


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """Where an engine goes."""
    return tmp_path / "out" / "model.engine"


def _use(monkeypatch: pytest.MonkeyPatch, trt: Any, driver: Driver = GPU, kind: str = "tensorrt") -> None:
    monkeypatch.setattr(room, "probe_driver", lambda: driver)
    monkeypatch.setattr(room, "find_tensorrt", lambda driver: described(trt, kind))


def _refused(file: Path, plan: Path, **arguments: Any) -> ToolkitError:
    with pytest.raises(ToolkitError) as caught:
        engine_from_onnx(file, plan, **arguments)
    assert not plan.exists()
    return caught.value


@pytest.mark.parametrize("version", VERSIONS)
def test_networks_are_strongly_typed_wherever_that_exists(version: str) -> None:
    assert network_flags(Trt(version)) == (1 << 0 if version in ("8.6.1", "11.0", "11.4") else 1 << 1)


@pytest.mark.parametrize("version", VERSIONS)
def test_precision_flags_exist_only_for_weak_typing(version: str) -> None:
    trt = Trt(version)
    trt.layer = Layer.QUANTIZE
    assert precision_flags(trt, trt.network(0)) == (("FP16", "INT8") if version == "8.6.1" else ())


def test_a_float16_tensor_asks_8_6_for_fp16_and_float32_asks_for_nothing() -> None:
    trt = Trt("8.6.1")
    network = trt.network(0)
    assert precision_flags(trt, network) == ()
    network.get_layer(0).get_output(0).dtype = "half"
    assert precision_flags(trt, network) == ("FP16",)


def test_a_profile_fills_the_open_batch_only() -> None:
    network = Trt("8.6.1").network(0)
    assert profile_from_network(network, (1, 2, 3)) == {"images": [[n, 8, 8, 3] for n in (1, 2, 3)]}


def test_8_6_builds_with_explicit_batch_and_flags_by_name(
    file: Path, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt = Trt("8.6.1")
    trt.layer = Layer.QUANTIZE
    _use(monkeypatch, trt)
    engine = engine_from_onnx(file, plan, settings=BuildSettings(workspace_mib=16))
    assert (trt.created, trt.config.pool) == (1, (0, 16 << 20))
    assert engine.sidecar["flags"] == ["FP16", "INT8"]
    assert engine.sidecar["builder"]["device"] == "Orin"
    assert engine.sidecar["builder"]["compute_capability"] == "SM87"
    assert plan.read_bytes() == b"plan"


@pytest.mark.parametrize("version", VERSIONS)
def test_8_6_is_asked_to_share_a_profile_between_contexts_and_later_ones_do_so_unasked(
    version: str, file: Path, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt = Trt(version)
    _use(monkeypatch, trt)
    engine_from_onnx(file, plan)
    assert trt.config.previews == ({trt.PreviewFeature.PROFILE_SHARING_0806: True} if version == "8.6.1" else {})  # type: ignore[attr-defined]


def test_8_6_refuses_an_opset_that_it_would_read_wrongly(
    file: Path, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _use(monkeypatch, Trt("8.6.1", opset=18))
    error = _refused(file, plan)
    assert (error.found, error.allowed) == ("opset 18", "opset 17 or older")


@pytest.mark.parametrize("version", STRONG)
def test_10_and_11_build_newer_opsets_without_precision_flags(
    file: Path, plan: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    trt = Trt(version, opset=19)
    trt.layer = Layer.QUANTIZE
    _use(monkeypatch, trt)
    assert engine_from_onnx(file, plan).sidecar["flags"] == []


@pytest.mark.parametrize("version", VERSIONS)
def test_progress_is_heard_where_the_version_has_a_monitor(
    file: Path, plan: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    _use(monkeypatch, Trt(version))
    heard: list[tuple[str, int, int]] = []
    engine_from_onnx(file, plan, on_progress=lambda *step: heard.append(step))
    expected = [("Building engine", 0, 2), ("Building engine", 1, 2), ("Building engine", 2, 2)]
    assert heard == ([] if version == "8.6.1" else expected)


def test_a_build_that_says_nothing_is_still_an_error(file: Path, plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trt = Trt("8.6.1")
    trt.plan = None
    _use(monkeypatch, trt)
    assert str(_refused(file, plan).found).startswith("TensorRT said nothing")


def test_full_tensorrt_is_not_touched_without_a_driver(file: Path, plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trt = Trt("11.0")
    _use(monkeypatch, trt, NO_GPU)
    error = _refused(file, plan)
    assert isinstance(error, BackendUnavailable)
    assert error.found == "there is no NVIDIA driver"
    assert trt.created == -1


def test_full_tensorrt_builds_for_its_own_gpu_only(file: Path, plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _use(monkeypatch, Trt("11.0"))
    error = _refused(file, plan, settings=BuildSettings(compute_capabilities=("SM87",)))
    assert error.allowed == "none: it builds for the GPU that it runs on"


def test_a_runtime_only_tensorrt_is_refused(file: Path, plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lean = SimpleNamespace(__version__="11.4.0.106", BuilderFlag=SimpleNamespace())
    _use(monkeypatch, lean, kind="lean")
    assert "cannot build" in _refused(file, plan).what


# --- what a build may be told ------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_a_version_compatible_plan_is_flagged_in_its_sidecar(
    file: Path, plan: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    trt = Trt(version)
    _use(monkeypatch, trt)
    sidecar = engine_from_onnx(file, plan, settings=BuildSettings(compatible="version")).sidecar
    assert sidecar["flags"] == ["VERSION_COMPATIBLE"]
    assert trt.parser_flags == {0}  # NATIVE_INSTANCENORM: such plans hold no plugins


def test_a_hardware_compatible_plan_and_an_optimization_level_are_set_by_name(
    file: Path, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt = Trt("10.3")
    _use(monkeypatch, trt)
    sidecar = engine_from_onnx(file, plan, settings=BuildSettings(compatible="hardware", optimization_level=5)).sidecar
    assert trt.config.hardware_compatibility_level == trt.HardwareCompatibilityLevel.AMPERE_PLUS  # type: ignore[attr-defined]
    assert (trt.config.builder_optimization_level, sidecar["optimisation_level"]) == (5, 5)
    assert sidecar["compatible"] == "hardware"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (BuildSettings(optimization_level=6), "there is no such optimization level"),
        (BuildSettings(compatible="all"), "there is no such compatibility"),
        (BuildSettings(workspace_mib=0), "workspace_mib is too small"),
    ],
)
def test_what_no_build_can_be_told_is_refused(
    file: Path, plan: Path, monkeypatch: pytest.MonkeyPatch, settings: BuildSettings, said: str
) -> None:
    _use(monkeypatch, Trt("10.3"))
    assert said in _refused(file, plan, settings=settings).what


def test_an_optimization_level_is_never_set_on_a_tensorrt_without(
    file: Path, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt = Trt("8.6.1")
    del trt.config.builder_optimization_level
    _use(monkeypatch, trt)
    assert "has no optimization levels" in _refused(file, plan, settings=BuildSettings(optimization_level=1)).what


@pytest.mark.parametrize("version", VERSIONS)
def test_timings_are_kept_between_builds(
    file: Path, plan: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str
) -> None:
    kept = BuildSettings(timing_cache=tmp_path / "timing")
    for count in (1, 2):
        _use(monkeypatch, Trt(version, layers=LAYERS))
        engine = engine_from_onnx(file, plan, settings=kept)
        (cache,) = (tmp_path / "timing").iterdir()
        assert len(json.loads(cache.read_bytes()[4:])[1]) == count
        assert engine.sidecar["timing_cache"] == cache.name
        assert engine.notes == ()
    cache.write_bytes(b"rubbish")
    _use(monkeypatch, Trt(version))
    assert "a new one begins" in engine_from_onnx(file, plan, settings=kept).notes[0]


# --- a DLA -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["8.6.1", "10.3"])
def test_int8_reaches_the_dla_by_a_calibrator_that_only_reads(
    file: Path, plan: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    trt = Trt(version, cores=2, layers=LAYERS)
    _use(monkeypatch, trt)
    dla = Dla(1, ("FP16", "INT8"), b"TRT-8601-EntropyCalibration2\nx: 3c000000\n")
    engine = engine_from_onnx(file, plan, batch=(4, 4, 4), settings=BuildSettings(dla=dla))
    assert trt.created == 1  # explicit batch, not strongly typed
    assert engine.sidecar["flags"] == ["FP16", "INT8", "GPU_FALLBACK"]
    assert (trt.config.default_device_type, trt.config.DLA_core) == (1, 1)
    assert trt.calibrated == dla.calib_cache
    assert engine.sidecar["dla_core"] == trt.loaded_on == 1
    assert engine.sidecar["dla"] == {"core": 1, "layers": 2, "layers_on_gpu": ["preprocess"]}
    assert engine.notes == ("DLA core 1 takes 1 of 2 layers; the GPU keeps 1: preprocess",)


def test_11_puts_a_strongly_typed_network_on_the_dla(file: Path, plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trt = Trt("11.4", cores=2, opset=19)
    _use(monkeypatch, trt)
    sidecar = engine_from_onnx(file, plan, batch=(4, 4, 4), settings=BuildSettings(dla=Dla(0))).sidecar
    assert (trt.created, sidecar["flags"], sidecar["dla_core"]) == (1, ["GPU_FALLBACK"], 0)


@pytest.mark.parametrize("version", ["10.13", "10.16", "11.0", "11.4"])
def test_a_device_without_a_dla_is_refused_in_words(
    file: Path, plan: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    _use(monkeypatch, Trt(version, cores=0))
    error = _refused(file, plan, batch=(4, 4, 4), settings=BuildSettings(dla=Dla(0)))
    assert "reports no DLA core on Orin" in str(error.found)


def test_an_open_batch_is_refused_for_a_dla_with_what_to_type(
    file: Path, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _use(monkeypatch, Trt("10.3", cores=2))
    assert _refused(file, plan, settings=BuildSettings(dla=Dla(0, ("FP16",)))).fix == "`batch=(8, 8, 8)`"


# --- layers, logs, failures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_the_inspector_is_asked_with_the_best_served_shape(
    file: Path, plan: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    _use(monkeypatch, Trt(version, layers=LAYERS))
    engine = engine_from_onnx(file, plan)
    assert engine.layer_report is not None
    assert engine.layer_report.convolutions("Int8") == 1
    assert engine.sidecar["census_reason"] is None
    assert engine.notes == ()


def test_a_plan_that_does_not_load_here_is_kept_without_a_list_of_layers(
    file: Path, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _use(monkeypatch, Trt("10.3"))
    engine = engine_from_onnx(file, plan)
    assert engine.layer_report is None
    assert "does not load it" in engine.sidecar["census_reason"]
    assert engine.notes == (f"model.onnx: the engine's layers are unknown: {engine.sidecar['census_reason']}",)


def test_a_builder_of_8_6_that_cannot_start_cuda_gives_its_words(
    file: Path, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt = Trt("8.6.1")

    def broken(logger: Any) -> Any:
        logger.log(SimpleNamespace(name="WARNING"), "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(trt, "Builder", broken)
    _use(monkeypatch, trt)
    with pytest.raises(BackendUnavailable, match="cannot start CUDA here") as caught:
        engine_from_onnx(file, plan)
    assert "CUDA initialization failure with error: 35" in str(caught.value.found)
    assert "update the NVIDIA driver" in str(caught.value.fix)
    assert not plan.exists()


def test_an_inspector_that_fails_fails_no_build(file: Path, plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trt = Trt("10.3")
    whole, made = trt.Runtime, []

    def broken(logger: Any) -> Any:
        made.append(logger)
        if len(made) > 1:  # the first is asked whether CUDA starts
            raise RuntimeError("no memory for a context")
        return whole(logger)

    monkeypatch.setattr(trt, "Runtime", broken)
    _use(monkeypatch, trt)
    assert engine_from_onnx(file, plan).sidecar["census_reason"].endswith("RuntimeError: no memory for a context")


# github.com/NVIDIA/TensorRT/issues/4258, TensorRT 10.3 on a Jetson
OUT_OF_MEMORY = (
    ("ERROR", "[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)"),
    ("WARNING", "Requested amount of GPU memory (15485030400 bytes) could not be allocated. There may not be enough "
     "free memory for allocation to succeed."),
    ("ERROR", "IBuilder::buildSerializedNetwork: Error Code 10: Internal Error (Could not find any implementation for "
     "node {ForeignNode[/1/Constant_36_output_0.../1/Slice_4]}.)"),
)  # fmt: skip


def test_memory_that_ran_out_is_said_and_not_what_it_hides_behind(
    file: Path, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt = Trt("10.3", says=OUT_OF_MEMORY)
    trt.plan = None
    _use(monkeypatch, trt)
    error = _refused(file, plan)
    assert error.what == "tensorrt 10.3.0 did not build model.onnx: the memory ran out"
    assert "`workspace_mib=`" in str(error.fix)
    assert str(error.found).endswith(f"whole log: {log_path(plan)}")
    for severity, message in OUT_OF_MEMORY:
        assert f"[{severity}] {message}" in log_path(plan).read_text()


def test_a_failed_log_goes_where_it_is_told(
    file: Path, plan: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trt = Trt("10.3")
    trt.plan = None
    _use(monkeypatch, trt)
    error = _refused(file, plan, failed_log=tmp_path / "kept.log")
    assert str(tmp_path / "kept.log") in str(error.found)
    assert "Opset version" in (tmp_path / "kept.log").read_text()
    assert not log_path(plan).exists()


# github.com/onnx/onnx-tensorrt/issues/800: TensorRT 8 dumps the node as text and names it in no error
NODE_OF_8 = (
    ("ERROR", "3: getPluginCreator could not find plugin: Round version: 1"),
    ("ERROR", 'ModelImporter.cpp:720: While parsing node number 12 [Round -> "rounded:0"]:'),
    ("ERROR", "ModelImporter.cpp:721: --- Begin node ---"),
    ("ERROR", 'ModelImporter.cpp:722: input: "x:0"\noutput: "rounded:0"\nname: "resize/Round"\nop_type: "Round"\n'),
    ("ERROR", "ModelImporter.cpp:723: --- End node ---"),
)


class _Error:
    """A ParserError; of 10 with the node's name."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


class _Named(_Error):
    def node_name(self) -> str:
        return "resize/Round"


WORDS = 'In node 12 (importFallbackPluginImporter): UNSUPPORTED_NODE: Assertion failed: creator && "Plugin not found, are the plugin name, version, and namespace correct?"'  # noqa: E501


@pytest.mark.parametrize(
    ("trt", "named"),
    [
        (Trt("8.6.1", errors=(_Error(WORDS),), says=NODE_OF_8), "node resize/Round (Round): In node 12"),
        (Trt("10.3", errors=(_Named(WORDS),)), "node resize/Round: In node 12"),
    ],
)
def test_an_unknown_operator_is_named_by_its_onnx_node_in_every_version(
    file: Path, plan: Path, monkeypatch: pytest.MonkeyPatch, trt: Trt, named: str
) -> None:
    _use(monkeypatch, trt)
    error = _refused(file, plan)
    assert named in str(error.found)
    assert error.what.endswith("TensorRT has no such operator")
    assert isinstance(error, EngineError)
