"""Claims about `toolkit list`: everything that commands take by name is in it, the damaged too."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Toolkit


def test_models_and_bundles_are_named_with_what_was_measured(toolkit: Toolkit) -> None:
    entries = {(entry["kind"], entry["name"]): entry for entry in toolkit("list").document["entries"]}
    assert ("model", "resnet32x32-fashion") in entries, "what is shipped is listed"
    model, bundle = entries["model", "tiny"], entries["bundle", "tiny"]
    assert model["images"] == bundle["images"] == 120
    assert model["top1_percent"] == pytest.approx(bundle["top1_percent"])
    assert {"fp32", "fp16", "int8"} <= set(bundle["files"])
    assert bundle["bytes"] == sum(p.stat().st_size for p in Path("bundles/tiny").rglob("*") if p.is_file())


def test_a_damaged_one_is_listed_with_the_reason(toolkit: Toolkit) -> None:
    shutil.copytree("models/tiny", "models/torn")
    Path("models/torn/card.json").write_text("{")
    try:
        answer = toolkit("list")
    finally:
        shutil.rmtree("models/torn")
    (torn,) = [entry for entry in answer.document["entries"] if entry["name"] == "torn"]
    assert "card.json" in torn["fault"]
    assert "model torn cannot be used" in answer.text
    assert answer.code == 0
