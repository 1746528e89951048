"""Claims about calibrate and sensitivity: records that export takes again, tables, files, and refusals."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.cli.conftest import Toolkit, structured_set
from tests.cli.test_bad_input import leftovers, refused
from toolkit.calibration.methods import CANDIDATES
from toolkit.exporting.writing import CURVE

CLASSES = np.array(["north", "upper", "lower", "south"])


def _npz(path: Path, images: object, labels: object) -> Path:
    test, test_labels = structured_set(12, 4, seed=77)
    np.savez(path, train_images=images, train_labels=labels, test_images=test, test_labels=test_labels, classes=CLASSES)  # type: ignore[arg-type]
    return path


@pytest.mark.slow
def test_auto_prints_every_candidate_and_the_record_names_the_winner(toolkit: Toolkit, tmp_path: Path) -> None:
    answer = toolkit("calibrate", "tiny", "-o", tmp_path / "r")
    assert answer.code == 0
    assert {entry["method"] for entry in answer.document["candidates"]} == set(CANDIDATES)
    winner = answer.document["candidates"][0]["method"]
    record = json.loads((tmp_path / "r/record.json").read_text())
    assert record["belongs_to"]["method"] == winner
    assert record["notes"]["why"].startswith(winner)
    assert all(name in answer.text for name in CANDIDATES)
    assert "its logits are nearest to fp32's" in " ".join(answer.text.split())


@pytest.mark.slow
def test_a_record_is_reused_by_export_and_gives_the_same_files(toolkit: Toolkit, tmp_path: Path) -> None:
    assert toolkit("calibrate", "tiny", "--method", "mse", "-o", tmp_path / "r").code == 0
    record = tmp_path / "r/record.json"
    for name, words in (("a", ("--record", record)), ("b", ("--method", "mse"))):
        answer = toolkit("export", "tiny", "--int8", "--no-engines", "-o", tmp_path / name, *words)
        assert answer.code == 0
        assert answer.document["calibration"]["method"] == "mse"
    for name in ("model.int8.onnx", "model.int8-fp16.onnx", "model.int8-cpu.onnx", "calib.cache", "record.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.slow
def test_the_bundles_onnx_file_has_the_record_of_its_model(
    toolkit: Toolkit, tmp_path: Path, tiny_workspace: Path
) -> None:
    keys = [
        toolkit("calibrate", subject, "--method", "minmax", "-o", tmp_path / name).document["key"]
        for name, subject in (("a", "tiny"), ("b", tiny_workspace / "bundles/tiny/model.onnx"))
    ]
    assert keys[0] == keys[1]


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["calibrate", "sensitivity"])
def test_the_next_command_works_as_it_is_printed(
    toolkit: Toolkit, tmp_path: Path, tiny_workspace: Path, verb: str
) -> None:
    file = tiny_workspace / "bundles/tiny/model.onnx"
    for out, model in (("a", "tiny"), ("b", str(file))):
        answer = toolkit(verb, model, "--images", "40", "-o", tmp_path / f"{out}-out")
        printed = re.search(r"Next: toolkit (export.*)$", " ".join(answer.text.split()).partition(" {")[0])
        assert printed, answer.text
        words = shlex.split(printed[1])
        assert words[:4] == ["export", "tiny", "--images", "40"]
        assert toolkit(*words, "--no-engines", "-o", tmp_path / "b").code == 0
    file = tmp_path / "b/model.onnx"
    model = onnx.load(file)
    next(entry for entry in model.metadata_props if entry.key == "toolkit.weights_sha256").value = "other"
    onnx.save(model, tmp_path / "model.onnx")
    answer = toolkit(verb, tmp_path / "model.onnx", "-o", tmp_path / "out")
    assert "export its network again as you did for this bundle" in " ".join(answer.text.split())


def test_what_a_bundles_file_says_itself_is_refused_as_an_option(toolkit: Toolkit, tiny_workspace: Path) -> None:
    answer = toolkit("sensitivity", tiny_workspace / "bundles/tiny/model.onnx", "--mean", "0.5", "--std", "0.2")
    refused(answer, "--mean, --std is in a bundle's file already")


@pytest.mark.slow
def test_a_record_of_other_images_weights_or_preprocessing_is_refused_by_part(toolkit: Toolkit, tmp_path: Path) -> None:
    assert toolkit("calibrate", "tiny", "--images", "40", "-o", tmp_path / "r").code == 0
    answer = toolkit("export", "tiny", "--int8", "--record", tmp_path / "r/record.json", "-o", tmp_path / "b")
    refused(answer, "stale", "changed: the calibration images")
    assert "the network" not in answer.document["found"]
    assert not (tmp_path / "b").exists()
    answer = toolkit(
        "train", "other", "--arch", "resnet8", "--widths", "8,16", "--blocks", "1,1", "--strides", "1,2", "--data",
        "set.npz", "--epochs", "1", "--images", "64",
    )  # fmt: skip
    assert answer.code == 0
    assert toolkit("calibrate", "tiny", "-o", tmp_path / "r").code == 0
    again = ("--record", tmp_path / "r/record.json", "-o", tmp_path / "b", "--force")  # one epoch is not much
    answer = toolkit("export", "other", "--int8", *again)
    refused(answer, "changed: the network (weights or graph)")
    assert "the calibration images" not in answer.document["found"]


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["calibrate", "sensitivity", "export --int8 --no-engines"])
def test_noise_is_refused_and_forced_into_the_record(toolkit: Toolkit, tmp_path: Path, verb: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 1), dtype=np.uint8)
    data = _npz(tmp_path / "noise.npz", noise, np.arange(60) % 4)
    first, *rest = verb.split()
    words = (first, "tiny", *rest, "--data", data, "-o", tmp_path / "out")
    refused(toolkit(*words), "would set wrong ranges", "pixels are noise", "--force")
    assert not (tmp_path / "out").exists()
    assert toolkit(*words, "--force").code == 0
    record = tmp_path / "out/record.json"
    if record.is_file():
        assert "pixels are noise" in json.loads(record.read_text())["notes"]["forced"][0]
    assert leftovers(tmp_path) == []


@pytest.mark.slow
def test_sensitivity_ranks_every_convolution_in_table_json_and_png(toolkit: Toolkit, tmp_path: Path) -> None:
    answer = toolkit("sensitivity", "tiny", "-o", tmp_path / "s")
    assert answer.code == 0
    written = json.loads((tmp_path / "s/sensitivity.json").read_text())
    assert written["layers"] == answer.document["layers"]
    names = [layer["node"] for layer in written["layers"]]
    assert len(names) == 6
    assert all(name in answer.text for name in names)
    distances = [layer["relative_l2"] for layer in written["layers"]]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] > 0
    assert (tmp_path / "s/sensitivity.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_budget_is_met_and_its_curve_is_in_the_bundle(toolkit: Toolkit, tmp_path: Path) -> None:
    answer = toolkit("export", "tiny", "--int8", "--max-drop", "50", "--no-engines", "-o", tmp_path / "b")
    assert answer.code == 0
    assert answer.document["kept_in_float"] == []
    assert [point["int8_percent"] for point in answer.document["curve"]][-1] == 100
    assert CURVE in answer.document["files"]
    assert "INT8 convolutions" in " ".join(answer.text.split())
    refused(toolkit("export", "tiny", "--max-drop", "1", "-o", tmp_path / "c"), "--max-drop is about INT8")


def test_what_is_quantized_or_no_onnx_file_is_refused(toolkit: Toolkit, tmp_path: Path, tiny_workspace: Path) -> None:
    refused(toolkit("calibrate", tiny_workspace / "bundles/tiny/model.int8.onnx"), "is quantized already")
    (tmp_path / "x.onnx").write_bytes(b"hello")
    refused(toolkit("calibrate", tmp_path / "x.onnx"), "not a whole ONNX file")
    refused(toolkit("calibrate", tmp_path / "none.onnx"), "does not exist")


@pytest.fixture
def users_file(tmp_path: Path, tiny_workspace: Path) -> Path:
    """The tiny net without preprocessing, as another exporter writes it: float NCHW in, nodes without names."""
    model = onnx.load(tiny_workspace / "bundles/tiny/model.onnx")
    graph = model.graph
    nodes = [type(n).FromString(n.SerializeToString()) for n in graph.node if not n.name.startswith("preprocess/")]
    kept = [tensor for tensor in graph.initializer if not tensor.name.startswith("preprocess.")]
    kept = [type(tensor).FromString(tensor.SerializeToString()) for tensor in kept]
    del graph.node[:], graph.input[:], graph.initializer[:], model.metadata_props[:]
    graph.initializer.extend(kept)
    for node in nodes:
        node.name = ""
        node.input[:] = ["x" if name.startswith("preprocess/") else name for name in node.input]
    graph.node.extend(nodes)
    graph.input.append(onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 1, 32, 32]))
    onnx.save(model, tmp_path / "users.onnx")
    return tmp_path / "users.onnx"


@pytest.mark.slow
def test_a_users_file_with_its_normalization_has_the_ranges_of_the_model(
    toolkit: Toolkit, tmp_path: Path, users_file: Path, tiny_workspace: Path
) -> None:
    preprocessing = json.loads((tiny_workspace / "models/tiny/card.json").read_text())["preprocessing"]
    words = ("--data", "set.npz", "--images", "40", "--method", "minmax", "-o")
    own = toolkit("calibrate", "tiny", *words, tmp_path / "own")
    mean, std = (str(preprocessing[key][0]) for key in ("mean", "std"))
    other = toolkit("calibrate", users_file, "--mean", mean, "--std", std, *words, tmp_path / "other")
    assert own.code == other.code == 0
    amax = [list(json.loads((tmp_path / n / "record.json").read_text())["amax"].values()) for n in ("own", "other")]
    assert amax[0] == pytest.approx(amax[1], rel=1e-6)


@pytest.mark.slow
def test_a_forgotten_or_wrong_normalization_is_refused(toolkit: Toolkit, tmp_path: Path, users_file: Path) -> None:
    words = ("calibrate", users_file, "--data", "set.npz", "--images", "40", "-o", tmp_path / "r")
    refused(toolkit(*words), "does not say what its pixels are", "--mean", "--pixels")
    wrong = ("--mean", "0", "--std", "1")
    refused(toolkit(*words, *wrong), "not normalized", "--mean", "--force")
    forced = toolkit(*words, *wrong, "--force")
    assert forced.code == 0
    assert "not normalized" in forced.document["notes"]["forced"][0]
    refused(toolkit("calibrate", users_file, "--mean", "0.5", "--std", "0.2"), "needs --data", "--data FOLDER")
    refused(toolkit(*words, "--mean", "a"), "--mean cannot be read")
    refused(toolkit("calibrate", "tiny", "--mean", "0.5"), "--mean belongs to a network of your own")
