"""Every wrong input ends in one clear error, no traceback, and nothing half-written."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from tests.cli.conftest import Answer, Toolkit, structured_set
from tests.manifests import rehashed
from toolkit.storage.files import sha256_of_file


def leftovers(folder: Path) -> list[str]:
    """Names of temporary files and locks under a folder."""
    return [p.name for p in folder.rglob(".*") if p.name.endswith((".part", ".old", ".lock"))]


def refused(answer: Answer, *words: str) -> None:
    """One error, for people and machines, that holds these words."""
    assert answer.code == (2 if answer.document["error"] in ("UsageError", "WrongValue") else 1)
    assert answer.document["ok"] is False
    assert answer.document["what"]
    assert len(re.findall(r"^(?:e|E)rror:", answer.text, re.MULTILINE)) == 1
    assert "Traceback" not in answer.text
    for word in words:
        assert word in answer.text


@pytest.fixture
def model_copy(tiny_workspace: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may break."""
    return Path(shutil.copytree(tiny_workspace / "models/tiny", tmp_path / "tiny"))


@pytest.fixture
def bundle_copy(tiny_workspace: Path, tmp_path: Path) -> Path:
    """A copy of the tiny bundle that a test may break."""
    return Path(shutil.copytree(tiny_workspace / "bundles/tiny", tmp_path / "bundle"))


def test_an_unknown_model_lists_those_there_are(toolkit: Toolkit, tmp_path: Path) -> None:
    refused(toolkit("export", "nosuch", "-o", tmp_path / "b"), "nosuch", "tiny", "toolkit list")
    assert not (tmp_path / "b").exists()


def test_truncated_weights_are_refused(toolkit: Toolkit, model_copy: Path, tmp_path: Path) -> None:
    weights = model_copy / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    refused(toolkit("export", model_copy, "--int8", "-o", tmp_path / "b"), "not a whole safetensors file")
    assert not (tmp_path / "b").exists()


def test_weights_that_are_not_the_cards_are_refused(toolkit: Toolkit, model_copy: Path) -> None:
    weights = model_copy / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    refused(toolkit("export", model_copy), "is not the file that card.json describes")


def test_nan_weights_are_refused_by_tensor_name(toolkit: Toolkit, model_copy: Path, tmp_path: Path) -> None:
    weights = model_copy / "weights.safetensors"
    tensors = load_file(weights)
    tensors["fc.weight"][0, 0] = np.nan
    save_file(tensors, weights)
    card = json.loads((model_copy / "card.json").read_text())
    card["weights"]["sha256"] = sha256_of_file(weights)
    (model_copy / "card.json").write_text(json.dumps(card))
    refused(toolkit("export", model_copy, "-o", tmp_path / "b"), "fc.weight", "NaN")
    assert not (tmp_path / "b").exists()


def test_a_truncated_onnx_in_a_bundle_is_refused(toolkit: Toolkit, bundle_copy: Path) -> None:
    model = bundle_copy / "model.onnx"
    model.write_bytes(model.read_bytes()[:-500])
    refused(toolkit("verify", bundle_copy), "model.onnx changed since the bundle was written")
    refused(toolkit("bench", bundle_copy), "model.onnx changed since the bundle was written")


def test_a_missing_file_a_newer_format_and_no_bundle_are_told_apart(
    toolkit: Toolkit, bundle_copy: Path, tmp_path: Path
) -> None:
    refused(toolkit("verify", tmp_path / "nowhere"), "there is no bundle")
    (bundle_copy / "golden.npz").rename(tmp_path / "golden.npz")
    refused(toolkit("verify", bundle_copy), "is incomplete", "golden.npz")
    manifest = json.loads((bundle_copy / "manifest.json").read_text())
    (bundle_copy / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    refused(toolkit("verify", bundle_copy), "format", "99", "pip install -U")
    (bundle_copy / "manifest.json").write_text("{")
    refused(toolkit("verify", bundle_copy), "is not JSON")


def test_a_manifest_cannot_reach_outside_its_bundle(toolkit: Toolkit, bundle_copy: Path) -> None:
    manifest = json.loads((bundle_copy / "manifest.json").read_text())
    for name in ("../../etc/passwd", "/etc/passwd"):
        rehashed(bundle_copy, files=manifest["files"] | {name: {"sha256": "0", "bytes": 1}})
        refused(toolkit("verify", bundle_copy), "a bundle cannot hold", name)


@pytest.mark.slow
def test_no_name_of_a_manifest_or_a_card_leaves_the_workspace(
    toolkit: Toolkit, bundle_copy: Path, model_copy: Path
) -> None:
    manifest = json.loads((bundle_copy / "manifest.json").read_text())
    card = json.loads((model_copy / "card.json").read_text())
    for name in ("../../x", "/x", "..", "", "a/b", "a\nb", "\u202e", "x" * 65):
        rehashed(bundle_copy, model=manifest["model"] | {"name": name})
        refused(toolkit("verify", bundle_copy), "name")
        (model_copy / "card.json").write_text(json.dumps(card | {"name": name}))
        refused(toolkit("export", model_copy), "name")


@pytest.mark.parametrize("target", ["/sys/bundle", "/proc/bundle", "/dev/null"])
def test_a_target_that_cannot_be_written_is_refused(toolkit: Toolkit, target: str) -> None:
    refused(toolkit("export", "tiny", "-o", target), target)


def test_somebody_elses_folder_is_never_replaced(toolkit: Toolkit, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("three years of work")
    refused(toolkit("export", "tiny", "-o", tmp_path), "is not empty", "manifest.json")
    assert (tmp_path / "thesis.txt").read_text() == "three years of work"


def test_an_empty_image_folder_is_refused(toolkit: Toolkit, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    refused(toolkit("train", "net", "--data", tmp_path / "images"), str(tmp_path / "images"))
    refused(toolkit("export", "tiny", "--data", tmp_path / "images"), str(tmp_path / "images"))


def write_folder(folder: Path, mode: str, size: int, classes: tuple[str, ...]) -> Path:
    """Class folders of ten PNGs each."""
    draws = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for index in range(10):
            pixels = draws.integers(0, 256, (size, size, 3) if mode == "RGB" else (size, size), dtype=np.uint8)
            Image.fromarray(pixels, mode).save(folder / name / f"{index}.png")
    return folder


CLASSES = ("lower", "north", "south", "upper")


def test_images_of_another_size_are_refused_by_file(toolkit: Toolkit, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "images", "L", 31, CLASSES)
    refused(toolkit("export", "tiny", "--int8", "--data", folder), "31x31", "32x32", "--convert", ".png")


@pytest.mark.slow
def test_a_grayscale_image_given_to_an_rgb_net_is_refused(toolkit: Toolkit, tmp_path: Path) -> None:
    images, labels = structured_set(40, 4, seed=0, channels=3)
    np.savez(tmp_path / "rgb.npz", images=images, labels=labels)
    trained = toolkit(
        "train", "rgb", "--arch", "resnet8", "--data", tmp_path / "rgb.npz", "--epochs", "1", "--images", "8"
    )
    assert trained.code == 0
    folder = write_folder(tmp_path / "gray", "L", 32, ("0", "1", "2", "3"))
    refused(toolkit("export", "rgb", "--data", folder), "grayscale", "--convert")


def test_one_class_is_no_data_set(toolkit: Toolkit, tmp_path: Path) -> None:
    images, _ = structured_set(20, 4, seed=0)
    np.savez(tmp_path / "one.npz", images=images, labels=np.zeros(20, np.int64), classes=np.array(["only"]))
    refused(toolkit("train", "net", "--data", tmp_path / "one.npz"), "at least 2 classes")


def test_other_classes_than_the_models_are_refused(toolkit: Toolkit, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "images", "L", 32, ("cat", "dog"))
    refused(toolkit("export", "tiny", "--data", folder), "other classes", "cat, dog", "north")


def test_a_data_set_that_is_not_there_says_how_to_get_it(toolkit: Toolkit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_DATA", "/nowhere")
    monkeypatch.setenv("TOOLKIT_CACHE", "/nowhere")
    refused(toolkit("train", "net", "--data", "cifar10"), "cifar", "--download")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("train net --arch resnet21 --data set.npz", "6n + 2"),
        ("train net --arch vgg --data set.npz", "unknown architecture"),
        ("train net --widths 8,x --data set.npz", "--widths"),
        ("train net --stem-kernel 5 --data set.npz", "stem"),
        ("train ../net --data set.npz", "usable as a folder"),
        ("train net --data set.npz --epochs 0", "--epochs"),
        ("train net --data set.npz --device cuda", "CUDA"),
        ("train net --data set.npz --device tpu", "auto, cpu, cuda"),
        ("train net --data set.npz --resume", "no interrupted run"),
        ("train net --data nosuch.npz", "does not exist"),
        ("export tiny --int8 --method magic", "auto, minmax, percentile, mse, entropy"),
        ("export tiny --int8 --percentile 3", "--percentile"),
        ("export tiny --int8 --images 65", "cannot draw 65"),
        ("export tiny --batch 8:4:1", "batch profile"),
        ("export tiny --batch many", "--batch"),
        ("export tiny --target jetson9000", "no target"),
        ("verify --backend onnx", "torch, ort, trt"),
        ("verify --precision int4", "fp32, fp16, int8"),
        ("verify --data set.npz --sample 1000000", "cannot draw"),
        ("bench --batch 0", "--batch"),
        ("bench --backend ,", "unknown backend"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_named_with_what_is_allowed(toolkit: Toolkit, words: str, expected: str) -> None:
    refused(toolkit(*words.split()), expected)


def test_an_unknown_option_is_a_usage_error(toolkit: Toolkit) -> None:
    answer = toolkit("export", "--nosuch")
    assert answer.code == 2
    assert answer.document["error"] == "UsageError"


def test_nothing_half_written_is_left(toolkit: Toolkit, tiny_workspace: Path) -> None:
    assert leftovers(tiny_workspace) == []


@pytest.mark.slow
def test_a_full_disk_is_one_error(toolkit: Toolkit, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60k", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this user may not mount a small tmpfs, so a full disk cannot be had")
    try:
        refused(toolkit("export", "tiny", "--int8", "-o", small / "bundle"), "disk is full")
        assert list(small.iterdir()) == []
        refused(toolkit("export", "tiny", "--int8", "--fp16", "--no-engines", "-o", small / "bundle"), "disk is full")
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)
