"""Claims about bundles whose images are not all here: what export measured decides, and is never contradicted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.faults.conftest import CLASSES, Healthy, colors_and_stripes, healthy
from tests.manifests import rehashed
from toolkit.bundle.reading import bundle_from_folder
from toolkit.compare.gate import Verdict, verdict_from_counts
from toolkit.contracts import Dataset, LabeledImages, sha256_of_each
from toolkit.data.model_images import Origin, images_of_dataset
from toolkit.exporting.artifacts import Options
from toolkit.exporting.subject import subject_of
from toolkit.exporting.writing import bundle_from_model
from toolkit.models.checkpoint import load_model
from toolkit.verification.images import evaluation_images
from toolkit.verification.measured import decided_verdict
from toolkit.verification.verify import verify

__all__ = ["healthy"]
GATE = 99.0


@pytest.fixture
def bundle(healthy: Healthy, tmp_path: Path) -> Path:
    """Exported with images in a .npz, class by class as a folder lists them."""
    train, test = colors_and_stripes(240, 0), colors_and_stripes(180, 1)
    by_class = test.take(np.argsort(test.labels, kind="stable"))
    np.savez(
        tmp_path / "set.npz",
        train_images=train.images_nhwc,
        train_labels=train.labels,
        test_images=by_class.images_nhwc,
        test_labels=by_class.labels,
        classes=np.array(CLASSES),
    )
    dataset = Dataset("set", train, LabeledImages(by_class.images_nhwc, by_class.labels, CLASSES, "set"))
    images = images_of_dataset(dataset, Origin(str(tmp_path / "set.npz")), CLASSES, "stripes", 48)
    model = load_model(healthy.bundle.parent / "models/stripes")
    bundle_from_model(model, images, tmp_path / "b", Options(int8=True, method="minmax", force=True))
    return tmp_path / "b"


def _said(bundle: Path, **changes: Any) -> None:
    """Other counts in the manifest, as if INT8 had been measured to be so."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    entry = manifest["accuracy"]["int8"]
    entry.update({key: value for key, value in changes.items() if key != "correct"})
    entry["candidate_score"]["correct"] = changes["correct"]
    rehashed(bundle, accuracy=manifest["accuracy"])


@pytest.mark.slow
def test_the_images_of_export_judge_again_where_they_are_still_the_same(bundle: Path) -> None:
    found = verify(bundle, backends="ort", gate=90)
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert found.images.count == manifest["evaluation"]["images"] == 180
    assert found.images.sha256 == manifest["evaluation"]["sha256"]
    assert all(pair.verdict.measured_images is None for pair in found.pairs.values())
    assert "ort int8-fp16" in found.pairs


@pytest.mark.slow
@pytest.mark.parametrize("fate", ["gone", "changed", "other shape", "no set"])
def test_golden_images_judge_where_those_are_no_longer_the_same(bundle: Path, fate: str) -> None:
    data = bundle.parent / "set.npz"
    if fate == "changed":
        shutil.copy(data, bundle.parent / "kept.npz")
        with np.load(data) as arrays:
            np.savez(data, **{**dict(arrays), "test_images": arrays["test_images"][::-1]})
    elif fate == "other shape":
        with np.load(data) as arrays:
            np.savez(data, **{**dict(arrays), "test_images": arrays["test_images"][:, :8]})
    else:
        data.unlink()
        if fate == "no set":
            data.write_text("no archive")
    images = evaluation_images(bundle_from_folder(bundle), None, None)
    assert len(images) == 64
    assert np.bincount(images.labels, minlength=6).min() >= 10  # the first 64 of a folder would be of two classes


@pytest.mark.slow
def test_what_export_measured_decides_where_the_golden_images_are_too_few(bundle: Path) -> None:
    (bundle.parent / "set.npz").unlink()
    _said(bundle, correct=150, gained=0, lost=28)
    below = verify(bundle, backends="ort", gate=GATE)
    assert below.verdicts["ort int8"] == "fail"
    assert not below.ok
    assert below.pairs["ort int8"].verdict.measured_images == 180
    _said(bundle, correct=180, gained=0, lost=0)
    assert verify(bundle, backends="ort", gate=GATE).passed["ort int8"]


def _verdict(lost: int, images: int) -> Verdict:
    return verdict_from_counts(images - lost, lost, 0, images, GATE)


PASSES, FAILS = _verdict(0, 2000), _verdict(100, 2000)


@pytest.mark.parametrize(
    ("here", "measured", "as_written", "decides"),
    [
        (_verdict(1, 64), PASSES, True, "measured"),  # one flip of 64 is below 99 %, and no news
        (_verdict(9, 64), PASSES, True, "measured"),  # the golden images are hard ones
        (_verdict(0, 64), FAILS, True, "measured"),
        (_verdict(9, 64), PASSES, False, "here"),  # another runner of the file, and a bad one
        (_verdict(1, 64), PASSES, False, "here"),
        (_verdict(0, 64), FAILS, False, "measured"),
        (_verdict(5, 1000), PASSES, None, "measured"),
        (_verdict(11, 1000), PASSES, None, "measured"),  # undecided here
        (_verdict(60, 1000), PASSES, None, "here"),
        (_verdict(0, 1000), FAILS, None, "measured"),
        (_verdict(1, 64), None, None, "here"),
    ],
)
def test_few_images_never_contradict_many(
    here: Verdict, measured: Verdict | None, as_written: bool | None, decides: str
) -> None:
    assert decided_verdict(here, measured, as_written) is (here if decides == "here" else measured)


def test_a_bundles_file_is_calibrated_again_on_the_images_that_calibrated_it(bundle: Path) -> None:
    reading = {"count": None, "convert": False, "skip_bad": False, "resize": "squash", "on_progress": None}
    images = subject_of(bundle / "model.onnx", None, None, reading).images
    record = json.loads((bundle / "record.json").read_text())
    assert sorted(digest.hex()[:16] for digest in sha256_of_each(images.images_nhwc)) == sorted(record["images"])
