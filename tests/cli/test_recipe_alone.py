"""Images that may not be passed on are drawn again by the recipe where the set is; where it is not, that is said."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Toolkit


@pytest.fixture
def recipe_alone(tiny_workspace: Path, tmp_path: Path) -> Path:
    """The tiny workspace again, with `calibration/tiny/recipe.toml` and no images."""
    folder = tmp_path / "workspace"
    shutil.copytree(tiny_workspace, folder)
    for images in (folder / "calibration/tiny").glob("*.npz"):
        images.unlink()
    return folder


@pytest.mark.slow
def test_an_export_from_the_recipe_is_the_export_from_the_images(
    toolkit: Toolkit, recipe_alone: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = toolkit("export", "tiny", "--int8", "--no-engines", "-o", tmp_path / "before")
    monkeypatch.setenv("TOOLKIT_WORKSPACE", str(recipe_alone))
    after = toolkit("export", "tiny", "--int8", "--no-engines", "-o", tmp_path / "after")
    assert (before.code, after.code) == (0, 0), before.text + after.text
    assert before.document["files"] == after.document["files"]


def test_without_the_set_a_bundle_is_judged_on_its_golden_images_and_says_so(
    toolkit: Toolkit, recipe_alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_alone / "calibration/tiny/recipe.toml"
    recipe.write_text(recipe.read_text().replace('data = "set.npz"', 'data = "cifar10"'))
    for variable in ("TOOLKIT_DATA", "TOOLKIT_CACHE"):
        monkeypatch.setenv(variable, str(recipe_alone))
    monkeypatch.setenv("TOOLKIT_WORKSPACE", str(recipe_alone))
    monkeypatch.chdir(recipe_alone)
    done = toolkit("verify", "bundles/tiny", "--backend", "ort", "--precision", "fp32")
    assert done.code == 0, done.text
    assert done.document["images"]["source"].endswith("golden.npz (CIFAR-10 is not installed)")
    assert done.document["images"]["count"] == 64
