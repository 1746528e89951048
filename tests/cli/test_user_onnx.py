"""`toolkit export FILE.onnx`: from a user's file to a bundle that verify, bench and TensorRT take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.cli.conftest import Toolkit, arrays_of
from tests.exporting.test_user_onnx import classifier
from toolkit.bundle import bundle_from_folder
from toolkit.bundle.manifest import VARIANTS


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A file from an old exporter, and images of its size and classes beside it."""
    model = classifier(opset=11, batch=1, nhwc=True, auto_pad="SAME_UPPER", tail="shape", softmax=True, odd=True)
    (tmp_path / "their net.onnx").write_bytes(model.SerializeToString())
    draws = np.random.default_rng(5)
    base = np.kron(draws.integers(0, 256, (5, 4, 4, 3)), np.ones((1, 4, 4, 1), np.int64))  # patches, as in photographs
    for part, count in (("train", 120), ("test", 60)):
        labels = np.arange(count) % 5
        noise = draws.integers(-20, 20, (count, 16, 16, 3))
        images = np.clip(base[labels] + noise, 0, 255).astype(np.uint8)
        np.savez(tmp_path / f"{part}.npz", images=images, labels=labels)
    parts = {part: arrays_of(tmp_path / f"{part}.npz") for part in ("train", "test")}
    np.savez(
        tmp_path / "set.npz",
        classes=np.array(["a", "b", "c", "d", "e"]),
        **{f"{part}_{key}": values[key] for part, values in parts.items() for key in ("images", "labels")},
    )
    return tmp_path / "their net.onnx"


UNTRAINED = ("--force",)  # random weights: export finds them at chance
NUMBERS = ("--mean", "0.4,0.5,0.6", "--std", "0.2,0.25,0.3")


@pytest.mark.slow
def test_a_users_file_becomes_a_bundle_that_can_be_verified_and_measured(toolkit: Toolkit, theirs: Path) -> None:
    folder = theirs.parent / "bundle"
    done = toolkit(
        "export", theirs, "--data", theirs.parent / "set.npz", *NUMBERS, *UNTRAINED, "--int8", "--fp16", "-o", folder
    )
    assert done.code == 0, done.text
    assert "Softmax at the end stripped" in done.document["decided"]["repairs"]
    bundle = bundle_from_folder(folder)
    assert bundle.model == "their-net"
    assert set(bundle.precisions) == {"fp32", "fp16", "int8", "int8-fp16", "int8-cpu"}
    assert bundle.manifest["checks"]["onnx_against_original"]
    verified = toolkit("verify", folder, "--gate", "50")
    assert verified.code == 0, verified.text
    assert "exported from" in verified.document["unavailable"]["torch"]
    assert toolkit("bench", folder, "--backend", "ort", "--batch", "1", "--seconds", "0.05").code == 0
    for engine in bundle.engines():
        wanted = 2 if VARIANTS[engine["precision"]].precision == "int8" else 0
        assert engine["census"]["convolutions_reading"]["Int8"] == wanted


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "does not say what its pixels are"),
        ((*NUMBERS, "--labels", "a,b"), "5 logits for 2 labels"),
        ((*NUMBERS, "--checkpoint", "w.pth"), "does not go with an ONNX file"),
        ((*NUMBERS, "--layout", "nchw"), "takes no images"),
        (("--mean", "0.4,0.5", "--std", "0.2,0.2"), "mean"),
    ],
)
def test_what_does_not_fit_is_one_error_and_leaves_nothing(
    toolkit: Toolkit, theirs: Path, words: tuple[str, ...], said: str
) -> None:
    folder = theirs.parent / "bundle"
    done = toolkit("export", theirs, "--data", theirs.parent / "set.npz", *words, "--int8", "-o", folder)
    assert done.code == 1
    assert said in done.text
    assert "Traceback" not in done.text
    assert not folder.exists()


def test_a_file_needs_images_and_exists(toolkit: Toolkit, theirs: Path) -> None:
    assert "needs --data" in toolkit("export", theirs, *NUMBERS).text
    missing = toolkit("export", theirs.with_name("none.onnx"), "--data", "cifar10", *NUMBERS)
    assert (missing.code, "none.onnx" in missing.text) == (1, True)


@pytest.mark.slow
def test_calibrate_and_sensitivity_take_what_export_takes_and_export_takes_their_record(
    toolkit: Toolkit, theirs: Path
) -> None:
    folder, data = theirs.parent, ("--data", theirs.parent / "set.npz")
    measured = toolkit("calibrate", theirs, *data, *NUMBERS, "--method", "mse", "-o", folder / "r")
    assert measured.code == 0, measured.text
    record = ("--record", folder / "r/record.json")
    written = toolkit(
        "export", theirs, *data, *NUMBERS, *UNTRAINED, "--int8", *record, "--no-engines", "-o", folder / "b"
    )
    assert written.code == 0, written.text
    assert written.document["calibration"]["key"] == measured.document["key"]
    ranked = toolkit("sensitivity", theirs, *data, *NUMBERS, "-o", folder / "s")
    assert ranked.code == 0, ranked.text
    assert len(ranked.document["layers"]) == 2
    for verb in ("calibrate", "sensitivity"):
        assert "does not say what its pixels are" in toolkit(verb, theirs, *data, "-o", folder / "x").text
        assert "takes no images" in toolkit(verb, theirs, *data, *NUMBERS, "--layout", "nchw", "-o", folder / "x").text
        assert not (folder / "x").exists()


@pytest.mark.slow
def test_one_weight_one_pixel_or_the_mean_changed_are_three_refusals(toolkit: Toolkit, theirs: Path) -> None:
    folder, data = theirs.parent, theirs.parent / "set.npz"
    made = toolkit("calibrate", theirs, "--data", data, *NUMBERS, "--method", "minmax", "-o", folder / "r")
    assert made.code == 0, made.text

    model = onnx.load(theirs)
    weights = next(tensor for tensor in model.graph.initializer if tensor.name == "w2")
    values = numpy_helper.to_array(weights).copy()
    values[3, 2, 1, 0] = np.nextafter(values[3, 2, 1, 0], np.float32(1))
    weights.CopyFrom(numpy_helper.from_array(values, "w2"))
    onnx.save(model, folder / "other.onnx")
    with np.load(data) as arrays:
        changed = dict(arrays)
    changed["train_images"][7, 3, 3, 0] ^= 1
    np.savez(folder / "other.npz", **changed)

    def found(file: Path, images: Path, mean: str) -> str:
        words = ("--data", images, "--mean", mean, "--std", NUMBERS[3], "--record", folder / "r/record.json")
        answer = toolkit("export", file, *words, *UNTRAINED, "--int8", "--no-engines", "-o", folder / "b")
        assert (answer.code, (folder / "b").exists()) == (1, False), answer.text
        return str(answer.document["found"])

    network, images = "the network (weights or graph)", "the calibration images"
    assert found(folder / "other.onnx", data, NUMBERS[1]) == f"changed: {network}"
    assert found(theirs, folder / "other.npz", NUMBERS[1]) == f"changed: {images}"
    # The mean is in the graph too: nobody can forget it.
    assert found(theirs, data, "0.4,0.5,0.61") == f"changed: {network}; the preprocessing (size, mean or std)"
