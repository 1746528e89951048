"""Claims about docs/schema/: it is what the dataclasses say, and what the commands print is what it says.

`python -m tests.cli.test_schemas` writes it anew.
"""

from __future__ import annotations

import json
import re

import pytest
from jsonschema import Draft202012Validator, ValidationError

from tests.cli.conftest import Toolkit
from tests.schemas import FOLDER, name_of_schema, require_schema, text_of_schema
from toolkit.benchmarking.result import Benchmark
from toolkit.bundle.results import CheckedBundle, PackedBundle, ShownBundle, SignedBundle, UnpackedBundle
from toolkit.cli import app, bundle
from toolkit.data.source import DataReport
from toolkit.deployment.inspection import Inspection
from toolkit.deployment.inventory import Inventory
from toolkit.deployment.predict import Predictions
from toolkit.deployment.selftest import Selftest
from toolkit.deployment.triton import Repository
from toolkit.doctor.checks import Doctor
from toolkit.engine.bundle_engines import Built
from toolkit.engine.planning import Plan
from toolkit.exporting.calibrate import Calibrated
from toolkit.exporting.result import Exported
from toolkit.quantization.sensitivity import Sensitivities
from toolkit.reporting.result import Reported
from toolkit.storage.cache import Cache
from toolkit.storage.documents import Document, Failure
from toolkit.training.options import TrainingResult
from toolkit.verification.result import ModelVerification, Verification
from toolkit.workspace import NewWorkspace

DOCUMENTS: tuple[type[Document], ...] = (
    Benchmark, Built, Cache, Calibrated, CheckedBundle, DataReport, Doctor, Exported, Failure,
    Inspection, Inventory, ModelVerification, Predictions,
    NewWorkspace, PackedBundle, Plan, Reported, Repository, Selftest, Sensitivities, ShownBundle, SignedBundle,
    TrainingResult, UnpackedBundle, Verification,
)  # fmt: skip
COMMANDS = (
    ("verify", "--backend", "ort", "--data", "set.npz", "--gate", "0"),
    ("verify", "tiny", "--card", "--data", "set.npz"),
    ("bench", "--backend", "ort", "--batch", "1", "--seconds", "0.05"),
    ("selftest", "--backend", "ort", "--seconds", "0.01"),
    ("build", "--explain", "--target", "jetpack61"),
    ("triton", "-o", "repository", "--precision", "fp32,int8-cpu"),
    ("calibrate", "tiny", "-o", "ranges"),
    ("sensitivity", "tiny", "-o", "costs"),
    ("cache",),
    ("list",),
    ("data", "set.npz"),
    ("report", "--bench", "none.json"),
    ("bench", "--batch", "none"),
    ("no-such-command",),
)
BY_NAME = {name_of_schema(kind): kind for kind in DOCUMENTS}


def write_schemas() -> None:
    """Every schema, as the dataclasses say now."""
    for name, kind in BY_NAME.items():
        (FOLDER / name).write_text(text_of_schema(kind), encoding="utf-8")


@pytest.mark.parametrize("name", BY_NAME)
def test_a_schema_is_what_its_dataclass_says(name: str) -> None:
    again = "python -m tests.cli.test_schemas writes docs/schema anew"
    assert (FOLDER / name).read_text(encoding="utf-8") == text_of_schema(BY_NAME[name]), again
    schema, named = json.loads(text_of_schema(BY_NAME[name])), re.fullmatch(r"([a-z-]+)\.v(\d+)\.json", name)
    assert named
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(schema)
    assert schema["properties"]["schema"]["const"] == f"toolkit/{named[1]}/{named[2]}"
    assert {"schema", "ok"} <= set(schema["properties"])


def test_the_folder_holds_them_and_explains_itself() -> None:
    assert "makes a new version" in (FOLDER / "README.md").read_text(encoding="utf-8")
    assert {path.name for path in FOLDER.glob("*.json")} == set(BY_NAME)


@pytest.mark.slow
@pytest.mark.parametrize("words", [*COMMANDS, ("bundle", "check"), ("bundle", "show")], ids=" ".join)
def test_what_a_command_prints_is_read_back_as_it_was(toolkit: Toolkit, words: tuple[str, ...]) -> None:
    answer = toolkit(*words)  # which holds every document of every test against its schema
    assert answer.document["schema"] in {kind.SCHEMA for kind in DOCUMENTS}
    kind = next(kind for kind in DOCUMENTS if answer.document["schema"] == kind.SCHEMA)
    assert kind.from_dict(answer.document | {"of a later version": 1}).as_dict() == answer.document


def test_every_command_has_a_document() -> None:
    commands = {command.name or "" for command in app.registered_commands}
    assert commands <= {kind.SCHEMA.split("/")[1] for kind in DOCUMENTS}
    bundles = {f"bundle-{command.callback.__name__}" for command in bundle.app.registered_commands if command.callback}
    assert bundles <= {kind.SCHEMA.split("/")[1] for kind in DOCUMENTS}


def test_a_wrong_document_is_told_apart() -> None:
    with pytest.raises(ValidationError):
        require_schema({"schema": "toolkit/report/1", "ok": True})


if __name__ == "__main__":
    write_schemas()
