"""Somebody else's classifier made ready for a bundle: network, weights, images, labels and normalization agree."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.contracts import Dataset, Preprocessing, preprocessing_from_images
from toolkit.data import dataset_from_spec
from toolkit.data.fit import SQUASH
from toolkit.data.model_images import ModelImages, Origin, images_of_dataset, labeled_as
from toolkit.errors import ModelError, ToolkitError
from toolkit.models.card import Card
from toolkit.workspace import require_name

if TYPE_CHECKING:
    from toolkit.models.checkpoint import LoadedModel

GENERIC = ("build", "create", "make", "get", "net", "model", "main", "build_model", "create_model", "get_model")


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line.

    Attributes:
        builder: `package.module:name`.
        size: (H, W, C); None takes that of the images.
        mean, std: of pixels scaled to 0..1, in the network's order of channels; None measures them.
        labels: one a logit; None takes the classes of the images.
        bgr: the network wants blue first.
        weights: which set of a checkpoint with several; None prefers a moving average.
    """

    builder: str
    checkpoint: Path
    data: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    name: str | None = None
    labels: tuple[str, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: tuple[int, int, int] | None = None
    bgr: bool = False
    weights: str | None = None


def model_from_request(
    request: Request,
    *,
    count: int | None = None,
    convert: bool = False,
    skip_bad: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    resize: str = SQUASH,
) -> tuple[LoadedModel, ModelImages]:
    """Builds the network, loads its weights, reads the images and proves that they belong together.

    Args:
        count: calibration images; None takes up to 512.
        resize: how `convert` brings images of other proportions to the model's size.

    Raises:
        ModelError: the network or its checkpoint cannot be used, or does not fit images and labels.
        DataError: the images cannot be used.
    """
    from toolkit.models.checkpoint import LoadedModel
    from toolkit.models.import_path import classes_of_network
    from toolkit.models.user_network import Source, classifier_of, network_from_source

    name = require_name(request.name or default_name(request.builder))
    _require_both(request)
    source = Source(request.builder, request.checkpoint, request.kwargs, request.weights)
    network = network_from_source(source)
    dataset = dataset_from_spec(
        request.data, shape=request.size, convert=convert, skip_bad=skip_bad, on_progress=on_progress, resize=resize
    )
    height, width, channels = dataset.train.images_nhwc.shape[1:]
    logits = classes_of_network(network.net, (height, width, channels))
    labels = labels_that_fit(request.labels, dataset, logits, request.builder)
    preprocessing, normalization = _preprocessing(request, dataset)
    decided = {
        "normalisation": normalization,
        "labels": "given" if request.labels else f"the classes of {dataset.name}",
        "weights": f"{request.checkpoint.name}: {network.found.words}",
        **({"other_weights": ", ".join(network.found.others)} if network.found.others else {}),
    }
    card = Card(name, source.as_dict(), labels, preprocessing, network.weights_sha256)
    classifier = classifier_of(network.net, preprocessing)
    images = images_of_dataset(dataset, Origin(request.data, convert, resize, skip_bad), labels, name, count)
    return LoadedModel(card, classifier, request.checkpoint.resolve().parent, decided), images


def default_name(builder: str) -> str:
    """What is called behind the colon, or the module where that says nothing: `mynet:build` is `mynet`."""
    module, _, name = builder.partition(":")
    return module.rpartition(".")[2] if name.lower() in GENERIC else name.rpartition(".")[2]


def _require_both(request: Request) -> None:
    if (request.mean is None) != (request.std is None):
        raise ToolkitError(
            "mean and std belong together",
            found="`mean=` alone" if request.std is None else "`std=` alone",
            fix="give both as they were in training, or neither: then they are measured on `data=`",
        )
    if request.mean is not None and max(abs(m) for m in request.mean) > 1:
        raise ToolkitError(
            "`mean=` is not of pixels scaled to 0..1",
            found=", ".join(f"{m:g}" for m in request.mean),
            allowed="0 to 1",
            fix="divide mean and std by 255",
        )


def labels_that_fit(given: tuple[str, ...] | None, dataset: Dataset, logits: int, name: str) -> tuple[str, ...]:
    """One label a logit: those that were given, else the classes of the images.

    Raises:
        ModelError: there are more or fewer. DataError: the images have a class that is not among them.
    """
    labels = given or dataset.train.classes
    if len(labels) != logits:
        raise ModelError(
            f"the network gives {logits} logits for {len(labels)} labels",
            found=", ".join(labels[:12]) + (", ..." if len(labels) > 12 else ""),
            allowed="one label a logit, in the order of the logits",
            fix="`labels=('a', 'b', 'c')` names them all" if given is None else "check `labels=`",
        )
    for part in (dataset.train, dataset.test):
        labeled_as(part, labels, name)
    return labels


def _preprocessing(request: Request, dataset: Dataset) -> tuple[Preprocessing, str]:
    """The normalization, and in words where it comes from."""
    height, width, channels = dataset.train.images_nhwc.shape[1:]
    if request.mean is not None and request.std is not None:
        mean, std = (values[::-1] if request.bgr else values for values in (request.mean, request.std))
        return Preprocessing(height, width, channels, mean, std, request.bgr), "given"
    measured = replace(preprocessing_from_images(dataset.train.images_nhwc), bgr=request.bgr)
    return measured, f"measured on the {len(dataset.train):,} training images of {dataset.train.source}"


def kwargs_from_text(text: str | None) -> dict[str, Any]:
    """The JSON object of `--kwargs`.

    Raises:
        ToolkitError: it is not one.
    """
    try:
        values = json.loads(text or "{}")
    except ValueError as error:
        values = error
    if not isinstance(values, dict):
        raise ToolkitError("--kwargs cannot be read", found=values, allowed="a JSON object: '{\"pretrained\": false}'")
    return values


def numbers_from_text(text: str | None, option: str) -> tuple[float, ...] | None:
    """`0.49,0.48,0.45` as numbers; None where nothing was said."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ToolkitError(
            f"{option} cannot be read", found=text, allowed="a number a channel: 0.49,0.48,0.45"
        ) from error


def size_from_text(text: str | None) -> tuple[int, int, int] | None:
    """`32x32x3` as (H, W, C); None where nothing was said."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,4})x(\d{1,4})x([13])", text)
    if found is None:
        raise ToolkitError(
            "--size cannot be read", found=text, allowed="height x width x channels: 32x32x3, or 28x28x1 for grayscale"
        )
    height, width, channels = map(int, found.groups())
    return height, width, channels


def labels_from_text(text: str | None) -> tuple[str, ...] | None:
    """`a,b,c` as labels; None where nothing was said."""
    if text is None:
        return None
    labels = tuple(part.strip() for part in text.split(","))
    if len(set(labels)) != len(labels) or not all(labels):
        raise ToolkitError("--labels cannot be read", found=text, allowed="different names with commas: cat,dog,bird")
    return labels
