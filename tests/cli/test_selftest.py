"""Claims about `toolkit selftest`: a sound bundle passes, and what an upgrade can break is named."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.cli.conftest import Toolkit
from tests.manifests import rehashed
from toolkit.deployment.selftest import versions_here
from toolkit.runtime.trt.module import MODULES


@pytest.fixture
def bundle(tiny_workspace: Path, tmp_path: Path) -> Path:
    """A copy of the tiny bundle that a test may damage."""
    folder = tmp_path / "tiny"
    shutil.copytree(tiny_workspace / "bundles" / "tiny", folder)
    return folder


def saved_of(bundle: Path) -> Path:
    """The one that a bundle has."""
    (path,) = bundle.glob("selftest-*.json")
    return path


def with_golden(bundle: Path, **changed: object) -> None:
    """Writes other golden arrays and makes the manifest agree, as if the host had said so."""
    with np.load(bundle / "golden.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    np.savez_compressed(bundle / "golden.npz", **(arrays | changed))
    rehashed(bundle)


@pytest.mark.slow
def test_a_sound_bundle_passes_and_says_what_did_not_run(toolkit: Toolkit, bundle: Path) -> None:
    answer = toolkit("selftest", bundle, "--seconds", "0.02")
    assert answer.code == 0, answer.text
    verdicts = {check["what"]: check["verdict"] for check in answer.document["checks"]}
    assert {"files": "ok", "ort fp32": "ok", "ort int8-cpu": "ok", "speed": "not run"}.items() <= verdicts.items()
    assert "trt" in answer.document["not_run"]
    assert answer.document["model"] == "tiny"
    assert answer.document["manifest_sha256"] == hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()
    assert "speed" in answer.document["not_run"]
    assert not list(bundle.glob("selftest-*"))


def test_what_was_asked_for_by_name_must_run(toolkit: Toolkit, bundle: Path) -> None:
    answer = toolkit("selftest", bundle, "--backend", "trt")
    assert answer.code == 1
    assert [check["what"] for check in answer.document["checks"] if check["verdict"] == "failed"] == ["backends"]


def test_one_of_several_that_were_named_must_run_too(toolkit: Toolkit, bundle: Path) -> None:
    answer = toolkit("selftest", bundle, "--backend", "ort,ort-cuda", "--seconds", "0.02")
    verdicts = {check["what"]: check["verdict"] for check in answer.document["checks"]}
    if verdicts.get("ort-cuda fp32") == "ok":
        pytest.skip("this machine has a GPU and an ONNX Runtime for it")
    assert (answer.code, verdicts["ort fp32"], verdicts["ort-cuda"]) == (1, "ok", "failed")


def test_a_backend_that_no_device_has_is_one_error(toolkit: Toolkit, bundle: Path) -> None:
    answer = toolkit("selftest", bundle, "--backend", "torch")
    assert answer.code == 2
    assert answer.document["allowed"] == "all, ort, trt, ort-cuda, ort-trt"


def test_other_logits_than_the_golden_ones_are_named(toolkit: Toolkit, bundle: Path) -> None:
    with np.load(bundle / "golden.npz") as stored:
        logits = stored["logits_int8-cpu"]
    with_golden(bundle, **{"logits_int8-cpu": np.roll(logits, 1, axis=1)})
    answer = toolkit("selftest", bundle, "--seconds", "0.02")
    assert answer.code == 1
    failed = [check for check in answer.document["checks"] if check["verdict"] == "failed"]
    assert [check["what"] for check in failed] == ["ort int8-cpu"]
    assert "answers differ" in failed[0]["found"]


def test_a_changed_file_is_refused_by_its_name(toolkit: Toolkit, bundle: Path) -> None:
    data = bytearray((bundle / "model.int8.onnx").read_bytes())
    data[100] ^= 1
    (bundle / "model.int8.onnx").write_bytes(data)
    answer = toolkit("selftest", bundle)
    assert answer.code == 1
    assert "model.int8.onnx changed" in answer.document["what"]


@pytest.mark.slow
def test_a_devices_speed_is_saved_and_compared_with(toolkit: Toolkit, bundle: Path) -> None:
    assert toolkit("selftest", bundle, "--save", "--seconds", "0.02").document["recorded"] is True
    saved = json.loads(saved_of(bundle).read_text())
    assert set(saved["p50_ms"]) >= {"ort fp32", "ort int8-cpu"}
    answer = toolkit("selftest", bundle, "--seconds", "0.02", "--max-slowdown", "1000")
    assert answer.code == 0, answer.text
    assert "unchanged" in answer.text
    assert any(check["what"] == "speed of ort fp32" for check in answer.document["checks"])


@pytest.mark.slow
def test_a_slowdown_an_upgrade_and_a_lost_backend_are_named(toolkit: Toolkit, bundle: Path) -> None:
    toolkit("selftest", bundle, "--save", "--seconds", "0.02")
    path = saved_of(bundle)
    saved = json.loads(path.read_text())
    saved["versions"]["onnxruntime"] = "0.1"
    saved["p50_ms"] |= {"ort fp32": 1e-6, "trt int8": 0.1}
    path.write_text(json.dumps(saved))
    answer = toolkit("selftest", bundle, "--seconds", "0.02", "--max-slowdown", "1000")
    assert answer.code == 1
    failed = {check["what"]: check["found"] for check in answer.document["checks"] if check["verdict"] == "failed"}
    assert set(failed) == {"speed of ort fp32", "trt int8"}
    assert "does not now" in failed["trt int8"]
    assert "onnxruntime 0.1 to " in answer.text


@pytest.mark.slow
@pytest.mark.parametrize("bindings", [name for name in MODULES if name.endswith("_bindings")])
def test_an_upgrade_of_bindings_that_are_installed_alone_is_named(
    toolkit: Toolkit, bundle: Path, monkeypatch: pytest.MonkeyPatch, bindings: str
) -> None:
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, bindings, SimpleNamespace(__version__="10.3.0"))
    toolkit("selftest", bundle, "--backend", "ort", "--save", "--seconds", "0.02")
    monkeypatch.setitem(sys.modules, bindings, SimpleNamespace(__version__="10.6.0"))
    answer = toolkit("selftest", bundle, "--backend", "ort", "--seconds", "0.02", "--max-slowdown", "1000")
    (versions,) = [check["found"] for check in answer.document["checks"] if check["what"] == "versions"]
    assert versions == f"changed since the speed was saved: {bindings.removesuffix('_bindings')} 10.3.0 to 10.6.0"


def test_bindings_and_the_front_that_wraps_them_are_one_version(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "tensorrt_bindings", SimpleNamespace(__version__="10.6.0"))
    alone = versions_here()
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace())  # a front may not say its version
    assert versions_here() == alone
    assert alone["tensorrt"] == "10.6.0"


@pytest.mark.slow
@pytest.mark.parametrize("text", ["{}", '{"format": 9}', "[]", "no json"])
def test_a_saved_speed_that_is_none_is_one_error(toolkit: Toolkit, bundle: Path, text: str) -> None:
    toolkit("selftest", bundle, "--save", "--seconds", "0.02")
    saved_of(bundle).write_text(text)
    answer = toolkit("selftest", bundle, "--seconds", "0.02")
    assert answer.code == 1
    assert "selftest-" in answer.document["what"]


@pytest.mark.slow
def test_an_engine_that_no_hash_binds_is_refused_and_one_that_was_cut_short_is_named(
    toolkit: Toolkit, bundle: Path
) -> None:
    plans = sorted((bundle / "engines").glob("*.engine")) if (bundle / "engines").is_dir() else []
    if not plans:
        pytest.skip("engines need the TensorRT-RTX wheels (extra rtx)")
    manifest = json.loads((bundle / "manifest.json").read_text())
    plans[0].write_bytes(plans[0].read_bytes()[:-1])
    answer = toolkit("selftest", bundle, "--seconds", "0.02")
    assert answer.code == 1
    assert "changed since" in answer.document["what"]
    rehashed(bundle)  # a manifest that agrees: the sidecar does not
    answer = toolkit("selftest", bundle, "--seconds", "0.02")
    assert answer.code == 1
    failed = [check for check in answer.document["checks"] if check["verdict"] == "failed"]
    assert len(failed) == 1
    assert plans[0].name in failed[0]["what"]
    assert "toolkit build" in failed[0]["fix"]
    rehashed(bundle, files={name: entry for name, entry in manifest["files"].items() if "engines/" not in name})
    answer = toolkit("selftest", bundle, "--seconds", "0.02")
    assert answer.code == 1
    assert "bound by no hash" in answer.document["what"]
