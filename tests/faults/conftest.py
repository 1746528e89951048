"""A tiny bundle of colors and stripes, healthy, and a way to plant one fault in a copy of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from tests.manifests import rehashed
from toolkit.contracts import Dataset, LabeledImages, preprocessing_from_images
from toolkit.data.model_images import Recipe, images_from_dataset
from toolkit.exporting.artifacts import Options
from toolkit.exporting.writing import bundle_from_model
from toolkit.models.card import Card
from toolkit.models.checkpoint import arch_from_config, classifier_from_config, load_model, save_model
from toolkit.models.resnet import ResNetConfig
from toolkit.training.loop import Recipe as TrainingRecipe
from toolkit.training.loop import train
from toolkit.verification.verify import verify

CLASSES = ("red rows", "green rows", "blue rows", "red diagonals", "green diagonals", "blue diagonals")
SIZE = 16


def colors_and_stripes(count: int, seed: int) -> LabeledImages:
    """Images uint8 (count, 16, 16, 3) whose class is which channel is bright and which way the stripes run."""
    draws = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % len(CLASSES)
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    along = np.stack([y, x + y])[labels // 3]
    waves = 45 * np.sin(along * np.pi / 2 + draws.uniform(0, 2 * np.pi, (count, 1, 1)))[..., None]
    # Means and deviations differ from channel to channel: a mix-up of either shows.
    base = np.array([70, 90, 110]) + 60 * np.eye(3)[labels % 3][:, None, None]
    images = (base + waves + draws.normal(0, 12, (count, SIZE, SIZE, 3))).clip(0, 255).astype(np.uint8)
    return LabeledImages(images, labels, CLASSES, f"stripes {seed}")


@dataclass(frozen=True)
class Healthy:
    """A bundle with nothing wrong, and the images that judge it as a .npz."""

    bundle: Path
    data: Path
    images: LabeledImages


@pytest.fixture(scope="session")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Healthy:
    """Trained in a second, exported in every precision."""
    folder = tmp_path_factory.mktemp("faults")
    dataset = Dataset("stripes", colors_and_stripes(240, 0), colors_and_stripes(180, 1))
    preprocessing = preprocessing_from_images(dataset.train.images_nhwc)
    config = ResNetConfig(widths=(8, 16), blocks=(1, 1), strides=(1, 2), classes=len(CLASSES))
    torch.manual_seed(0)
    classifier = classifier_from_config(config, preprocessing)
    recipe = TrainingRecipe(epochs=8, batch=16, lr=0.05, ema=0.9, crop=2, flip=False, holdout=24, amp="off")
    classifier.load_state_dict(train(classifier, dataset, preprocessing, recipe, torch.device("cpu")).weights)
    card = Card("stripes", arch_from_config(config), CLASSES, preprocessing, "")
    save_model(folder / "models/stripes", card, classifier.net.state_dict())
    model, images = load_model(folder / "models/stripes"), images_from_dataset(dataset, Recipe("stripes", 48))
    bundle_from_model(model, images, folder / "b", Options(fp16=True, int8=True, method="minmax", force=True))
    return Healthy(folder / "b", written(folder / "set.npz", dataset.test), dataset.test)


def written(path: Path, test: LabeledImages) -> Path:
    """A .npz whose test part is `test`."""
    train = colors_and_stripes(6, 9)
    np.savez(
        path,
        train_images=train.images_nhwc,
        train_labels=train.labels,
        test_images=test.images_nhwc,
        test_labels=test.labels,
        classes=np.array(CLASSES),
    )
    return path


Plant = Callable[[str, Callable[[Any], None]], Path]


@pytest.fixture
def plant(healthy: Healthy, tmp_path: Path) -> Plant:
    """Copies the bundle, changes one ONNX file's graph by a function, and returns the copy."""

    def copied(file: str, change: Callable[[Any], None]) -> Path:
        target = tmp_path / "planted"
        if not target.exists():
            shutil.copytree(healthy.bundle, target)
        model = onnx.load(target / file)
        change(model.graph)
        onnx.save(model, target / file)
        rehashed(target)
        return target

    return copied


def named(healthy: Healthy, bundle: Path | None = None, **options: Any) -> list[str]:
    """Names and evidence of every cause that `verify` reports, one string each."""
    found = verify(bundle or healthy.bundle, data=options.pop("data", str(healthy.data)), backends="ort", **options)
    assert found.ok is not bool(found.likely_causes) or not found.ok
    return [f"{cause.name} | {cause.where} | {cause.evidence}" for cause in found.likely_causes]
