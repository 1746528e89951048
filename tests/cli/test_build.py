"""`toolkit build` and `inspect` with a real TensorRT-RTX: engines appear together or not at all."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
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


@pytest.mark.slow
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
    assert done.code == (2 if done.document["error"] == "WrongValue" else 1)
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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--dla", "0"), "builds for the GPU"),
        (("--compatible", "version"), "no lean runtime"),
        (("--workspace-mib", "0"), "workspace_mib is too small"),
        (("--check",), "cannot run an engine here"),
        (("--repeat", "3"), "--repeat N --check"),
        (("--target", "jetpack46"), "opset 13"),
    ],
)
def test_what_this_tensorrt_cannot_do_is_refused_in_words(
    toolkit: Toolkit, bundle: Path, words: tuple[str, ...], said: str
) -> None:
    before = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    done = toolkit("build", bundle, *words)
    assert done.code == 1
    assert said in " ".join(done.text.split())
    assert {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_memory_and_level_are_in_the_sidecar_and_the_log_is_in_no_manifest(toolkit: Toolkit, bundle: Path) -> None:
    done = toolkit("build", bundle, "--precision", "fp16", "--workspace-mib", "64", "--opt-level", "1")
    assert done.code == 0, done.text
    log = bundle / "engines/model.fp16.engine.log"
    assert "Opset version" in log.read_text()
    assert not any(name.endswith(".log") for name in bundle_from_folder(bundle).manifest["files"])
    log.write_text("somebody else's words")
    bundle_from_folder(bundle)  # still whole
    log.unlink()
    bundle_from_folder(bundle)
    sidecar = toolkit("inspect", bundle / "engines/model.fp16.engine", "--all").document["sidecar"]
    assert (sidecar["workspace_mib"], sidecar["optimisation_level"]) == (64, 1)
    assert sidecar["dla_core"] is sidecar["timing_cache"] is None


@pytest.mark.slow
def test_the_record_of_a_device_is_in_no_manifest_and_can_be_made_again(toolkit: Toolkit, bundle: Path) -> None:
    for words in (["selftest", "--save"], ["build", "--precision", "fp32"], ["selftest", "--save"], ["selftest"]):
        quick = ["--max-slowdown", "1000", "--seconds", "0.1"] if words[0] == "selftest" else []
        assert toolkit(words[0], bundle, *words[1:], *quick).code == 0
    assert not [name for name in json.loads((bundle / "manifest.json").read_text())["files"] if "selftest" in name]


def test_a_build_that_fails_leaves_its_log_in_the_bundle_and_names_it(
    toolkit: Toolkit, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "export").mkdir()
    (tmp_path / "export/turing.toml").write_text('batch = [1, 2, 4]\ncompute_capabilities = ["SM75"]\n')
    before = (bundle / "manifest.json").read_bytes()
    monkeypatch.setenv("TOOLKIT_WORKSPACE", str(tmp_path))
    done = toolkit("build", bundle, "--target", "turing", "--precision", "fp32")
    assert done.code == 1
    assert "Turing" in done.document["what"]
    log = bundle / "engines/model.engine.log"
    assert str(log) in done.document["found"]
    assert "FP32 GEMM is not supported" in log.read_text()
    assert (bundle / "manifest.json").read_bytes() == before
    bundle_from_folder(bundle)


@pytest.mark.slow
def test_inspect_shows_fusions_and_needs_no_tensorrt(bundle: Path) -> None:
    program = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.startswith('tensorrt'): raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from toolkit.cli import run\n"
        "run(['inspect', sys.argv[1]])\n"
    )
    engine = bundle / "engines/model.int8-fp16.engine"
    done = subprocess.run([sys.executable, "-c", program, str(engine)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout.splitlines()[-1])
    assert document["runs_here"] is False
    assert "no TensorRT" in document["obstacle"]
    assert "6 of 6 convolutions read int8" in done.stderr
    fused = document["sidecar"]["census"]["fused"]
    assert any("Conv" in node for entry in fused for node in entry["nodes"])
    assert all(len(entry["nodes"]) > 1 for entry in fused)
