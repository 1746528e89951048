"""Claims about sizes: 32 x 32 is a name; a model takes the height, width, channels and classes that it was made for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from toolkit.bundle.reading import bundle_from_folder
from toolkit.contracts import Dataset, LabeledImages, preprocessing_from_images
from toolkit.data.model_images import Recipe, images_from_dataset
from toolkit.deployment.runners import open_runners
from toolkit.errors import ModelError
from toolkit.exporting.artifacts import Options
from toolkit.exporting.writing import bundle_from_model
from toolkit.models.card import Card
from toolkit.models.checkpoint import arch_from_config, classifier_from_config, load_model, save_model
from toolkit.models.resnet import ResNetConfig
from toolkit.training.loop import Recipe as TrainingRecipe
from toolkit.training.loop import train
from toolkit.verification.images import evaluation_images

# Not 8 and 16: PyTorch 2.13 on the CPU crashes in the backward pass of a 1x1 convolution with stride 2 from 8 to 16
# channels over 64x64 and 96x96 images in channels_last, whoever asks for it.
WIDTHS = (16, 32)
SIZES = [
    (28, 28, 1, 10),
    (32, 32, 3, 2),
    (48, 48, 3, 100),
    (64, 64, 1, 3),
    (96, 96, 3, 5),
    (24, 40, 3, 4),
    (33, 17, 1, 1000),
]


def _images(count: int, shape: tuple[int, int, int], classes: int, seed: int) -> LabeledImages:
    """Noise whose brightness is the class."""
    draws = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % classes
    level = (labels * 180 // classes)[:, None, None, None]
    images = (draws.integers(0, 60, (count, *shape)) + level).astype(np.uint8)
    return LabeledImages(images, labels, tuple(f"class {n}" for n in range(classes)), f"noise {seed}")


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width", "channels", "classes"), SIZES)
def test_a_model_of_any_size_trains_exports_and_verifies(
    height: int, width: int, channels: int, classes: int, workspace: Path
) -> None:
    shape = (height, width, channels)
    dataset = Dataset("noise", _images(48, shape, classes, 0), _images(8, shape, classes, 1))
    preprocessing = preprocessing_from_images(dataset.train.images_nhwc)
    config = ResNetConfig(widths=WIDTHS, blocks=(1, 1), strides=(1, 2), in_channels=channels, classes=classes)
    torch.manual_seed(0)
    classifier = classifier_from_config(config, preprocessing)
    recipe = TrainingRecipe(epochs=1, batch=16, lr=0.02, ema=0.5, crop=2, holdout=8, amp="off")
    trained = train(classifier, dataset, preprocessing, recipe, torch.device("cpu"))
    classifier.load_state_dict(trained.weights)
    card = Card("sized", arch_from_config(config), dataset.train.classes, preprocessing, "")
    save_model(workspace / "models/sized", card, classifier.net.state_dict())
    images = images_from_dataset(dataset, Recipe("noise", 16))
    model = load_model(workspace / "models/sized")
    bundle_from_model(model, images, workspace / "b", Options(fp16=True, int8=True, method="percentile", force=True))
    bundle = bundle_from_folder(workspace / "b")
    assert bundle.preprocessing.shape == shape
    judged = evaluation_images(bundle, None, None)
    opened = open_runners(bundle, ("torch", "ort"), bundle.precisions)
    try:
        answers = {str(name): runner.logits(judged.images_nhwc) for name, runner in opened.runners.items()}
    finally:
        opened.close()
    assert set(answers) >= {"torch fp32", "ort fp32", "ort fp16", "ort int8"}
    assert {answer.shape for answer in answers.values()} == {(8, classes)}
    largest = np.abs(answers["torch fp32"]).max()
    assert np.abs(answers["torch fp32"] - answers["ort fp32"]).max() < 1e-4 * largest
    assert np.abs(answers["ort fp32"] - answers["ort int8"]).max() < 0.2 * largest


@pytest.mark.parametrize("size", [(7, 32), (32, 7), (1, 1)])
def test_images_smaller_than_the_strides_are_refused(size: tuple[int, int]) -> None:
    config = ResNetConfig(widths=(8, 8, 8), blocks=(1, 1, 1), strides=(2, 2, 2), in_channels=1)
    preprocessing = preprocessing_from_images(_images(4, (*size, 1), 2, 0).images_nhwc)
    with pytest.raises(ModelError, match=f"images of {size[0]}x{size[1]} are too small") as caught:
        classifier_from_config(config, preprocessing)
    assert caught.value.found == "strides 2, 2, 2"
    assert "at least 8x8" in str(caught.value.allowed)


def test_images_as_large_as_the_strides_are_enough() -> None:
    config = ResNetConfig(widths=(8, 8), blocks=(1, 1), strides=(2, 2), in_channels=1)
    preprocessing = preprocessing_from_images(_images(4, (4, 4, 1), 2, 0).images_nhwc)
    classifier = classifier_from_config(config, preprocessing).eval()
    assert classifier(torch.zeros((1, 4, 4, 1), dtype=torch.uint8)).shape == (1, 10)
