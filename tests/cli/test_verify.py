"""Claims about `toolkit verify`: verdicts in words, exit codes, two bundles, layers, sheets."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.cli.conftest import Toolkit
from tests.manifests import rehashed


def _broken(tiny_workspace: Path, target: Path, file: str = "model.int8.onnx") -> Path:
    """A copy of the bundle in which a file's head is negated, with a manifest that agrees."""
    shutil.copytree(tiny_workspace / "bundles/tiny", target)
    model = onnx.load(target / file)
    head = next(tensor for tensor in model.graph.initializer if tensor.name == "fc.weight")
    head.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(head), "fc.weight"))
    onnx.save(model, target / file)
    return rehashed(target)


def test_a_name_is_a_bundle_first_and_a_models_card_is_asked_for(toolkit: Toolkit) -> None:
    bundle = toolkit("verify", "tiny", "--backend", "ort", "--precision", "fp32", "--data", "set.npz", "--gate", "0")
    card = toolkit("verify", "tiny", "--card", "--data", "set.npz")
    assert (bundle.document["schema"], card.document["schema"]) == ("toolkit/verify/1", "toolkit/verify-model/1")
    assert bundle.document["classes"]["ort fp32"]["per_class"] == card.document["classes"]["per_class"]
    assert "class by class" in bundle.text


@pytest.mark.slow
def test_a_tolerance_beside_the_gate_counts_logits(toolkit: Toolkit) -> None:
    words = (
        "verify",
        "bundles/tiny",
        "--backend",
        "ort",
        "--precision",
        "fp32,int8",
        "--data",
        "set.npz",
        "--gate",
        "0",
    )
    strict = toolkit(*words, "--atol", "1e-7")
    assert strict.code == 1
    assert strict.document["beyond"]["ort fp32"] == 0
    assert strict.document["beyond"]["ort int8"] > 0
    assert "Beyond --atol and --rtol: ort int8" in strict.text
    loose = toolkit(*words, "--atol", "100", "--rtol", "1")
    assert (loose.code, loose.document["beyond"]) == (0, {"ort fp32": 0, "ort int8": 0})
    assert "beyond" not in toolkit(*words).document


def test_a_bundle_that_is_not_there_is_said_with_the_one_that_was_meant(toolkit: Toolkit) -> None:
    answer = toolkit("bench", "bundles/tinny")
    assert "there is no bundle 'bundles/tinny'" in answer.text
    assert "did you mean bundles/tiny?" in answer.text


@pytest.mark.slow
def test_too_few_images_are_said_pass_and_with_strict_do_not(toolkit: Toolkit) -> None:
    words = ("verify", "--backend", "ort", "--precision", "int8", "--sample", "40")
    answer = toolkit(*words)
    assert answer.code == 0
    assert answer.document["verdicts"] == {"ort int8": "undecided"}
    assert "40 images are too few to decide" in answer.text
    assert "images would" in " ".join(answer.text.split())
    assert answer.document["parity"][0]["verdict"]["images_needed"] > 40
    assert toolkit(*words, "--strict").code == 1
    assert toolkit(*words, "--strict", "--gate", "80").code == 0


def test_a_gate_of_99_is_decided_on_enough_images_and_said_to_be_met(toolkit: Toolkit) -> None:
    answer = toolkit("verify", "--backend", "ort", "--precision", "fp32,fp16", "--gate", "95", "--strict")
    assert answer.code == 0
    assert set(answer.document["verdicts"].values()) == {"pass"}
    assert "still the same model" in answer.text


@pytest.mark.slow
def test_where_a_difference_comes_from_is_a_table_of_steps(toolkit: Toolkit) -> None:
    answer = toolkit("verify", "--gate", "80")
    steps = [(source["kind"], source["reference"], source["candidate"]) for source in answer.document["sources"]]
    assert ("export", "torch fp32", "ort fp32") in steps
    assert ("half precision", "ort fp32", "ort fp16") in steps
    assert ("quantisation", "ort fp32", "ort int8") in steps
    assert "Where a difference comes from" in answer.text
    jsonschema = pytest.importorskip("jsonschema", reason="needs the dependency group oracles")
    schema = json.loads((Path(__file__).parents[2] / "docs/schema/verify.v1.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(answer.document)


@pytest.mark.slow
def test_two_bundles_are_compared_runner_by_runner(toolkit: Toolkit, tiny_workspace: Path, tmp_path: Path) -> None:
    second = _broken(tiny_workspace, tmp_path / "second")
    answer = toolkit("verify", "bundles/tiny", second, "--backend", "ort", "--gate", "90")
    assert answer.code == 1
    assert [name for name, good in answer.document["passed"].items() if not good] == ["B ort int8"]
    assert answer.document["other"] == str(second)
    assert "Below the gate: B ort int8" in answer.text


def test_an_onnx_file_beside_a_bundle(toolkit: Toolkit, tiny_workspace: Path) -> None:
    file = tiny_workspace / "bundles/tiny/model.int8-cpu.onnx"
    answer = toolkit("verify", "bundles/tiny", file, "--backend", "ort", "--gate", "90")
    assert answer.code == 0
    assert set(answer.document["passed"]) == {"model.int8-cpu.onnx"}


@pytest.mark.slow
def test_layers_name_the_node_where_two_files_part(toolkit: Toolkit, tiny_workspace: Path, tmp_path: Path) -> None:
    second = _broken(tiny_workspace, tmp_path / "second")
    answer = toolkit("verify", "bundles/tiny", second, "--backend", "ort", "--precision", "int8", "--layers")
    assert [layers["parted"] for layers in answer.document["layers"]] == ["fc/Gemm"]
    assert "They part at 'fc/Gemm'" in answer.text


@pytest.mark.slow
def test_flips_are_saved_as_sheets_or_nothing_is(toolkit: Toolkit, tiny_workspace: Path, tmp_path: Path) -> None:
    broken = _broken(tiny_workspace, tmp_path / "broken")
    answer = toolkit("verify", broken, "--backend", "ort", "--save-worst", tmp_path / "flips")
    assert answer.code == 1
    assert answer.document["sheets"] == [str(tmp_path / "flips/ort-int8.png")]
    assert {path.name for path in (tmp_path / "flips").iterdir()} == {"flips.json", "ort-int8.png"}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    answer = toolkit("verify", broken, "--backend", "ort", "--save-worst", tmp_path / "mine")
    assert answer.code == 1
    assert "flips.json" in answer.document["what"]
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_a_fault_of_the_images_is_a_likely_cause(toolkit: Toolkit, tiny_workspace: Path, tmp_path: Path) -> None:
    with np.load(tiny_workspace / "set.npz") as arrays:
        values = dict(arrays)
    values["test_labels"] = (values["test_labels"] + 1) % 4
    np.savez(tmp_path / "shifted.npz", **values)
    answer = toolkit("verify", "--backend", "ort", "--precision", "fp32", "--data", tmp_path / "shifted.npz")
    assert answer.code == 1
    assert [cause["name"] for cause in answer.document["likely_causes"]] == ["the labels are shifted by 1"]
    assert "likely cause: the labels are shifted by 1" in " ".join(answer.text.split())


@pytest.mark.parametrize(
    "words", [("bundles/tiny", "nowhere"), ("bundles/tiny", "none.onnx"), ("models/tiny", "bundles/tiny")]
)
def test_what_cannot_be_compared_is_one_error(toolkit: Toolkit, words: tuple[str, ...]) -> None:
    answer = toolkit("verify", *words, "--backend", "ort")
    assert answer.code == 1
    assert answer.document["what"]
    assert "Traceback" not in answer.text
