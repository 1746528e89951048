"""Claims about docs/schema/: it is what the dataclasses say, and what the commands print is what it says.

`python -m tests.cli.test_schemas` writes it anew.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from tests.cli.conftest import Toolkit
from tests.schemas import FOLDER, name_of_schema, text_of_schema
from toolkit.benchmarking.result import Benchmark
from toolkit.documents import Document, Failure
from toolkit.quantization.sensitivity import Sensitivities
from toolkit.verification.result import Verification

DOCUMENTS: tuple[type[Document], ...] = (Benchmark, Failure, Sensitivities, Verification)
BY_NAME = {name_of_schema(kind): kind for kind in DOCUMENTS}


def _schema(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    return document


def write_schemas() -> None:
    """Every schema, as the dataclasses say now."""
    for name, kind in BY_NAME.items():
        (FOLDER / name).write_text(text_of_schema(kind), encoding="utf-8")


@pytest.mark.parametrize("name", BY_NAME)
def test_a_schema_is_what_its_dataclass_says(name: str) -> None:
    again = "python -m tests.cli.test_schemas writes docs/schema anew"
    assert (FOLDER / name).read_text(encoding="utf-8") == text_of_schema(BY_NAME[name]), again
    schema, named = _schema(name), re.fullmatch(r"([a-z-]+)\.v(\d+)\.json", name)
    assert named
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(schema)
    assert schema["properties"]["schema"]["const"] == f"toolkit/{named[1]}/{named[2]}"
    assert {"schema", "ok"} <= set(schema["properties"])


def test_the_folder_explains_itself() -> None:
    assert "makes a new version" in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_what_the_commands_print_is_what_the_schemas_say(toolkit: Toolkit, tmp_path: Any) -> None:
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
        Draft202012Validator(_schema(f"{name}.v1.json")).validate(document)


def test_a_wrong_document_of_report_is_told_apart() -> None:
    with pytest.raises(ValidationError):
        Draft202012Validator(_schema("report.v1.json")).validate({"schema": "toolkit/report/1", "ok": True})


if __name__ == "__main__":
    write_schemas()
