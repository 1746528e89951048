"""`toolkit verify MODEL`: does a model folder still give the accuracy that its card claims?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.contracts import LabeledImages
    from toolkit.models.card import Card

TOLERANCE_POINTS = 0.01


def is_model(path: Path) -> bool:
    """A model folder, or the name of one that is no folder here."""
    from toolkit.models.card import CARD
    from toolkit.workspace import find_in_room

    if path.is_dir():
        return (path / CARD).is_file()
    return len(path.parts) == 1 and find_in_room("models", path.name) is not None


def require_only_torch(model: str, backend: str, precision: str, other: Path | None) -> None:
    """A model is no bundle: it runs on PyTorch in fp32, and is compared with its card alone."""
    from toolkit.errors import ToolkitError

    if other is not None:
        raise ToolkitError(
            f"'{model}' is a model, and only bundles are compared with each other",
            found=other,
            fix=f"toolkit export {model}, then toolkit verify bundles/{model} {other}",
        )
    if backend not in ("all", "torch") or precision not in ("all", "fp32"):
        raise ToolkitError(
            f"'{model}' is a model, not a bundle: it runs on torch in fp32 only",
            found=f"--backend {backend} --precision {precision}",
            fix=f"toolkit export {model} --int8 --fp16, then toolkit verify bundles/{model} --backend {backend}",
        )


def verify_model(name: str, data: str | None, count: int | None, convert: bool, skip_bad: bool) -> dict[str, Any]:
    """Top-1 of the PyTorch model, beside the card's where the images are the card's own.

    Not equal within `TOLERANCE_POINTS` is not ok; on other images there is nothing to compare.
    """
    from functools import partial

    from toolkit.cli.console import say, steps, table
    from toolkit.compare.parity import logits_in_batches, score_from_logits
    from toolkit.lazy import needs
    from toolkit.runtime.pytorch import TorchRunner
    from toolkit.verification.result import ModelVerification, judging

    with needs("run the PyTorch model"):
        from toolkit.models.checkpoint import folder_of_model, load_model
    loaded = load_model(folder_of_model(name))
    card = loaded.card
    images = _images(card, data, count, convert, skip_bad)
    with steps() as step, TorchRunner(loaded.classifier) as runner:
        logits = logits_in_batches(runner, images.images_nhwc, partial(step, "run torch fp32"))
    score = score_from_logits(logits, images.labels)
    claimed = _claim(card, images)
    ok = claimed is None or abs(claimed - score.top1_percent) <= TOLERANCE_POINTS
    said = "other images" if claimed is None else f"{claimed:.2f} %"
    row = (
        card.name, f"{score.top1_percent:.2f} %", f"{score.low_percent:.2f} - {score.high_percent:.2f}", said,
        "" if claimed is None else "[green]true[/green]" if ok else "[red]NOT TRUE[/red]",
    )  # fmt: skip
    title = f"{loaded.folder} on {len(images):,} images of {images.source}"
    table(title, ("model", "top-1", "95 %", "card says", "<"), [row])
    if not ok:
        say("[red]The card claims another accuracy than these weights have.[/red] Train again, or restore the folder.")
    return ModelVerification(ok, loaded.folder.resolve(), judging(images), score, claimed).as_dict()


def _images(card: Card, data: str | None, count: int | None, convert: bool, skip_bad: bool) -> LabeledImages:
    """The test part of `data`, else the model's own evaluation images."""
    from toolkit.contracts import require_images
    from toolkit.data import dataset_from_spec, sample
    from toolkit.data.model_images import images_of_model, labeled_as

    if data is None:
        images = images_of_model(card.name, card.labels, card.preprocessing).evaluation
    else:
        dataset = dataset_from_spec(data, shape=card.preprocessing.shape, convert=convert, skip_bad=skip_bad)
        images = labeled_as(dataset.test, card.labels, card.name)
    require_images(images.images_nhwc, card.preprocessing, f"model '{card.name}'")
    return images if count is None else sample(images, count, seed=0)


def _claim(card: Card, images: LabeledImages) -> float | None:
    """The card's top-1 in percent, if it was measured on these very images."""
    if not card.accuracy or card.accuracy.get("data_sha256") != images.sha256:
        return None
    return float(card.accuracy["top1_percent"])
