"""Claims about `toolkit train --qat`: the INT8 files carry what was learned, and misuse is one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Toolkit
from toolkit.calibration.record import record_from_file
from toolkit.quantization.scales import activation_scale

QAT = "train tiny-qat --from tiny --data set.npz --qat --epochs 1 --crop 0 --no-flip --images 64"


def train_once(toolkit: Toolkit) -> str:
    """Trains `tiny-qat` in the workspace, unless another test here did, and returns the record that it left."""
    kept = Path("learned.json")
    if not kept.exists():
        answer = toolkit(*QAT.split())
        assert answer.code == 0, answer.text
        kept.write_text(Path("calibration/tiny-qat/record.json").read_text())
    return kept.read_text()


@pytest.mark.slow
def test_export_takes_the_qat_scales_and_says_so(toolkit: Toolkit, tmp_path: Path) -> None:
    train_once(toolkit)
    answer = toolkit("export", "tiny-qat", "--int8", "-o", tmp_path / "b", "--no-engines")
    assert answer.code == 0, answer.text
    assert "learned" in answer.text
    assert answer.document["calibration"]["method"] == "learned"
    record = record_from_file(Path("calibration/tiny-qat/record.json"))
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(tmp_path / "b" / "model.int8.onnx").graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for name, amax in record.amax.items():
        assert values[f"{name}_scale"] == activation_scale(amax)


@pytest.mark.slow
def test_the_card_has_both_accuracies_and_verify_finds_the_float_one(toolkit: Toolkit) -> None:
    train_once(toolkit)
    card = json.loads(Path("models/tiny-qat/card.json").read_text())
    simulated = card["training"]["fake_quantised_accuracy"]
    assert simulated["precision"] == "int8, simulated"
    assert abs(simulated["top1_percent"] - card["accuracy"]["top1_percent"]) < 10
    assert toolkit("verify", "tiny-qat", "--data", "set.npz").code == 0


@pytest.mark.slow
def test_another_method_measures_again(toolkit: Toolkit, tmp_path: Path) -> None:
    train_once(toolkit)
    answer = toolkit("export", "tiny-qat", "--int8", "--method", "minmax", "-o", tmp_path / "b", "--no-engines")
    assert answer.code == 0, answer.text
    assert answer.document["calibration"]["method"] == "minmax"


@pytest.mark.slow
def test_a_qat_record_of_other_weights_is_refused(toolkit: Toolkit, tmp_path: Path) -> None:
    path = Path("calibration/tiny/record.json")
    path.write_text(train_once(toolkit))
    try:
        answer = toolkit("export", "tiny", "--int8", "-o", tmp_path / "b", "--no-engines")
    finally:
        path.unlink()
    assert answer.code == 1
    assert "stale" in answer.document["what"]
    assert "--method auto" in answer.document["fix"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train q --data set.npz --qat --epochs 1", "fine-tunes a trained model"),
        ("train q --from tiny --data set.npz --qat --amp bf16", "float32"),
    ],
)
def test_misuse_is_refused(toolkit: Toolkit, words: str, said: str) -> None:
    answer = toolkit(*words.split())
    assert answer.code == 1
    assert said in answer.document["what"]
    assert not Path("models/q").exists()
