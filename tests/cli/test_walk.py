"""The walk on a tiny net: every command does what it says and leaves one JSON document."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.cli.conftest import Toolkit, arrays_of, structured_set
from tests.manifests import rehashed
from toolkit.bundle import bundle_from_folder
from toolkit.bundle.manifest import VARIANTS

PRECISIONS = {"fp32", "fp16", "int8", "int8-fp16", "int8-cpu"}
ON_ORT = PRECISIONS - {"int8-fp16"}  # what bench takes by default: that file is for a TensorRT


def test_training_wrote_card_weights_and_disjoint_images(tiny_workspace: Path) -> None:
    card = json.loads((tiny_workspace / "models/tiny/card.json").read_text())
    assert card["labels"] == ["north", "upper", "lower", "south"]
    assert card["accuracy"]["images"] == 120
    assert card["accuracy"]["top1_percent"] > 90
    low, high = card["accuracy"]["interval95_percent"]
    assert low < card["accuracy"]["top1_percent"] <= high
    assert card["training"]["command"].startswith("toolkit train tiny")
    kept = {
        name: {image.tobytes() for image in arrays_of(tiny_workspace / f"calibration/tiny/{name}.npz")["images"]}
        for name in ("calibration", "evaluation")
    }
    assert len(kept["calibration"]) == 64
    assert not kept["calibration"] & kept["evaluation"]


def test_a_bundle_holds_what_the_manifest_says(tiny_workspace: Path) -> None:
    bundle = bundle_from_folder(tiny_workspace / "bundles/tiny")
    assert set(bundle.precisions) == PRECISIONS
    assert bundle.preprocessing.shape == (32, 32, 1)
    images, logits = bundle.golden()
    assert len(images) == 64
    assert set(logits) == PRECISIONS
    assert bundle.manifest["calibration"]["images"] == 64
    on_disk = {p.relative_to(bundle.folder).as_posix() for p in bundle.folder.rglob("*") if p.is_file()}
    logs = {name for name in on_disk if name.endswith(".engine.log")}
    assert on_disk - logs == {*bundle.manifest["files"], "manifest.json"}
    assert {f"{name}.log" for name in on_disk if name.endswith(".engine")} == logs


def test_export_names_each_file_with_top1_and_agreement(toolkit: Toolkit, tmp_path: Path) -> None:
    answer = toolkit("export", "tiny", "--int8", "-o", tmp_path / "b", "--no-engines")
    assert answer.code == 0
    assert set(answer.document["accuracy"]) == PRECISIONS - {"fp16"}
    assert answer.document["accuracy"]["int8"]["agreement_percent"] > 90
    assert "model.int8.onnx" in answer.text
    assert answer.document["no_engines"] == "not asked for"
    assert not list((tmp_path / "b").glob("engines"))


@pytest.mark.slow
def test_export_takes_a_model_folder_and_other_images(toolkit: Toolkit, tmp_path: Path, tiny_workspace: Path) -> None:
    answer = toolkit(
        "export", tiny_workspace / "models/tiny", "--int8", "--no-engines", "--data", "set.npz", "--images", "40",
        "--method", "minmax", "-o", tmp_path / "b",
    )  # fmt: skip
    assert answer.code == 0
    assert answer.document["calibration"]["images"] == 40
    assert answer.document["calibration"]["method"] == "minmax"


@pytest.mark.slow
def test_the_same_export_twice_writes_the_same_bytes(toolkit: Toolkit, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert toolkit("export", "tiny", "--int8", "--fp16", "--no-engines", "-o", tmp_path / name).code == 0
    for name in (*(variant.file for variant in VARIANTS.values()), "record.json", "calib.cache"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.slow
def test_verify_takes_the_newest_bundle_and_says_which(toolkit: Toolkit) -> None:
    answer = toolkit("verify")
    assert answer.code == 0
    assert "bundles/tiny" in answer.text
    assert set(answer.document["passed"]) == {"torch fp32"} | {f"ort {precision}" for precision in PRECISIONS}
    assert all(answer.document["passed"].values())
    assert "trt" in answer.document["unavailable"]


def test_verify_fails_below_the_gate(toolkit: Toolkit, tmp_path: Path, tiny_workspace: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_workspace / "bundles/tiny", broken)
    model = onnx.load(broken / "model.int8.onnx")
    head = next(tensor for tensor in model.graph.initializer if tensor.name == "fc.weight")
    head.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(head), "fc.weight"))
    onnx.save(model, broken / "model.int8.onnx")
    rehashed(broken)
    answer = toolkit("verify", broken, "--backend", "ort")
    assert answer.code == 1
    assert answer.document["passed"] == {f"ort {precision}": precision != "int8" for precision in PRECISIONS}
    assert "Below the gate: ort int8" in answer.text


@pytest.mark.slow
def test_a_backend_that_was_asked_for_and_cannot_run_is_no_success(toolkit: Toolkit) -> None:
    answer = toolkit("verify", "--backend", "ort,trt")
    assert answer.code == 1
    assert answer.document["ok"] is False
    assert set(answer.document["passed"]) == {f"ort {precision}" for precision in PRECISIONS}
    assert "trt" in answer.text


@pytest.mark.parametrize("backend", ["ort-cuda", "ort-trt"])
def test_a_gpu_provider_that_is_not_here_is_named_and_not_replaced(toolkit: Toolkit, backend: str) -> None:
    answer = toolkit("bench", "--backend", f"ort,{backend}", "--precision", "fp32", "--batch", "1", "--seconds", "0.05")
    if backend not in answer.document["unavailable"]:
        pytest.skip(f"{backend} runs here")
    assert answer.code == 1
    assert set(answer.document["runners"]) == {"ort fp32"}
    assert answer.text.count(f"not run: {backend}") == 1


@pytest.mark.parametrize("verb", ["verify", "bench"])
def test_tensorrt_without_a_gpu_is_one_error(toolkit: Toolkit, verb: str) -> None:
    answer = toolkit(verb, "--backend", "trt")
    assert answer.code == 1
    assert answer.document["error"] == "BackendUnavailable"
    assert "driver" in answer.document["found"] or "imported" in answer.document["found"]
    assert "Traceback" not in answer.text


def test_int8_alone_is_compared_with_the_fp32_file(toolkit: Toolkit) -> None:
    answer = toolkit("verify", "--backend", "ort", "--precision", "int8", "--sample", "40")
    assert answer.code == 0
    assert [p["reference"] for p in answer.document["parity"]] == ["ort fp32"]
    assert answer.document["images"]["count"] == 40


def test_images_that_calibrated_never_evaluate(toolkit: Toolkit, tmp_path: Path, tiny_workspace: Path) -> None:
    calibrated = arrays_of(tiny_workspace / "calibration/tiny/calibration.npz")
    fresh, labels = structured_set(20, 4, seed=9)
    np.savez(
        tmp_path / "mixed.npz",
        train_images=fresh, train_labels=labels, classes=calibrated["classes"],
        test_images=np.concatenate([calibrated["images"][:10], fresh]),
        test_labels=np.concatenate([calibrated["labels"][:10], labels]),
    )  # fmt: skip
    answer = toolkit("verify", "--backend", "ort", "--data", tmp_path / "mixed.npz")
    assert answer.document["images"]["count"] == 20
    assert "10 calibration images left out" in " ".join(answer.text.split())


@pytest.mark.slow
def test_bench_prints_percentiles_of_every_runner(toolkit: Toolkit) -> None:
    answer = toolkit("bench", "--backend", "torch,ort", "--batch", "1,4", "--seconds", "0.05")
    assert answer.code == 0
    assert len(answer.document["latency"]) == 2 * (1 + len(ON_ORT))
    for entry in answer.document["latency"]:
        assert 0 < entry["min_ms"] <= entry["p50_ms"] <= entry["p90_ms"] <= entry["p99_ms"]
    assert answer.document["host"]["cores"] >= 1


def test_init_makes_the_three_rooms(toolkit: Toolkit, tmp_path: Path) -> None:
    assert toolkit("init", tmp_path / "w").code == 0
    assert {p.name for p in (tmp_path / "w").iterdir()} == {"models", "calibration", "export", ".gitignore"}


@pytest.mark.slow
def test_a_target_decides_what_engines_are_built_for(toolkit: Toolkit, tmp_path: Path, tiny_workspace: Path) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="needs the TensorRT-RTX wheels (extra rtx)")
    answer = toolkit("export", "tiny", "--target", "rtx", "--batch", "1:4:16", "-o", tmp_path / "b")
    assert answer.code == 0
    [engine] = answer.document["engines"]
    sidecar = json.loads((tmp_path / "b" / (engine["file"] + ".json")).read_text())
    assert sidecar["compute_capabilities"] == ["SM86", "SM89", "SM120"]
    assert sidecar["profile"]["images"] == [[1, 32, 32, 1], [4, 32, 32, 1], [16, 32, 32, 1]]


def test_tensorrt_builds_every_precision_with_int8_convolutions(tiny_workspace: Path) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="needs the TensorRT-RTX wheels (extra rtx)")
    engines = {e["precision"]: e for e in bundle_from_folder(tiny_workspace / "bundles/tiny").engines()}
    assert set(engines) == PRECISIONS - {"int8-cpu"}
    for precision, reads in (("fp32", "Float"), ("fp16", "Half"), ("int8", "Int8"), ("int8-fp16", "Int8")):
        layer_report = engines[precision]["census"]
        assert layer_report["convolutions_reading"][reads] == layer_report["convolutions"] > 0


def test_the_file_for_a_strongly_typed_tensorrt_is_judged_here_when_asked_by_name(toolkit: Toolkit) -> None:
    answer = toolkit("verify", "--backend", "ort", "--precision", "fp32,int8-fp16", "--sample", "60")
    assert answer.code == 0
    assert set(answer.document["passed"]) == {"ort fp32", "ort int8-fp16"}


def test_a_models_card_is_held_against_its_weights(toolkit: Toolkit, tmp_path: Path, tiny_workspace: Path) -> None:
    answer = toolkit("verify", "tiny", "--card", "--data", "set.npz")
    assert answer.code == 0
    assert answer.document["images"]["count"] == 120
    assert answer.document["card_top1_percent"] == pytest.approx(answer.document["score"]["top1_percent"], abs=0.01)
    boast = tmp_path / "boast"
    shutil.copytree(tiny_workspace / "models/tiny", boast)
    card = json.loads((boast / "card.json").read_text())
    card["accuracy"]["top1_percent"] -= 1.5
    (boast / "card.json").write_text(json.dumps(card))
    answer = toolkit("verify", boast, "--data", "set.npz")
    assert answer.code == 1
    assert "NOT TRUE" in answer.text


def test_on_other_images_a_card_is_neither_true_nor_false(toolkit: Toolkit) -> None:
    answer = toolkit("verify", "tiny", "--card", "--data", "set.npz", "--sample", "40")
    assert answer.code == 0
    assert answer.document["card_top1_percent"] is None
    assert "other images" in answer.text


def test_a_model_is_no_bundle(toolkit: Toolkit) -> None:
    answer = toolkit("verify", "tiny", "--card", "--backend", "ort")
    assert answer.code == 1
    assert "toolkit export tiny" in answer.text


@pytest.mark.slow
def test_a_jetpack_decides_the_version_of_the_calib_cache_and_its_engines_wait_for_the_device(
    toolkit: Toolkit, tmp_path: Path
) -> None:
    done = toolkit("export", "tiny", "--int8", "--target", "jetpack60", "-o", tmp_path / "b")
    assert done.code == 0, done.text
    assert (tmp_path / "b/calib.cache").read_text().startswith("TRT-8602-EntropyCalibration2\n")
    assert done.document["engines"] == []
    assert "jetpack60" in done.document["no_engines"]
