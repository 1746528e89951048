"""What must hold before a version is tagged; `make release-check` asks more than a test run in between."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from toolkit.version import __version__

ROOT = Path(__file__).parent.parent
SECTIONS = dict(re.findall(r"^## (\S+).*\n((?:(?!## ).*\n?)*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE))


def test_the_version_is_one_of_semver() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+(-[0-9A-Za-z.]+)?", __version__)


def test_a_tag_on_this_commit_is_the_version() -> None:
    done = subprocess.run(["git", "tag", "--points-at", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    tags = [tag for tag in done.stdout.split() if tag.startswith("v")]
    if not tags:
        pytest.skip("no tag points at this commit")
    assert tags == [f"v{__version__}"]


def test_the_changelog_has_what_is_new_under_the_version_or_under_unreleased() -> None:
    if os.environ.get("TOOLKIT_RELEASE"):
        assert SECTIONS.get(__version__, "").strip(), f"CHANGELOG.md has no section {__version__}"
        assert not SECTIONS.get("Unreleased", "").strip(), "CHANGELOG.md has changes that no version has"
    assert next(iter(SECTIONS)) in ("Unreleased", __version__)
