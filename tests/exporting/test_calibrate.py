"""Claims about `toolkit.calibrate` in a program: arrays calibrate like sets, and the recipe says the rest."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
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


def test_a_file_that_says_it_is_the_toolkits_is_tried_like_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(__file__).parents[1] / "bundle/format-1"
    model = onnx.load(source / "model.onnx")
    with np.load(source / "golden.npz") as golden:
        images = golden["images"]
    pipe = tmp_path / "pipe.onnx"
    os.mkfifo(pipe)
    with pytest.raises(ToolkitError, match="is no regular file"):
        toolkit.calibrate(pipe, images)
    again = model.graph.node.add()
    again.op_type = "Loop"
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ToolkitError, match="again and again"):
        toolkit.calibrate(tmp_path / "m.onnx", images)
    monkeypatch.setenv("TOOLKIT_WORKSPACE", str(tmp_path))
    (tmp_path / "toolkit.toml").write_text('require_signature = "vendor.pub"')
    with pytest.raises(ToolkitError, match="is not signed"):
        toolkit.calibrate(source / "model.onnx", images)
