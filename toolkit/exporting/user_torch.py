"""A user's classifier made ready for a bundle: network, weights, images, labels and normalization agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.contracts import Dataset, Preprocessing, preprocessing_from_images
from toolkit.data import dataset_from_spec
from toolkit.data.fit import SQUASH
from toolkit.data.model_images import ModelImages, Origin, images_of_dataset, labeled_as
from toolkit.errors import ModelError, ToolkitError
from toolkit.exporting.options import UserModel
from toolkit.models.card import Card
from toolkit.workspace import require_name

if TYPE_CHECKING:
    from toolkit.models.checkpoint import LoadedModel

GENERIC = ("build", "create", "make", "get", "net", "model", "main", "build_model", "create_model", "get_model")


def model_from_builder(
    builder: str,
    checkpoint: Path,
    data: str,
    user: UserModel,
    *,
    count: int | None = None,
    convert: bool = False,
    skip_bad: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    resize: str = SQUASH,
) -> tuple[LoadedModel, ModelImages]:
    """Builds the network, loads its weights, reads the images and proves that they belong together.

    Args:
        builder: `package.module:name`.
        data: the images that calibrate and judge.
        count: calibration images; None takes up to 512.
        resize: how `convert` brings images of other proportions to the model's size.

    Raises:
        ModelError: the network or its checkpoint cannot be used, or does not fit images and labels.
        DataError: the images cannot be used.
    """
    from toolkit.models.checkpoint import LoadedModel
    from toolkit.models.import_path import classes_of_network
    from toolkit.models.user_network import Source, classifier_of, network_from_source

    name = require_name(user.name or default_name(builder))
    _require_both(user)
    source = Source(builder, checkpoint, dict(user.kwargs or {}), user.weights)
    network = network_from_source(source)
    dataset = dataset_from_spec(
        data, shape=user.size, convert=convert, skip_bad=skip_bad, on_progress=on_progress, resize=resize
    )
    height, width, channels = dataset.train.images_nhwc.shape[1:]
    logits = classes_of_network(network.net, (height, width, channels))
    labels = labels_that_fit(user.labels, dataset, logits, builder)
    preprocessing, normalization = _preprocessing(user, dataset)
    decided = {
        "normalisation": normalization,
        "labels": "given" if user.labels else f"the classes of {dataset.name}",
        "weights": f"{checkpoint.name}: {network.found.words}",
        **({"other_weights": ", ".join(network.found.others)} if network.found.others else {}),
    }
    card = Card(name, source.as_dict(), labels, preprocessing, network.weights_sha256)
    classifier = classifier_of(network.net, preprocessing)
    images = images_of_dataset(dataset, Origin(data, convert, resize, skip_bad), labels, name, count)
    return LoadedModel(card, classifier, checkpoint.resolve().parent, decided), images


def default_name(builder: str) -> str:
    """What is called behind the colon, or the module where that says nothing: `mynet:build` is `mynet`."""
    module, _, name = builder.partition(":")
    return module.rpartition(".")[2] if name.lower() in GENERIC else name.rpartition(".")[2]


def _require_both(user: UserModel) -> None:
    if (user.mean is None) != (user.std is None):
        raise ToolkitError(
            "mean and std belong together",
            found="`mean=` alone" if user.std is None else "`std=` alone",
            fix="give both as they were in training, or neither: then they are measured on `data=`",
        )
    if user.mean is not None and max(abs(m) for m in user.mean) > 1:
        raise ToolkitError(
            "`mean=` is not of pixels scaled to 0..1",
            found=", ".join(f"{m:g}" for m in user.mean),
            allowed="0 to 1",
            fix="divide mean and std by 255",
        )


def labels_that_fit(given: Sequence[str] | None, dataset: Dataset, logits: int, name: str) -> tuple[str, ...]:
    """One label a logit: those that were given, else the classes of the images.

    Raises:
        ModelError: there are more or fewer. DataError: the images have a class that is not among them.
    """
    labels = tuple(given or dataset.train.classes)
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


def _preprocessing(user: UserModel, dataset: Dataset) -> tuple[Preprocessing, str]:
    """The normalization, and in words where it comes from."""
    height, width, channels = dataset.train.images_nhwc.shape[1:]
    if user.mean is not None and user.std is not None:
        mean, std = (tuple(values)[:: -1 if user.bgr else 1] for values in (user.mean, user.std))
        return Preprocessing(height, width, channels, mean, std, user.bgr), "given"
    measured = replace(preprocessing_from_images(dataset.train.images_nhwc), bgr=user.bgr)
    return measured, f"measured on the {len(dataset.train):,} training images of {dataset.train.source}"
