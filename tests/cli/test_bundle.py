"""Claims about `toolkit bundle` and `toolkit triton`: the walk of a packed bundle, and one error for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Toolkit
from tests.cli.test_bad_input import leftovers, refused


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def tar(toolkit: Toolkit, tmp_path: Path) -> Path:
    """The tiny bundle, packed."""
    answer = toolkit("bundle", "pack", "bundles/tiny", "-o", tmp_path / "tiny.tar")
    assert answer.code == 0, answer.text
    return tmp_path / "tiny.tar"


def test_a_bundle_is_packed_twice_to_the_same_bytes(toolkit: Toolkit, tar: Path, tmp_path: Path) -> None:
    again = toolkit("bundle", "pack", tar, "-o", tmp_path / "again.tar")
    assert again.document["sha256"] in again.text.replace("\n", "")
    assert (tmp_path / "again.tar").read_bytes() == tar.read_bytes()


def test_sign_check_unpack_and_self_test(toolkit: Toolkit, tar: Path, tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    assert toolkit("bundle", "check", tar).document["signature"] == "not signed"
    refused(toolkit("bundle", "sign", tar, "--private-key", tmp_path / "none.pem"), "none.pem")
    assert toolkit("bundle", "sign", tar, "--private-key", tmp_path / "k.pem", "--new-key").code == 0
    assert toolkit("bundle", "check", tar, "--key", tmp_path / "k.pub").document["signature"] == "signed with this key"
    assert "not checked" in toolkit("bundle", "check", tar).document["signature"]
    key = ("--key", tmp_path / "k.pub")
    assert toolkit("bundle", "unpack", tar, *key).document["signed"]["version"] == 0
    assert (
        toolkit("bundle", "sign", tar, "--private-key", tmp_path / "k.pem", "--bundle-version", "2").document["signed"][
            "version"
        ]
        == 2
    )
    assert toolkit("selftest", tar, "--seconds", "0.02", *key, "--min-version", "2").code == 0
    refused(toolkit("selftest", tmp_path / "tiny", *key, "--min-version", "2"), "older than", "no version")
    for verb in ("selftest", "verify", "bench", "build", "report", "triton"):
        refused(toolkit(verb, "bundles/tiny", *key), "is not signed")
    data = bytearray(tar.read_bytes())
    data[-20000] ^= 1
    tar.write_bytes(data)
    refused(toolkit("bundle", "unpack", tar, "-o", tmp_path / "b", "--key", tmp_path / "k.pub"), "is not the signature")
    refused(toolkit("bundle", "sign", tar, "--private-key", tmp_path / "k.pem"))
    assert not (tmp_path / "b").exists()
    assert leftovers(tmp_path) == []


@pytest.mark.slow
def test_the_commands_of_a_device_take_the_tar(toolkit: Toolkit, tar: Path) -> None:
    assert toolkit("selftest", tar, "--seconds", "0.02").code == 0
    assert toolkit("verify", tar, "--backend", "ort", "--gate", "50").document["ok"] is True
    assert toolkit("bench", tar, "--backend", "ort", "--batch", "1", "--seconds", "0.05").document["ok"] is True
    refused(toolkit("build", tar), "packed", "toolkit bundle unpack")


def test_show_says_what_is_inside(toolkit: Toolkit, tar: Path, tmp_path: Path) -> None:
    answer = toolkit("bundle", "show", tar)
    assert "model.int8-cpu.onnx" in answer.text
    assert set(answer.document["accuracy"]) == {"fp32", "fp16", "int8", "int8-fp16", "int8-cpu"}
    assert toolkit("bundle", "pack", tar, "--only", "int8", "-o", tmp_path / "part.tar").code == 0
    part = toolkit("bundle", "show", tmp_path / "part.tar")
    assert set(part.document["accuracy"]) == {"int8", "int8-fp16"}
    assert "stripped to int8" in part.text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("pack nosuch -o x.tar", "nosuch"),
        ("pack bundles/tiny --only int9 -o x.tar", "int9"),
        ("pack bundles/tiny --only int8", "-o TAR"),
        ("unpack set.npz -o x", "not a packed bundle"),
        ("unpack nosuch.tar -o x", "nosuch.tar"),
        ("unpack bundles -o x", "bundles"),
        ("check set.npz", "not a packed bundle"),
        ("check bundles/tiny --key set.npz", "is not signed"),
        ("show models", "not a bundle"),
        ("sign bundles/tiny --private-key k.pem", "folder"),
        ("unpack /", "no suffix"),
        ("pack bundles/..", "is not a bundle"),
    ],
)
def test_what_is_wrong_is_one_error(toolkit: Toolkit, tiny_workspace: Path, words: str, said: str) -> None:
    refused(toolkit("bundle", *words.split()), said)
    assert not (tiny_workspace / "x").exists()
    assert not (tiny_workspace / "x.tar").exists()


def test_a_repository_is_written_and_says_what_only_a_server_shows(toolkit: Toolkit, tar: Path, tmp_path: Path) -> None:
    answer = toolkit("triton", tar, "-o", tmp_path / "repo", "--precision", "fp32,int8-cpu", "--max-batch", "16")
    assert answer.document["models"] == ["tiny-fp32", "tiny-int8-cpu"]
    assert "golden" in " ".join(answer.document["only_a_server_can_show"])
    assert "max_batch_size: 16" in (tmp_path / "repo/tiny-fp32/config.pbtxt").read_text()
    assert json.loads((tmp_path / "repo/toolkit-triton.json").read_text())["model"] == "tiny"
    refused(toolkit("triton", tar, "-o", tmp_path / "repo", "--precision", "int8-fp16"), "nothing that Triton")
    assert (tmp_path / "repo/tiny-fp32").is_dir()
