"""Claims about ONNX Runtime as a runner: real sessions, no silent fallback, unreadable files in words."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from toolkit.contracts import LabeledImages
from toolkit.errors import BackendUnavailable, ToolkitError
from toolkit.runtime.driver import Device, Driver
from toolkit.runtime.ort.profile import CPU, nodes_from_profile
from toolkit.runtime.ort.quirks import keep_float_biases
from toolkit.runtime.ort.runner import CUDA, TENSORRT, OrtRunner
from toolkit.runtime.ort.session_options import session_options
from toolkit.runtime.runner import Runner

AZURE = "AzureExecutionProvider"


@pytest.mark.parametrize(("asked", "started"), [(0, 2), (1, 1), (3, 3)])
def test_a_process_that_is_held_to_some_cores_starts_no_more_threads(
    monkeypatch: pytest.MonkeyPatch, asked: int, started: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 5}, raising=False)
    assert session_options(asked).intra_op_num_threads == started
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert session_options().intra_op_num_threads == 1
    assert session_options(0).intra_op_num_threads == 0  # ONNX Runtime's own choice


def test_a_path_and_its_bytes_answer_alike(
    tiny_graph_bytes: bytes, structured_images: LabeledImages, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny_graph_bytes)
    with OrtRunner(path) as from_path, OrtRunner(tiny_graph_bytes) as from_bytes:
        logits = from_path.logits(structured_images.images_nhwc)
        assert np.array_equal(logits, from_bytes.logits(structured_images.images_nhwc))
    assert logits.shape == (60, 3)
    assert logits.dtype == np.float32
    assert (logits.argmax(1) == structured_images.labels).mean() > 0.9


def test_what_fails_in_the_middle_of_a_call_is_an_exception_and_no_line_of_a_log(
    capfd: pytest.CaptureFixture[str],
) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["f", "s"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info("x", TensorProto.UINT8, ["n", 2, 2, 1])]
    out = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])]
    made = helper.make_graph(nodes, "two images", ends, out, [numpy_helper.from_array(np.array([2, 4]), "s")])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with OrtRunner(model.SerializeToString()) as runner:
        assert runner.logits(np.zeros((2, 2, 2, 1), np.uint8)).shape == (2, 4)
        with pytest.raises(Exception, match="Reshape"):
            runner.logits(np.zeros((3, 2, 2, 1), np.uint8))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("batch", [1, 7, 60])
def test_any_batch_answers_as_single_images_do(
    tiny_graph_bytes: bytes, structured_images: LabeledImages, batch: int
) -> None:
    images = structured_images.images_nhwc[:batch]
    with OrtRunner(tiny_graph_bytes) as runner:
        alone = np.concatenate([runner.logits(images[i : i + 1]) for i in range(batch)])
        assert np.abs(runner.logits(images) - alone).max() <= 1e-5 * np.abs(alone).max()


def test_threads_do_not_change_the_answer(tiny_graph_bytes: bytes, structured_images: LabeledImages) -> None:
    images = structured_images.images_nhwc
    with OrtRunner(tiny_graph_bytes, threads=1) as one, OrtRunner(tiny_graph_bytes, threads=2) as two:
        assert np.abs(one.logits(images) - two.logits(images)).max() <= 1e-5


def test_the_description_names_engine_version_provider_and_file(tiny_graph_bytes: bytes, tmp_path: Path) -> None:
    path = tmp_path / "mine.onnx"
    path.write_bytes(tiny_graph_bytes)
    with OrtRunner(path) as named, OrtRunner(tiny_graph_bytes, label="other") as labeled:
        assert named.description == f"ONNX Runtime {onnxruntime.__version__} CPU mine.onnx"
        assert labeled.description.endswith("CPU other")
        assert named.name == "ort"


def test_every_output_comes_by_its_name(tiny_graph_bytes: bytes, structured_images: LabeledImages) -> None:
    images = structured_images.images_nhwc[:2]
    with OrtRunner(tiny_graph_bytes) as runner:
        tensors = runner.tensors(images)
        assert list(tensors) == ["logits"]
        assert np.array_equal(tensors["logits"], runner.logits(images))


def test_read_only_images_are_taken(tiny_graph_bytes: bytes, structured_images: LabeledImages) -> None:
    assert not structured_images.images_nhwc.flags.writeable
    with OrtRunner(tiny_graph_bytes) as runner:
        assert np.isfinite(runner.logits(structured_images.images_nhwc)).all()


@pytest.mark.parametrize("provider", ["NoSuchExecutionProvider", "CUDAExecutionProvider"])
def test_a_provider_that_is_not_here_is_unavailable_and_not_replaced(tiny_graph_bytes: bytes, provider: str) -> None:
    if provider in onnxruntime.get_available_providers():
        pytest.skip(f"this onnxruntime has {provider}")
    with pytest.raises(BackendUnavailable, match=f"has no {provider}") as caught:
        OrtRunner(tiny_graph_bytes, provider=provider)
    assert "CPUExecutionProvider" in str(caught.value.found)


def test_a_provider_that_falls_back_is_refused(tiny_graph_bytes: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    session = onnxruntime.InferenceSession(tiny_graph_bytes, providers=["CPUExecutionProvider"])
    with_cuda(monkeypatch)
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: session)
    with pytest.raises(BackendUnavailable, match="fell back to CPUExecutionProvider") as caught:
        OrtRunner(tiny_graph_bytes, provider="CUDAExecutionProvider")
    assert "onnxruntime-gpu[cuda,cudnn]" in str(caught.value.fix)


def with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """An onnxruntime that says it has the GPU's providers, on a machine that says it has a GPU."""
    gpu = Driver(True, "", "12.6", (Device("Orin", "SM87", 7620),))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, TENSORRT, CPU])
    monkeypatch.setattr("toolkit.runtime.ort.runner.probe_driver", lambda: gpu)


def test_a_gpu_provider_without_a_driver_is_not_even_tried(
    tiny_graph_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr("toolkit.runtime.ort.runner.probe_driver", lambda: Driver(False, "there is no NVIDIA driver"))
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: pytest.fail("a session was made"))
    with pytest.raises(BackendUnavailable, match="CUDAExecutionProvider cannot run here") as caught:
        OrtRunner(tiny_graph_bytes, provider=CUDA)
    assert caught.value.found == "there is no NVIDIA driver"


@pytest.mark.parametrize("provider", [CUDA, TENSORRT])
def test_a_provider_that_this_build_cannot_start_is_refused_and_prints_nothing(
    tiny_graph_bytes: bytes, provider: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if provider in onnxruntime.get_available_providers():
        pytest.skip(f"this onnxruntime has {provider}")
    with_cuda(monkeypatch)
    monkeypatch.setattr("toolkit.runtime.ort.runner._load_libraries", lambda _: None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # onnxruntime's own, about a name that its build does not have
        with pytest.raises(ToolkitError, match=r"fell back to CPU|does not run"):
            OrtRunner(tiny_graph_bytes, provider=provider)
    assert capfd.readouterr().out == ""  # stdout is for one JSON document


# Azure's provider is in every build and computes nothing but calls to Azure: a real provider that takes no node here.
needs_azure = pytest.mark.skipif(AZURE not in onnxruntime.get_available_providers(), reason=f"no {AZURE} in this build")


@needs_azure
def test_a_provider_that_leaves_the_nodes_to_the_cpu_is_refused_with_their_names(tiny_graph_bytes: bytes) -> None:
    with pytest.raises(ToolkitError, match="Azure does not run all of mine") as caught:
        OrtRunner(tiny_graph_bytes, provider=AZURE, label="mine")
    found = str(caught.value.found)
    assert found.startswith("the CPU computes ")
    assert "Cast preprocess/Cast" in found
    assert "more" in found
    session = onnxruntime.InferenceSession(tiny_graph_bytes, providers=[AZURE])
    assert session.get_providers()[0] == AZURE  # which is why its list is not enough


@needs_azure
def test_onnxruntime_itself_refuses_nodes_on_the_cpu_where_it_is_told_to(tiny_graph_bytes: bytes) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    with pytest.raises(Exception, match="fallback to CPU EP has been explicitly disabled"):
        onnxruntime.InferenceSession(tiny_graph_bytes, options, providers=[AZURE], enable_fallback=0)


@needs_azure
@pytest.mark.skipif(
    not hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info"),
    reason="asks ONNX Runtime 1.24 and later where it puts nodes; for Python 3.10 there is 1.23 at most",
)
def test_a_gpu_gets_no_int32_biases_that_it_has_no_kernel_for() -> None:
    model = Path(__file__).parents[1] / "bundle" / "format-1" / "model.int8.onnx"

    def kernels(prepare: Callable[[Any], None]) -> int:
        options = onnxruntime.SessionOptions()
        prepare(options)
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        session = onnxruntime.InferenceSession(str(model), options, providers=[CPU])
        nodes = [node for part in session.get_provider_graph_assignment_info() for node in part.get_nodes()]
        return len([node for node in nodes if node.op_type == "DequantizeLinear" and "bias" in node.name])

    assert kernels(lambda options: None) > 0  # what ONNX Runtime adds by itself
    assert kernels(keep_float_biases) == 0
    with pytest.raises(ToolkitError, match="does not run all of") as caught:
        OrtRunner(model, provider=AZURE)
    assert f"of {nodes_without_biases(model)} nodes" in str(caught.value.found)


def nodes_without_biases(model: Path) -> int:
    """Nodes that a session of this file runs without the int32 biases, off a real profile."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.enable_profiling, options.profile_file_prefix = True, f"{folder}/p"
        keep_float_biases(options)
        session = onnxruntime.InferenceSession(str(model), options, providers=[CPU])
        entry = session.get_inputs()[0]
        session.run(None, {entry.name: np.zeros((1, *entry.shape[1:]), np.uint8)})
        return len(nodes_from_profile(Path(session.end_profiling())))


def test_batches_above_the_largest_are_split_and_answer_alike(
    tiny_graph_bytes: bytes, structured_images: LabeledImages
) -> None:
    images = structured_images.images_nhwc
    with OrtRunner(tiny_graph_bytes) as whole, OrtRunner(tiny_graph_bytes, largest_batch=7) as parts:
        session, sizes = parts.session, []

        class Spy:
            def run(self, outputs: list[str], feed: dict[str, np.ndarray]) -> Any:
                sizes.append(len(feed["images"]))
                return session.run(outputs, feed)

        parts.session = Spy()
        expected, got = whole.logits(images), parts.logits(images)
    assert sizes == [7] * 8 + [4]
    assert np.abs(expected - got).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("part", [0, 1, 0.5, 0.99])
def test_a_truncated_file_is_one_error_with_its_name(tiny_graph_bytes: bytes, part: float, tmp_path: Path) -> None:
    path = tmp_path / "cut.onnx"
    path.write_bytes(tiny_graph_bytes[: 1 if part == 1 else int(part * len(tiny_graph_bytes))])
    with pytest.raises(ToolkitError, match=r"ONNX Runtime cannot read cut\.onnx") as caught:
        OrtRunner(path)
    assert caught.value.found


def test_a_missing_file_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(ToolkitError, match=r"cannot read none\.onnx"):
        OrtRunner(tmp_path / "none.onnx")


def test_closing_twice_is_allowed(tiny_graph_bytes: bytes) -> None:
    runner: Runner = OrtRunner(tiny_graph_bytes)
    with runner:
        pass
    runner.close()


def test_without_optimizations_the_answers_stay_and_the_description_says_so(
    tiny_graph_bytes: bytes, structured_images: LabeledImages
) -> None:
    images = structured_images.images_nhwc
    with OrtRunner(tiny_graph_bytes) as usual, OrtRunner(tiny_graph_bytes, optimize=False, label="m") as plain:
        expected, got = usual.logits(images), plain.logits(images)
        assert 0 < np.abs(expected - got).max() <= 1e-4 * np.abs(expected).max()
        assert plain.description.endswith("m, optimizations off")
        assert "optimizations" not in usual.description
