"""Claims about `toolkit report`: real documents of a real bundle become a page, wrong ones are refused in words."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.conftest import Toolkit
from tests.reporting.reading import rows_of, section, text_of, tree_of
from toolkit.quantization.sensitivity import Sensitivities
from toolkit.storage.files import sha256_of_file

Saved = dict[str, Path]


@pytest.fixture(scope="session")
def documents(tiny_workspace: Path) -> dict[str, str]:
    """What verify and bench say of the tiny bundle, as JSON."""
    from toolkit.benchmarking.bench import bench
    from toolkit.verification.verify import verify

    folder, data = tiny_workspace / "bundles/tiny", str(tiny_workspace / "set.npz")
    verified = verify(folder, backends="ort", data=data, gate=0).as_dict()
    return {
        "verify": json.dumps(verified),
        "bench": json.dumps(bench(folder, backends="ort", batches=(1, 4), seconds=0.05).as_dict()),
    }


@pytest.fixture
def saved(documents: dict[str, str], tmp_path: Path) -> Saved:
    """Each in a file."""
    files = {name: tmp_path / f"{name}.json" for name in documents}
    for name, path in files.items():
        path.write_text(documents[name])
    return files


def _report(toolkit: Toolkit, saved: Saved, page: Path, *more: str | Path) -> Any:
    return toolkit(
        "report", "-o", page, "--verify", saved["verify"], "--bench", saved["bench"], *more, "--data", "set.npz"
    )


@pytest.mark.slow
def test_real_documents_become_a_page_and_a_card(
    toolkit: Toolkit, saved: Saved, tmp_path: Path, tiny_workspace: Path
) -> None:
    page, card = tmp_path / "r.html", tmp_path / "CARD.md"
    answer = _report(toolkit, saved, page, "--markdown", card)
    assert answer.code == 0, answer.text
    document = answer.document
    assert document["manifest_sha256"] == sha256_of_file(tiny_workspace / "bundles/tiny/manifest.json")
    assert [entry["bytes"] for entry in document["files"]] == [page.stat().st_size, card.stat().st_size]
    root = tree_of(page.read_text(encoding="utf-8"))
    said = " ".join(text_of(section(root, "verdict")).split())
    assert document["deploy"]["file"] in said
    assert card.read_text(encoding="utf-8").startswith("# tiny\n")
    verify = json.loads(saved["verify"].read_text())
    rows = {row["runner"]: row for row in rows_of(section(root, "trade-off"), "Every file")}
    for found in verify["parity"]:
        assert rows[found["candidate"]]["top-1"] == f"{found['candidate_score']['top1_percent']:.2f} %"
    assert "Batch 4" in text_of(section(root, "latency"))
    assert "toolkit verify bundles/tiny --data set.npz --gate 0 > verify.json" in text_of(section(root, "commands"))


def test_flips_of_a_real_document_have_their_pictures(toolkit: Toolkit, saved: Saved, tmp_path: Path) -> None:
    document = json.loads(saved["verify"].read_text())
    row = next(row for row in document["parity"] if row["candidate"] == "ort int8")
    row["flips"], row["flipped"] = (
        1,
        [{"index": 7, "label": 3, "reference_answer": 3, "candidate_answer": 1, "margin": 1}],
    )
    saved["verify"].write_text(json.dumps(document))
    assert _report(toolkit, saved, tmp_path / "r.html").code == 0
    part = section(tree_of((tmp_path / "r.html").read_text(encoding="utf-8")), "flips")
    (picture,) = part.iter("img")
    assert picture.get("alt") == "image 7, south"


@pytest.mark.slow
def test_without_documents_it_measures_by_itself(
    toolkit: Toolkit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from toolkit.benchmarking.bench import bench

    # The function itself, for a twentieth of its time at one batch size of one backend.
    whole = partial(bench, backends="ort", batches=(1,), seconds=0.05)
    monkeypatch.setattr("toolkit.reporting.gathering.bench", whole)
    answer = toolkit("report", "-o", tmp_path / "r.html", "--data", "set.npz", "--sample", "40", "--gate", "50")
    assert answer.code == 0, answer.text
    root = tree_of((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "40 test images" in text_of(section(root, "verdict"))
    commands = text_of(section(root, "commands"))
    assert "toolkit verify bundles/tiny --data set.npz --sample 40 --gate 50" in commands


@pytest.mark.slow
def test_what_measures_it_again_does_and_draws_the_same_page(
    toolkit: Toolkit, documents: dict[str, str], tmp_path: Path, tiny_workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("models", "calibration", "bundles/tiny"):  # the bundle is written again
        shutil.copytree(tiny_workspace / name, tmp_path / name)
    shutil.copy(tiny_workspace / "set.npz", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOOLKIT_WORKSPACE", str(tmp_path))
    for name, text in documents.items():
        (tmp_path / f"{name}.json").write_text(text)
    drawn = ("--verify", "verify.json", "--bench", "bench.json", "--markdown", "card.md", "--data", "set.npz")
    assert toolkit("report", "bundles/tiny", *drawn).code == 0
    lines = _commands(tmp_path / "card.md")
    assert [line.split()[0] for line in lines] == ["export", "verify", "bench", "report", "build"]
    for line in lines[:-1]:  # the last is for the device
        words, _, file = line.partition(" > ")
        answer = toolkit(*shlex.split(words), *(["--markdown", "card.md"] if words.startswith("report") else []))
        assert answer.code == 0, (line, answer.text)
        if file:
            (tmp_path / file).write_text(json.dumps(answer.document))
    assert _commands(tmp_path / "card.md") == lines
    one, two = (json.loads(text) for text in (documents["verify"], (tmp_path / "verify.json").read_text()))
    assert two["images"]["sha256"] == one["images"]["sha256"]
    assert json.loads((tmp_path / "bench.json").read_text())["settings"] == json.loads(documents["bench"])["settings"]


def _commands(card: Path) -> list[str]:
    return re.findall(r"^toolkit (.*?)  #", card.read_text(), re.MULTILINE)


def test_images_of_another_size_judge_a_report_that_is_told_how_to_fit_them(
    toolkit: Toolkit, saved: Saved, tmp_path: Path, tiny_workspace: Path
) -> None:
    with np.load(tiny_workspace / "set.npz") as arrays:
        larger = {name: value.repeat(2, 1).repeat(2, 2) if value.ndim == 4 else value for name, value in arrays.items()}
    np.savez(tmp_path / "large.npz", **larger)
    words = ("bundles/tiny", "--data", str(tmp_path / "large.npz"))
    judged = toolkit("verify", *words, "--convert", "--backend", "ort", "--precision", "fp32,int8", "--gate", "0")
    (tmp_path / "v.json").write_text(json.dumps(judged.document))
    drawn = (*words, "--verify", tmp_path / "v.json", "--bench", saved["bench"], "-o", tmp_path / "r.html")
    assert "add --convert" in toolkit("report", *drawn).document["fix"]
    assert toolkit("report", *drawn, "--convert", "--markdown", tmp_path / "c.md").code == 0
    assert any(f"{words[2]} --convert" in line for line in _commands(tmp_path / "c.md"))


def _other_bundle(document: dict[str, Any]) -> None:
    document["manifest_sha256"] = "0" * 64


def _failed(document: dict[str, Any]) -> None:
    document.clear()
    document.update({"ok": False, "error": "BundleError", "what": "there is no bundle"})


def _swapped(document: dict[str, Any]) -> None:
    document["schema"] = "toolkit/train/1"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (_other_bundle, "this document of toolkit {} was measured on another bundle"),
        (_failed, "{}.json is not a document of toolkit {}"),
        (_swapped, "{}.json is not a document of toolkit {}"),
    ],
)
@pytest.mark.parametrize("name", ["verify", "bench"])
def test_a_wrong_document_is_refused_and_nothing_is_written(
    toolkit: Toolkit, saved: Saved, tmp_path: Path, name: str, change: Callable[[dict[str, Any]], None], what: str
) -> None:
    document = json.loads(saved[name].read_text())
    change(document)
    saved[name].write_text(json.dumps(document))
    answer = _report(toolkit, saved, tmp_path / "r.html")
    assert answer.code == 1
    assert what.format(name, name) in answer.document["what"]
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize("text", ["", "no JSON", "[1, 2]", "{", "\x00\xff", "null"])
def test_a_file_that_is_no_document_is_refused(toolkit: Toolkit, tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    answer = toolkit("report", "--verify", tmp_path / "x.json", "-o", tmp_path / "r.html")
    assert answer.code == 1
    assert "x.json is not a document of toolkit verify" in answer.document["what"]


def test_a_missing_file_and_a_folder_in_the_way_are_sentences(toolkit: Toolkit, saved: Saved, tmp_path: Path) -> None:
    answer = toolkit("report", "--bench", tmp_path / "none.json")
    assert (answer.code, answer.document["found"]) == (1, "it does not exist")
    (tmp_path / "r.html").mkdir()
    answer = _report(toolkit, saved, tmp_path / "r.html")
    assert answer.code == 1
    assert "cannot write" in answer.document["what"]


def test_other_images_than_those_that_were_judged_are_refused(toolkit: Toolkit, saved: Saved, tmp_path: Path) -> None:
    answer = _report(toolkit, saved, tmp_path / "r.html", "--sample", "9")
    assert answer.code == 1
    assert answer.document["what"] == "these are not the images that toolkit verify judged"
    assert answer.document["found"] == "--data set.npz --sample 9"


def test_a_saved_document_has_its_own_gate(toolkit: Toolkit, saved: Saved, tmp_path: Path) -> None:
    answer = _report(toolkit, saved, tmp_path / "r.html", "--gate", "99")
    assert answer.code == 1
    assert "has its own gate" in answer.document["what"]


def test_a_sensitivity_of_another_calibration_is_refused(toolkit: Toolkit, saved: Saved, tmp_path: Path) -> None:
    found = Sensitivities(True, "tiny", "mse", "0" * 64, 8, ())
    (tmp_path / "s.json").write_text(json.dumps(found.as_dict()))
    answer = _report(toolkit, saved, tmp_path / "r.html", "--sensitivity", tmp_path / "s.json")
    assert answer.code == 1
    assert "was measured with another calibration than this bundle's" in answer.document["what"]


@pytest.mark.slow
def test_a_budget_of_int8_is_in_the_manifest_and_becomes_a_curve(toolkit: Toolkit, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    assert toolkit("export", "tiny", "--int8", "--max-drop", "90", "--no-engines", "-o", folder).code == 0
    budget = json.loads((folder / "manifest.json").read_text())["budget"]
    assert budget["curve"][-1]["int8_percent"] == 100
    assert {layer["node"] for layer in budget["layers"]}
