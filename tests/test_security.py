"""Claims about SECURITY.md and docs/reliability.md: each test that they name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from toolkit.storage import limits

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


@pytest.mark.parametrize(("page", "least"), [("SECURITY.md", 20), ("docs/reliability.md", 15)])
def test_every_test_that_holds_a_sentence_exists(page: str, least: int) -> None:
    named = NAMED.findall((ROOT / page).read_text())
    assert len(named) > least
    lost = [f"{file}::{test}" for file, test in named if f"def {test}(" not in (ROOT / file).read_text()]
    assert lost == []


def test_limits_in_numbers_are_those_that_are_asked() -> None:
    text = " ".join((ROOT / "SECURITY.md").read_text().split())
    for words in (
        f"a manifest {limits.MANIFEST_BYTES >> 20} MiB, a packed bundle {limits.TAR_BYTES >> 30} GiB",
        f"an image {limits.PIXELS // 10**6} million pixels",
        f"{limits.ONNX_FIELDS:,} parts at the most",
        f"{limits.TRIAL_SECONDS} seconds of a processor and {limits.TRIAL_BYTES >> 20} MiB",
        f"{limits.MULTIPLICATIONS_OF[0]:.0e}".replace("e+", "e") + " multiplications an image",
        f"{limits.MULTIPLICATIONS_OF[1]:.0e}".replace("e+0", "e") + " more for each of its numbers",
    ):
        assert words in text
