"""Claims about what commands write over: their own of the same model, aloud; nothing else, whatever it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Toolkit
from tests.cli.test_bad_input import refused
from tests.manifests import rehashed

EXPORT = ("export", "tiny", "--no-engines", "-o")


@pytest.fixture
def bundle(tiny_workspace: Path, tmp_path: Path) -> Path:
    """The tiny bundle, with a note of somebody's in it."""
    folder = Path(shutil.copytree(tiny_workspace / "bundles/tiny", tmp_path / "b"))
    (folder / "notes.txt").write_text("mine")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def renamed(folder: Path) -> None:
    """Makes it the bundle of another model, with an engine."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["model"]["name"] = "other"
    manifest["engines"] = [{"file": "engines/x.engine"}]
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_trained_model_is_replaced_only_when_that_is_said(toolkit: Toolkit, tiny_workspace: Path) -> None:
    before = content(tiny_workspace / "models/tiny")
    words = ("train", "tiny", "--data", "set.npz")
    refused(toolkit(*words), "models/tiny is there already", "top-1", "20", "--replace", "--resume")
    assert content(tiny_workspace / "models/tiny") == before
    images = tiny_workspace / "calibration/unborn"
    images.mkdir()
    (images / "recipe.toml").write_text("")
    refused(toolkit("train", "unborn", "--data", "set.npz"), "calibration/unborn is there already", "no model")
    shutil.rmtree(images)


def test_an_export_over_another_model_names_it_and_leaves_it(toolkit: Toolkit, bundle: Path) -> None:
    renamed(bundle)
    before = content(bundle)
    refused(toolkit(*EXPORT, bundle), "another model, 'other'", "top-1", "1 engines", "notes.txt", "20", "-output")
    assert content(bundle) == before


@pytest.mark.slow
def test_ranges_of_another_network_are_replaced_only_when_that_is_said(toolkit: Toolkit, tmp_path: Path) -> None:
    words = ("calibrate", "tiny", "--method", "minmax", "-o", tmp_path / "r")
    assert toolkit(*words).code == 0
    assert toolkit(*words).code == 0  # its own
    path = tmp_path / "r/record.json"
    record = json.loads(path.read_text())
    images = len(record["images"])
    record["belongs_to"]["graph_sha256"] = "0" * 64
    for there, named in ((json.dumps(record), f"minmax of {images} images, of 20"), ('{"song": 1}', "11 bytes of 20")):
        path.write_text(there)
        refused(toolkit(*words), "record.json is there already", named, "--force", "--output")
        assert path.read_text() == there
    answer = toolkit(*words, "--force")
    assert answer.code == 0
    assert "replaced what was there" in " ".join(answer.text.split())
    assert json.loads(path.read_text())["belongs_to"]["graph_sha256"] != "0" * 64


@pytest.mark.slow
def test_an_export_of_the_same_model_says_what_went_and_keeps_what_is_not_its_own(
    toolkit: Toolkit, bundle: Path
) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    engines = len(manifest["engines"])
    for _ in range(2):
        answer = toolkit(*EXPORT, bundle)
        assert answer.code == 0, answer.text
        assert (bundle / "notes.txt").read_text() == "mine"
        said = answer.text.replace("\n", " ")
        assert "kept notes.txt" in said
        assert (f"{engines} engines removed" in said) == (engines > 1)
        engines = 0
    assert "notes.txt" not in json.loads((bundle / "manifest.json").read_text())["files"]


@pytest.mark.slow
def test_no_output_is_written_over_what_the_command_did_not_write(
    toolkit: Toolkit, bundle: Path, tmp_path: Path
) -> None:
    letter = tmp_path / "letter"
    letter.write_text("dear")
    tar = tmp_path / "t.tar"
    assert toolkit("bundle", "pack", bundle, "-o", tar).code == 0
    assert toolkit("bundle", "pack", bundle, "-o", tar).code == 0
    refused(toolkit("bundle", "pack", bundle, "-o", letter), "is no packed bundle of tiny", "4 bytes")
    for option in ("-o", "--markdown"):
        words = ("report", bundle, "-o", tmp_path / "r.html", option, letter)
        refused(toolkit(*words), "is no report")
    refused(toolkit("bench", bundle, "--save", letter), "is no run that toolkit bench saved")
    refused(toolkit("list", "-o", letter), "is no document of the toolkit")
    theirs = tmp_path / "page"
    theirs.mkdir()
    for name in ("manifest.json", "flips.json", "weights.onnx"):
        (theirs / name).write_text('{"name": "a page"}')
    refused(toolkit("bundle", "unpack", tar, "-o", theirs), "is no manifest of a bundle")
    refused(toolkit(*EXPORT, theirs), "is no manifest of a bundle")
    refused(toolkit("verify", bundle, "--backend", "ort", "--save-worst", theirs), "is no list of flips")
    assert {path.read_text() for path in theirs.iterdir()} == {'{"name": "a page"}'}
    (tmp_path / "t.tar.sig").write_text("dear")
    refused(toolkit("bundle", "sign", tar, "--private-key", tmp_path / "k.pem", "--new-key"), "is no signature")
    assert toolkit("triton", bundle, "-o", tmp_path / "repository", "--precision", "fp32").code == 0
    renamed(bundle)
    rehashed(bundle, engines=[])
    refused(toolkit("bundle", "pack", bundle, "-o", tar), "is no packed bundle of other")
    refused(toolkit("triton", bundle, "-o", tmp_path / "repository", "--precision", "fp32"), "no repository of other")
    refused(toolkit("bundle", "unpack", tar, "-o", bundle), "another model, 'other'")
    assert letter.read_text() == "dear"
