"""`toolkit bench` as people type it: options, exit codes, files."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import jsonschema
import pytest

from tests.cli.conftest import Toolkit
from toolkit.runtime.driver import probe_driver
from toolkit.storage.files import write_json

SCHEMA = Path(__file__).parents[2] / "docs/schema/bench.v1.json"
SHORT = ("--backend", "ort", "--precision", "fp32", "--batch", "1", "--seconds", "0.1")


@pytest.mark.slow
def test_what_is_printed_and_what_is_saved_have_the_published_schema(toolkit: Toolkit, tmp_path: Path) -> None:
    answer = toolkit("bench", *SHORT, "--save", tmp_path / "run.json")
    assert answer.code == 0
    schema = json.loads(SCHEMA.read_text())
    for document in (answer.document, json.loads((tmp_path / "run.json").read_text())):
        jsonschema.validate(document, schema, jsonschema.Draft202012Validator)
    assert "saved:" in answer.text


@pytest.mark.slow
def test_a_saved_run_gates_the_next_one(toolkit: Toolkit, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    document = toolkit("bench", *SHORT, "--save", path).document
    same = toolkit("bench", *SHORT, "--baseline", path, "--max-regression", "900%")
    assert same.code == 0
    assert "now over" in same.text
    for row in document["latency"]:
        row["round_medians_ms"] = [value / 50 for value in row["round_medians_ms"]]
    write_json(path, document)
    slower = toolkit("bench", *SHORT, "--baseline", path, "--max-regression", "3%")
    assert slower.code == 1
    assert slower.document["ok"] is False
    assert slower.document["comparison"]["changes"][0]["verdict"] == "slower"
    assert "Slower by more than 3 %" in slower.text


@pytest.mark.slow
def test_a_baseline_of_another_device_model_or_set_of_runners_is_refused(toolkit: Toolkit, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    document = toolkit("bench", *SHORT, "--save", path).document
    write_json(path, document | {"device": document["device"] | {"cpu": "a CPU of 1999"}})
    answer = toolkit("bench", *SHORT, "--baseline", path)
    assert answer.code == 1
    assert "another device" in answer.document["what"]
    assert "a CPU of 1999" in answer.document["found"]
    write_json(path, document | {"weights_sha256": "0" * 64})
    assert "another model" in toolkit("bench", *SHORT, "--baseline", path).document["what"]
    write_json(path, document)
    answer = toolkit("bench", *SHORT[:-4], "--batch", "2", "--seconds", "0.1", "--baseline", path)
    assert answer.document["found"] == "only there: ort fp32 at batch 1; only here: ort fp32 at batch 2"


@pytest.mark.slow
def test_the_same_bundle_beside_itself_is_within_a_wide_limit(toolkit: Toolkit) -> None:
    answer = toolkit("bench", *SHORT, "--against", "bundles/tiny", "--max-regression", "300%")
    assert answer.code == 0
    assert answer.document["comparison"]["paired"] is True
    assert "99.8 % interval" in answer.text


def test_a_rate_that_cannot_be_held_is_said_and_fails(toolkit: Toolkit) -> None:
    answer = toolkit("bench", *SHORT, "--rate", "1000000")
    assert answer.code == 1
    assert answer.document["latency"][0]["rate_held"] is False
    assert "cannot be held" in answer.text


def test_a_rate_that_is_held_counts_from_when_calls_were_due(toolkit: Toolkit) -> None:
    answer = toolkit("bench", *SHORT[:-1], "0.5", "--rate", "10")
    assert answer.code == 0
    (row,) = answer.document["latency"]
    assert (row["calls"], row["rate_hz"], row["rate_held"]) == (5, 10, True)


def test_a_way_to_wait_for_a_gpu_that_is_not_here_is_refused(toolkit: Toolkit) -> None:
    if probe_driver().available:
        pytest.skip("this machine has a GPU")
    answer = toolkit("bench", *SHORT, "--wait", "spin")
    assert answer.code == 1
    assert "there is no GPU to wait for with 'spin'" in answer.text
    answer = toolkit("bench", *SHORT, "--wait", "sleep")
    assert answer.code == 2
    assert "auto, spin, block" in answer.text


def test_iterations_are_counted_over_all_callers_and_layers_are_timed_apart(toolkit: Toolkit) -> None:
    words = ("--callers", "2", "--iterations", "101", "--warmup", "0", "--ort-threads", "1", "--dump-profile")
    answer = toolkit("bench", *SHORT[:-2], *words)
    assert [(row["threads"], row["calls"]) for row in answer.document["latency"]] == [(2, 101)]
    (profile,) = answer.document["profiles"]
    assert sum(layer["part"] for layer in profile["layers"]) == pytest.approx(1)
    assert "Conv" in {layer["kind"] for layer in profile["layers"]}
    assert "none of them is TensorRT's" in answer.text or probe_driver().available
    asked = answer.document["settings"]
    assert (asked["iterations"], asked["warmup_s"], asked["ort_threads"]) == (101, 0, 1)


@pytest.mark.parametrize("text", ["much", "-1%", "2000%", "nan"])
def test_a_limit_that_is_no_percentage_is_refused(toolkit: Toolkit, text: str) -> None:
    answer = toolkit("bench", *SHORT, f"--max-regression={text}")
    assert answer.code == 2
    assert "--max-regression" in answer.document["what"]


def test_a_baseline_that_is_not_there_is_one_error(toolkit: Toolkit, tmp_path: Path) -> None:
    answer = toolkit("bench", *SHORT, "--baseline", tmp_path / "none.json")
    assert answer.code == 1
    assert "cannot read" in answer.document["what"]


@pytest.mark.slow
def test_the_table_goes_into_a_spreadsheet(toolkit: Toolkit, tmp_path: Path) -> None:
    file = tmp_path / "latency.csv"
    answer = toolkit("bench", "--backend", "ort", "--batch", "1,2", "--seconds", "0.05", "--csv", file)
    rows = list(csv.DictReader(io.StringIO(file.read_text())))
    assert [(row["runner"], int(row["batch"])) for row in rows] == [
        (row["runner"], row["batch"]) for row in answer.document["latency"]
    ]
    assert [float(row["p50_ms"]) for row in rows] == [row["p50_ms"] for row in answer.document["latency"]]
    file.write_text("somebody's own table")
    assert toolkit("bench", "--backend", "ort", "--seconds", "0.05", "--csv", file).code == 1
    assert file.read_text() == "somebody's own table"
