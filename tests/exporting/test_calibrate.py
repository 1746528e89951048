"""Claims about `toolkit.calibrate` in a program: arrays calibrate like sets, and the recipe says the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import toolkit
from toolkit.calibration.record import record_from_file, sha256_of_image_set
from toolkit.contracts import LabeledImages
from toolkit.errors import DataError, ToolkitError
from toolkit.exporting.options import CalibrateOptions, ExportOptions, UserModel


def test_an_array_calibrates_a_model(
    tiny_model_folder: Path, structured_images: LabeledImages, workspace: Path
) -> None:
    pixels = structured_images.images_nhwc
    found = toolkit.calibrate("tiny", pixels, CalibrateOptions(method="minmax", images=len(pixels)))
    assert found.model == "tiny"
    assert found.record.belongs_to["images_sha256"] == sha256_of_image_set(pixels)
    assert found.record.belongs_to["method"] == "minmax"
    saved = found.save()
    assert record_from_file(workspace / "calibration/tiny.record/record.json") == found.record
    assert Path(getattr(saved, "record", saved)).is_file()


def test_an_array_that_does_not_fit_is_refused(tiny_model_folder: Path, workspace: Path) -> None:
    with pytest.raises(DataError, match="tiny"):
        toolkit.calibrate("tiny", np.zeros((16, 8, 8, 3), np.uint8))
    with pytest.raises(ToolkitError, match="takes images with labels"):
        toolkit.calibrate("theirs.py:build", np.zeros((16, 16, 16, 3), np.uint8), user=UserModel(checkpoint="w.pth"))


def test_a_percentile_implies_its_method_and_nothing_said_is_the_recipes() -> None:
    from toolkit.data.model_images import Recipe

    recipe = Recipe("set", method="mse", percentile=99.9)
    assert CalibrateOptions().measuring(recipe) == ("mse", 99.9)
    assert CalibrateOptions(percentile=99.5).measuring(recipe) == ("percentile", 99.5)
    assert CalibrateOptions(method="auto").measuring(recipe) == ("auto", 99.9)


def test_options_that_contradict_each_other_are_refused_at_once() -> None:
    with pytest.raises(ToolkitError, match="`max_drop=` is about INT8"):
        ExportOptions(max_drop=1.0)
    with pytest.raises(ToolkitError, match="batch"):
        ExportOptions(batch=(8, 4, 1))
    with pytest.raises(ToolkitError, match="`start=` brings its own architecture"):
        toolkit.TrainOptions(start="net", arch="resnet20")
    with pytest.raises(ToolkitError, match="shows only when they run"):
        toolkit.BuildOptions(repeats=3)
