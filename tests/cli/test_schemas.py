"""Claims about docs/schema/: every schema is one, and what the commands print is what it says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from tests.cli.conftest import Toolkit

FOLDER = Path(__file__).parents[2] / "docs" / "schema"
SCHEMAS = sorted(FOLDER.glob("*.json"))


def _schema(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    return document


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.name)
def test_a_schema_is_valid_and_named_after_what_it_describes(path: Path) -> None:
    named = re.fullmatch(r"([a-z]+)\.v(\d+)\.json", path.name)
    assert named
    schema = _schema(path.name)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(schema)
    assert schema["properties"]["schema"]["const"] == f"toolkit/{named[1]}/{named[2]}"
    assert {"schema", "ok"} <= set(schema["properties"])


def test_the_folder_explains_itself() -> None:
    assert "makes a new version" in (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "report.v1.json" in {path.name for path in SCHEMAS}


def test_what_the_commands_print_is_what_the_schemas_say(toolkit: Toolkit, tmp_path: Path) -> None:
    documents = {}
    for name, words in {
        "verify": ("verify", "--backend", "ort", "--data", "set.npz", "--gate", "0"),
        "bench": ("bench", "--backend", "ort", "--batch", "1", "--seconds", "0.05"),
    }.items():
        documents[name] = toolkit(*words).document
        (tmp_path / f"{name}.json").write_text(json.dumps(documents[name]))
    saved = ("--verify", tmp_path / "verify.json", "--bench", tmp_path / "bench.json", "--data", "set.npz")
    documents["report"] = toolkit("report", "-o", tmp_path / "r.html", *saved).document
    for name, document in documents.items():
        assert document["schema"] == f"toolkit/{name}/1"
        file = FOLDER / f"{name}.v1.json"
        if file.is_file():
            Draft202012Validator(_schema(file.name)).validate(document)


def test_a_wrong_document_of_report_is_told_apart() -> None:
    with pytest.raises(ValidationError):
        Draft202012Validator(_schema("report.v1.json")).validate({"schema": "toolkit/report/1", "ok": True})
