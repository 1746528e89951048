"""Does a model folder still give the accuracy that its card claims? Asked of PyTorch, on the card's own images."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from toolkit.compare.classes import classes_from_answers
from toolkit.compare.parity import answers_of, logits_in_batches, score_from_logits
from toolkit.contracts import LabeledImages, require_images
from toolkit.data import dataset_from_spec, sample
from toolkit.data.model_images import images_of_model, labeled_as
from toolkit.lazy import needs
from toolkit.models.card import CARD, Card
from toolkit.runtime.pytorch import TorchRunner
from toolkit.verification.result import ModelVerification, judging
from toolkit.workspace import bundle_as_typed, find_in_room

TOLERANCE_POINTS = 0.01


def is_model(path: Path) -> bool:
    """A model folder, or the name of one that is no folder here and no bundle's."""
    if path.is_dir():
        return (path / CARD).is_file()
    named = len(path.parts) == 1 and bundle_as_typed(path) == path
    return named and find_in_room("models", path.name) is not None


def verify_card(
    model: str | os.PathLike[str],
    *,
    data: str | None = None,
    sample: int | None = None,
    convert: bool = False,
    resize: str | None = None,
    skip_bad: bool = False,
    on_step: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> ModelVerification:
    """Top-1 of the PyTorch model, beside the card's where the images are the card's own.

    Not equal within `TOLERANCE_POINTS` is not ok; on other images there is nothing to compare.

    Args:
        model: a name in models/, or a model folder.
        data, sample, convert, resize, skip_bad: as for `toolkit.verify`.

    Raises:
        ModelError: no such model. DataError: images that do not fit. MissingPackage: no PyTorch.
    """
    with needs("run the PyTorch model"):
        from toolkit.models.checkpoint import folder_of_model, load_model
    loaded = load_model(folder_of_model(os.fspath(model)))
    fitting: dict[str, Any] = {
        "convert": convert or resize is not None,
        "resize": resize or loaded.card.resize,
        "skip_bad": skip_bad,
    }
    judged = _images(loaded.card, data, sample, fitting)
    with TorchRunner(loaded.classifier) as runner:
        logits = logits_in_batches(runner, judged.images_nhwc, partial(on_step, "run torch fp32"))
    score, claimed = score_from_logits(logits, judged.labels), _claim(loaded.card, judged)
    ok = claimed is None or abs(claimed - score.top1_percent) <= TOLERANCE_POINTS
    classes = classes_from_answers(answers_of(logits), judged.labels, loaded.card.labels)
    return ModelVerification(ok, loaded.folder.resolve(), judging(judged), score, claimed, classes)


def _images(card: Card, data: str | None, count: int | None, fitting: dict[str, Any]) -> LabeledImages:
    """The test part of `data`, else the model's own evaluation images."""
    if data is None:
        images = images_of_model(card.name, card.labels, card.preprocessing).evaluation
    else:
        dataset = dataset_from_spec(data, shape=card.preprocessing.shape, **fitting)
        images = labeled_as(dataset.test, card.labels, card.name)
    require_images(images.images_nhwc, card.preprocessing, f"model '{card.name}'")
    return images if count is None else sample(images, count, seed=0)


def _claim(card: Card, images: LabeledImages) -> float | None:
    """The card's top-1 in percent, if it was measured on these very images."""
    if not card.accuracy or card.accuracy.get("data_sha256") != images.sha256:
        return None
    return float(card.accuracy["top1_percent"])
