"""Claims about records: what is written is what is read, and a changed one is refused."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from toolkit.calibration.record import (
    NAMES,
    Record,
    record_from_content,
    record_from_file,
    sha256_of_digests,
    sha256_of_graph,
    sha256_of_image_set,
    sha256_of_preprocessing,
    write_record,
)
from toolkit.calibration.record import RECORD as FILE
from toolkit.contracts import sha256_of_each
from toolkit.errors import CalibrationError, ToolkitError
from toolkit.storage.files import content_of, write_json

BELONGS = {part: f"value of {part}" for part in NAMES}
RECORD = Record(
    {"a": 0.1, "b": 3.0000000000000004},
    {"a": 0.2, "b": 4.0, "c": 1e-30, "never": 0.0},
    BELONGS,
    ("00ff", "11aa"),
    {"forced": ["because"]},
    cpu={"a": 0.15000000000000002, "c": 1e-30},
)


def _written(path: Path, **changes: Any) -> Path:
    write_json(path / "record.json", RECORD.as_dict() | changes)
    return path / "record.json"


def test_a_record_that_was_written_is_read_back_to_the_last_bit(tmp_path: Path) -> None:
    assert record_from_file(_written(tmp_path)) == RECORD


def test_a_folder_of_a_record_holds_it_alone(tmp_path: Path) -> None:
    write_record(tmp_path / "r", RECORD)
    assert [path.name for path in (tmp_path / "r").iterdir()] == [FILE]
    assert record_from_file(tmp_path / "r" / FILE) == RECORD
    (tmp_path / "r" / "mine.txt").write_text("stays")
    write_record(tmp_path / "r", replace(RECORD, notes={}))
    assert record_from_file(tmp_path / "r" / FILE).notes == {}
    assert (tmp_path / "r" / "mine.txt").read_text() == "stays"


def test_a_folder_of_something_else_is_not_taken_for_a_records(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("stays")
    with pytest.raises(ToolkitError):
        write_record(tmp_path, RECORD)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_pipe_is_no_record(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / FILE)
    with pytest.raises(CalibrationError):
        record_from_file(tmp_path / FILE)


def test_a_record_without_notes_and_ranges_of_the_cpu_form_is_one_too(tmp_path: Path) -> None:
    document = replace(RECORD, cpu={}).as_dict()
    del document["cpu"], document["notes"]
    write_json(tmp_path / "record.json", document)
    assert record_from_file(tmp_path / "record.json") == replace(RECORD, cpu={}, notes={})


def test_no_range_and_no_image_can_be_changed_by_hand(tmp_path: Path) -> None:
    changed: tuple[dict[str, Any], ...] = (
        {"amax": {name: 0.05 * value for name, value in RECORD.amax.items()}},
        {"amax": {"a": RECORD.amax["a"]}},
        {"largest": RECORD.largest | {"c": 2e-30}},
        {"largest": RECORD.largest | {"d": 1.0}},
        {"cpu": {"a": 0.15, "c": 1e-30}},
        {"cpu": {}},
        {"images": []},
        {"images": ["00ff"]},
        {"images": ["11aa", "00ff"]},
    )
    for changes in changed:
        with pytest.raises(CalibrationError, match="was changed by hand"):
            record_from_file(_written(tmp_path, **changes))


@pytest.mark.parametrize("part", ["amax", "largest", "cpu"])
@pytest.mark.parametrize("value", [0, -1, 1e400, 10**400, True, "1", None, [1], {}])
def test_what_no_tensor_can_have_is_refused_though_the_key_is_right(tmp_path: Path, part: str, value: Any) -> None:
    forged = replace(RECORD, **{part: getattr(RECORD, part) | {"a": value}})
    if part == "largest" and value == 0 and value is not True:
        return  # of a ReLU that never answers
    (tmp_path / "record.json").write_text(json.dumps(forged.as_dict()).replace("Infinity", "1e400"))
    with pytest.raises(CalibrationError, match=r"is not a calibration record|is not JSON") as caught:
        record_from_file(tmp_path / "record.json")
    said = f"{caught.value.what} {caught.value.found}"
    assert any(words in said for words in (f"{part} of a is ", "is not JSON", "too large to convert"))


def test_a_record_whose_key_did_not_cover_its_ranges_is_taken_from_a_bundle_alone(tmp_path: Path) -> None:
    path = Path(__file__).parents[1] / "bundle/format-1/record.json"
    assert record_from_content(content_of(path, 1 << 20)).format == 1
    with pytest.raises(CalibrationError, match="did not cover its ranges") as caught:
        record_from_file(path)
    assert "toolkit.calibrate" in str(caught.value.fix)
    document = RECORD.as_dict()  # nor does a present one become one of those
    write_json(tmp_path / "record.json", document | {"format": 1, "amax": {"a": 1.0}})
    with pytest.raises(CalibrationError, match=r"changed by hand|did not cover"):
        record_from_file(tmp_path / "record.json")


@pytest.mark.parametrize("part", sorted(NAMES))
def test_every_part_changes_the_key_and_is_named_alone(part: str) -> None:
    other = BELONGS | {part: "another"}
    assert Record(RECORD.amax, RECORD.largest, other, RECORD.images).key != RECORD.key
    with pytest.raises(CalibrationError, match="stale") as caught:
        RECORD.require_belongs_to(other)
    assert caught.value.found == f"changed: {NAMES[part]}"
    RECORD.require_belongs_to(BELONGS)


def test_only_what_is_asked_about_is_compared() -> None:
    RECORD.require_belongs_to({"method": BELONGS["method"]})
    with pytest.raises(CalibrationError, match="stale"):
        Record({}, {}, {}, ()).require_belongs_to({"method": "minmax"})


@pytest.mark.parametrize(
    "changes",
    [{"belongs_to": BELONGS | {"method": "minmax"}}, {"key": "0" * 64}, {"key": None}],
)
def test_a_record_whose_key_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(CalibrationError, match="was changed by hand"):
        record_from_file(_written(tmp_path, **changes))


@pytest.mark.parametrize(
    "changes",
    [{"amax": {"a": "wide"}}, {"amax": [1]}, {"largest": None}, {"belongs_to": 3}, {"images": 5}, {"format": 3}],
)
def test_what_is_no_record_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(CalibrationError, match=r"not a calibration record|unknown format"):
        record_from_file(_written(tmp_path, **changes))


@pytest.mark.parametrize("missing", ["amax", "largest", "belongs_to", "images"])
def test_a_record_without_an_entry_is_refused(tmp_path: Path, missing: str) -> None:
    document = RECORD.as_dict()
    del document[missing]
    write_json(tmp_path / "record.json", document)
    with pytest.raises(CalibrationError, match="not a calibration record") as caught:
        record_from_file(tmp_path / "record.json")
    assert missing in str(caught.value.found)


def test_a_truncated_record_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(json.dumps(RECORD.as_dict())[:-20])
    with pytest.raises(CalibrationError, match="is not JSON"):
        record_from_file(path)


def test_hashes_name_the_set_of_images_the_graph_and_the_preprocessing_alone() -> None:
    images = np.arange(3 * 4, dtype=np.uint8).reshape(3, 2, 2, 1)
    digests = sorted(hashlib.sha256(image.tobytes()).digest() for image in images)
    assert sha256_of_digests(reversed(digests)) == hashlib.sha256(b"".join(digests)).hexdigest()
    assert sha256_of_image_set(images) == sha256_of_image_set(images[::-1]) == sha256_of_digests(sha256_of_each(images))
    assert sha256_of_preprocessing({"a": 1, "b": 2}) == sha256_of_preprocessing({"b": 2, "a": 1})
    assert sha256_of_preprocessing({"a": 1}) != sha256_of_preprocessing({"a": 2})
    model = onnx.helper.make_model(onnx.helper.make_graph([], "a", [], []))
    before = sha256_of_graph(model)
    model.producer_name = "another"
    assert sha256_of_graph(model) == before
    model.graph.name = "b"
    assert sha256_of_graph(model) != before
