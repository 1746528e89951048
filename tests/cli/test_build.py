"""`toolkit build` and `inspect` with a real TensorRT-RTX: engines appear together or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Toolkit
from toolkit.bundle import bundle_from_folder

pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed: pip install '.[rtx]'")


@pytest.fixture
def bundle(tiny_workspace: Path, tmp_path: Path) -> Path:
    """A copy of the tiny bundle."""
    shutil.copytree(tiny_workspace / "bundles/tiny", tmp_path / "bundle")
    return tmp_path / "bundle"


def test_engines_are_built_into_the_bundle_and_its_manifest(toolkit: Toolkit, bundle: Path) -> None:
    done = toolkit("build", bundle, "--target", "rtx", "--precision", "best,int8", "--batch", "1:2:4")
    assert done.code == 0, done.text
    assert [entry["precision"] for entry in done.document["engines"]] == ["fp16", "int8-fp16"]
    opened = bundle_from_folder(bundle)  # every hash holds
    targets = {entry["precision"]: entry["target"] for entry in opened.engines()}
    assert targets == {"fp32": "default", "int8": "default", "fp16": "rtx", "int8-fp16": "rtx"}
    asked = toolkit("inspect", bundle / "engines/model.int8-fp16.engine")
    assert asked.code == 0
    assert asked.document["sidecar"]["profile"]["images"][2][0] == 4
    assert asked.document["sidecar"]["census"]["convolutions_reading"]["Int8"] == 6


def test_explain_builds_nothing(toolkit: Toolkit, bundle: Path) -> None:
    before = (bundle / "manifest.json").read_bytes()
    done = toolkit("build", bundle, "--explain", "--precision", "int8")
    assert done.code == 0
    assert done.document["resolved"][0]["source"] == "int8-fp16"
    assert "strongly typed" in done.text
    assert (bundle / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--target", "jetpack61"), "build on the device"),
        (("--precision", "int4"), "unknown precision"),
        (("--batch", "8:1:1"), "batch"),
        (("--target", "nowhere"), "there is no target"),
    ],
)
def test_what_cannot_be_built_leaves_the_bundle_as_it_was(
    toolkit: Toolkit, bundle: Path, words: tuple[str, ...], said: str
) -> None:
    before = (bundle / "manifest.json").read_bytes()
    done = toolkit("build", bundle, *words)
    assert done.code == 1
    assert said in done.text
    assert (bundle / "manifest.json").read_bytes() == before


def test_an_engine_with_one_flipped_byte_is_refused_by_inspect_and_by_the_bundle(
    toolkit: Toolkit, bundle: Path
) -> None:
    engine = bundle / "engines/model.fp16.engine"
    content = bytearray(engine.read_bytes())
    content[len(content) // 2] ^= 1
    engine.write_bytes(content)
    done = toolkit("inspect", engine)
    assert (done.code, "changed since it was built" in done.text) == (1, True)
    assert toolkit("verify", bundle, "--backend", "ort").code == 1
