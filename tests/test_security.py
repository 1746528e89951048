"""Claims about SECURITY.md and docs/reliability.md: each test that they name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


@pytest.mark.parametrize(("page", "least"), [("SECURITY.md", 20), ("docs/reliability.md", 15)])
def test_every_test_that_holds_a_sentence_exists(page: str, least: int) -> None:
    named = NAMED.findall((ROOT / page).read_text())
    assert len(named) > least
    lost = [f"{file}::{test}" for file, test in named if f"def {test}(" not in (ROOT / file).read_text()]
    assert lost == []
