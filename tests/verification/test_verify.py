"""Claims about `toolkit.verify`: what is compared with what, what decides, and a document that keeps its schema."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import toolkit
from tests.faults.conftest import Healthy, Plant, healthy, plant, written
from tests.manifests import rehashed
from toolkit.bundle.manifest import VARIANTS
from toolkit.compare.gate import UNDECIDED
from toolkit.contracts import Float32, LabeledImages, UInt8
from toolkit.errors import MissingPackage, ToolkitError
from toolkit.runtime.ort.runner import OrtRunner
from toolkit.verification.contact_sheet import LISTED, write_contact_sheets
from toolkit.verification.result import Verification
from toolkit.verification.verify import verify

__all__ = ["healthy", "plant"]
SCHEMA = Path(__file__).parents[2] / "docs/schema/verify.v1.json"


def _require_valid(found: Verification) -> dict[str, Any]:
    jsonschema = pytest.importorskip("jsonschema", reason="needs the dependency group oracles")
    document: dict[str, Any] = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(document)
    return document


@pytest.mark.slow
def test_it_is_a_function_of_the_package(healthy: Healthy) -> None:
    assert toolkit.verify is verify
    assert {"load", "verify"} <= set(toolkit.__all__)


def test_the_schema_itself_is_valid() -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="needs the dependency group oracles")
    jsonschema.Draft202012Validator.check_schema(json.loads(SCHEMA.read_text()))


@pytest.mark.slow
def test_a_document_keeps_its_schema_and_says_what_it_is_of(healthy: Healthy) -> None:
    found = verify(healthy.bundle, data=str(healthy.data), backends="ort", layers=True)
    document = _require_valid(found)
    assert document["schema"] == "toolkit/verify/1"
    assert document["ok"] is True
    assert [row["label"] for row in document["parity"][0]["per_class"]] == list(range(6))
    assert {layers["candidate"] for layers in document["layers"]} >= {"model.int8.onnx", "model.int8.onnx, optimized"}


def test_a_broken_bundle_keeps_the_schema_too(healthy: Healthy, plant: Plant) -> None:
    class Broken(OrtRunner):
        def logits(self, images_nhwc: UInt8) -> Float32:
            return super().logits(images_nhwc) * np.float32(np.nan)

    with Broken(healthy.bundle / "model.onnx") as runner:
        found = verify(healthy.bundle, data=str(healthy.data), backends="ort", runners={"camera fp32": runner})
    document = _require_valid(found)
    assert document["verdicts"]["camera fp32"] == "fail"
    assert document["parity"][-1]["relative_l2"] is None
    assert [cause["name"] for cause in document["likely_causes"]][-1] == "no logit is finite"


def test_quantization_error_and_backend_error_stand_apart(healthy: Healthy) -> None:
    class Drifting(OrtRunner):
        """Another engine for the INT8 file, a thousandth off."""

        def logits(self, images_nhwc: UInt8) -> Float32:
            return super().logits(images_nhwc) * np.float32(1.001)

    with Drifting(healthy.bundle / "model.int8.onnx") as runner:
        found = verify(
            healthy.bundle, data=str(healthy.data), backends="ort", precisions="fp32", runners={"trt int8": runner}
        )
    steps = {(source.kind, source.parity.reference, source.parity.candidate): source for source in found.sources}
    assert set(steps) == {("quantisation", "ort fp32", "ort int8"), ("backend", "ort int8", "trt int8")}
    backend = steps[("backend", "ort int8", "trt int8")].parity
    quantization = steps[("quantisation", "ort fp32", "ort int8")].parity
    assert backend.relative_l2 == pytest.approx(1e-3, rel=0.01)
    assert quantization.relative_l2 > 2 * backend.relative_l2
    assert set(found.pairs) == {"ort fp32", "trt int8"}
    assert found.ok


def _few(healthy: Healthy, tmp_path: Path, flips: int) -> Path:
    """A set of 60 images of which `flips` have a wrong label: neither runner gets them right."""
    images = healthy.images.take(slice(60))
    labels = images.labels.copy()
    labels[:flips] = (labels[:flips] + 1) % 6
    return written(tmp_path / "few.npz", LabeledImages(images.images_nhwc, labels, images.classes, "few"))


def test_few_images_are_undecided_which_passes_unless_strict_and_says_how_many_would_do(
    healthy: Healthy, tmp_path: Path
) -> None:
    data = str(_few(healthy, tmp_path, 0))
    loose = verify(healthy.bundle, data=data, backends="ort", precisions="int8")
    strict = verify(healthy.bundle, data=data, backends="ort", precisions="int8", strict=True)
    assert loose.undecided == strict.undecided == ("ort int8",)
    assert loose.ok
    assert not strict.ok
    needed = loose.pairs["ort int8"].verdict.images_needed
    assert needed is not None
    assert 60 < needed < 1000
    assert verify(healthy.bundle, data=data, backends="ort", precisions="int8", gate=90, strict=True).ok


def test_below_the_gate_is_no_success_even_where_so_few_images_cannot_tell(healthy: Healthy, tmp_path: Path) -> None:
    class Wrong(OrtRunner):
        """Misses every fiftieth image."""

        def logits(self, images_nhwc: UInt8) -> Float32:
            logits = super().logits(images_nhwc)
            missed = images_nhwc.reshape(len(images_nhwc), -1).sum(axis=1) % 50 == 0
            return np.where(missed[:, None], -logits, logits).astype(np.float32)

    with Wrong(healthy.bundle / "model.onnx") as runner:
        found = verify(healthy.bundle, data=str(healthy.data), backends="ort", gate=99.9, runners={"mine fp32": runner})
    verdict = found.pairs["mine fp32"].verdict
    assert verdict.retention_percent < 99.9
    assert verdict.word == UNDECIDED
    assert not found.ok


def test_names_may_come_in_a_list_and_none_twice(healthy: Healthy) -> None:
    found = verify(healthy.bundle, data=str(healthy.data), backends=["ort"], precisions=("fp32", "int8"))
    assert set(found.pairs) == {"ort fp32", "ort int8"}
    with (
        OrtRunner(healthy.bundle / "model.onnx") as runner,
        pytest.raises(ToolkitError, match="two runners called 'ort int8'"),
    ):
        verify(healthy.bundle, data=str(healthy.data), backends="ort", runners={"ort int8": runner})


@pytest.mark.slow
def test_a_bundle_held_against_itself_is_the_same_runner_by_runner(healthy: Healthy) -> None:
    found = verify(healthy.bundle, healthy.bundle, data=str(healthy.data), backends="ort", gate=99)
    assert set(found.pairs) == {f"B ort {name}" for name in VARIANTS}
    assert all(pair.parity.relative_l2 == 0 for pair in found.pairs.values())
    assert [pair.parity.reference for pair in found.pairs.values()] == [name.removeprefix("B ") for name in found.pairs]
    _require_valid(found)


@pytest.mark.slow
def test_a_second_bundle_with_a_fault_is_named_runner_by_runner(healthy: Healthy, plant: Plant) -> None:
    def dulled(graph: Any) -> None:
        (tensor,) = (tensor for tensor in graph.initializer if tensor.name == "fc.bias")
        values = onnx.numpy_helper.to_array(tensor).copy()
        values[2] = -50
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, "fc.bias"))

    second = plant("model.int8.onnx", dulled)
    found = verify(healthy.bundle, second, data=str(healthy.data), backends="ort", layers=True)
    assert [name for name, good in found.passed.items() if not good] == ["B ort int8"]
    assert 2 in [row.label for row in found.pairs["B ort int8"].flips.per_class if row.moved]
    (layers,) = (layers for layers in found.layers if layers.candidate == "model.int8.onnx")
    assert layers.parted == "fc/Gemm"


@pytest.mark.slow
def test_an_onnx_file_alone_is_held_against_the_fp32_runner_or_the_one_that_was_named(healthy: Healthy) -> None:
    file = healthy.bundle / "model.int8.onnx"
    found = verify(healthy.bundle, file, data=str(healthy.data), backends="ort", layers=True)
    assert [(name, pair.parity.reference) for name, pair in found.pairs.items()] == [("model.int8.onnx", "ort fp32")]
    named = verify(healthy.bundle, file, data=str(healthy.data), backends="ort", precisions="int8")
    assert named.pairs["model.int8.onnx"].parity.reference == "ort int8"
    assert named.pairs["model.int8.onnx"].parity.relative_l2 == 0


def test_another_net_is_no_variant(healthy: Healthy, tmp_path: Path) -> None:
    shutil.copytree(healthy.bundle, tmp_path / "b")
    manifest = json.loads((tmp_path / "b/manifest.json").read_text())
    rehashed(tmp_path / "b", labels=["something else", *manifest["labels"][1:]])
    with pytest.raises(ToolkitError, match="no variant of"):
        verify(healthy.bundle, tmp_path / "b", data=str(healthy.data), backends="ort")
    with pytest.raises(ToolkitError, match="there is no file"):
        verify(healthy.bundle, tmp_path / "none.onnx", data=str(healthy.data), backends="ort")


def test_a_file_that_takes_other_images_is_one_error(healthy: Healthy, tmp_path: Path, tiny_graph_bytes: bytes) -> None:
    (tmp_path / "theirs.onnx").write_bytes(tiny_graph_bytes)
    with pytest.raises(ToolkitError, match=r"'theirs.onnx' does not answer these images as this model does") as caught:
        verify(healthy.bundle, tmp_path / "theirs.onnx", data=str(healthy.data), backends="ort")
    assert "toolkit.export" in str(caught.value.fix)


@pytest.mark.slow
def test_flips_are_written_as_sheets_with_labels_and_both_answers(
    healthy: Healthy, plant: Plant, tmp_path: Path
) -> None:
    from PIL import Image

    def dulled(graph: Any) -> None:
        (tensor,) = (tensor for tensor in graph.initializer if tensor.name == "fc.weight")
        tensor.CopyFrom(onnx.numpy_helper.from_array(0 * onnx.numpy_helper.to_array(tensor), "fc.weight"))

    found = verify(plant("model.int8.onnx", dulled), data=str(healthy.data), backends="ort")
    (sheet,) = write_contact_sheets(tmp_path / "flips", found)
    assert sheet.name == "ort-int8.png"
    with Image.open(sheet) as image:
        assert image.width > 1000
        assert len({pixel for _, pixel in image.getcolors(1 << 20) or []}) > 100
    listed = json.loads((tmp_path / "flips" / LISTED).read_text())
    assert len(listed["flipped"]["ort int8"]) == found.pairs["ort int8"].parity.flips
    write_contact_sheets(tmp_path / "flips", found)  # its own folder may be written again
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/photo.txt").write_text("mine")
    with pytest.raises(ToolkitError, match=LISTED):
        write_contact_sheets(tmp_path / "theirs", found)
    assert [path.name for path in (tmp_path / "theirs").iterdir()] == ["photo.txt"]


def test_without_onnx_what_needs_it_is_said_and_the_rest_is_done(
    healthy: Healthy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    found = verify(healthy.bundle, data=str(healthy.data), backends="ort", precisions="fp32,int8")
    assert found.ok
    assert list(found.not_checked) == [f"the files of {healthy.bundle}"]
    assert "onnx is needed" in next(iter(found.not_checked.values()))


def test_a_bundle_that_was_tampered_with_is_refused_before_anything_runs(healthy: Healthy, tmp_path: Path) -> None:
    shutil.copytree(healthy.bundle, tmp_path / "b")
    (tmp_path / "b/model.onnx").write_bytes(b"other")
    with pytest.raises(ToolkitError, match="changed since"):
        verify(tmp_path / "b", backends="ort")
    rehashed(tmp_path / "b")
    with pytest.raises(ToolkitError, match=r"not a(n| whole) ONNX file"):
        verify(tmp_path / "b", data=str(healthy.data), backends="ort", precisions="int8")


def test_layers_are_refused_where_there_is_no_onnx_before_anything_runs(
    healthy: Healthy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    done: list[str] = []
    with pytest.raises(MissingPackage, match="onnx is needed to compare layers"):
        verify(healthy.bundle, layers=True, on_step=lambda what, *_: done.append(what))
    assert done == []
