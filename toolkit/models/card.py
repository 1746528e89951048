"""A model's card: what it is, what it takes, what it was measured to do, and which weights belong to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.contracts import Preprocessing, preprocessing_from_dict
from toolkit.data.fit import SQUASH
from toolkit.errors import ModelError
from toolkit.lazy import requirement
from toolkit.storage.files import json_text, read_json
from toolkit.storage.hints import said
from toolkit.workspace import MANIFEST, is_name, require_name

CARD = "card.json"
WEIGHTS = "weights.safetensors"
FORMAT = 1


@dataclass(frozen=True)
class Card:
    """The content of `card.json`.

    Attributes:
        name: a plain one, see `toolkit.workspace.require_name`.
        arch: {"family": "resnet", ...}, enough to build the network.
        labels: one a logit, in order.
        weights_sha256: of `weights.safetensors`.
        accuracy: top-1 and how it was measured; None where nobody measured.
        training: data, recipe, seed, command, time, device; None for weights from elsewhere.
    """

    name: str
    arch: dict[str, Any]
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    weights_sha256: str
    accuracy: dict[str, Any] | None = None
    training: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        require_name(self.name)  # bundles and rooms are called after it

    @property
    def resize(self) -> str:
        """How images of other proportions came to its size when it was trained here."""
        options = (self.training or {}).get("options")
        return str((options if isinstance(options, dict) else {}).get("resize") or SQUASH)

    def text(self) -> str:
        """The JSON of `card.json`."""
        return json_text(
            {
                "format": FORMAT,
                "name": self.name,
                "arch": self.arch,
                "labels": list(self.labels),
                "preprocessing": self.preprocessing.as_dict(),
                "weights": {"file": WEIGHTS, "sha256": self.weights_sha256},
                "accuracy": self.accuracy,
                "training": self.training,
            }
        )


def _labels(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) < 2:
        raise TypeError(f"labels are {value!r}, allowed is a list of at least two")
    return tuple(str(label) for label in value)


def _accuracy(value: Any) -> dict[str, Any] | None:
    """What was measured: an object whose "top1_percent" is a percentage."""
    top1 = value.get("top1_percent") if isinstance(value, dict) else None
    if value is not None and (isinstance(top1, bool) or not isinstance(top1, int | float) or not 0 <= top1 <= 100):
        raise TypeError(f"accuracy is {said(value)}, allowed is null or an object with a 'top1_percent' of 0 to 100")
    found: dict[str, Any] | None = value
    return found


def _training(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, dict | None):
        raise TypeError(f"training is {said(value)}, allowed is null or an object")
    return value


def card_from_folder(folder: Path) -> Card:
    """Reads and checks `card.json`.

    Raises:
        ModelError: the folder or the card is missing, not JSON, of a newer format, or lacks an entry.
    """
    if not (folder / CARD).is_file():
        if (folder / MANIFEST).is_file():
            raise ModelError(
                f"{folder} is a bundle, and this takes the model that it was made of",
                allowed=f"a model's name, or a folder with {CARD} and {WEIGHTS}",
                fix=f"{folder.name}, if that is its name; look at what there is",
            )
        raise ModelError(
            f"{folder} is not a model folder", found=f"no {CARD}", allowed=f"a folder with {CARD} and {WEIGHTS}"
        )
    document = read_json(folder / CARD, ModelError)
    if document.get("format") != FORMAT:
        raise ModelError(
            f"{folder / CARD} has a format that this version cannot read",
            found=document.get("format"),
            allowed=FORMAT,
            fix=f"pip install -U {requirement()}",
        )
    if not is_name(str(document.get("name"))):
        raise ModelError(
            f"{folder / CARD} names the model so that no folder can be called after it",
            found=repr(document.get("name")),
            allowed="up to 64 letters, digits, '.', '_' and '-', a letter or digit first",
        )
    try:
        return Card(
            name=str(document["name"]),
            arch=dict(document["arch"]),
            labels=_labels(document["labels"]),
            preprocessing=preprocessing_from_dict(document["preprocessing"]),
            weights_sha256=str(document["weights"]["sha256"]),
            accuracy=_accuracy(document.get("accuracy")),
            training=_training(document.get("training")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{folder / CARD} lacks an entry or has a wrong one", found=f"{type(error).__name__}: {error}"
        ) from error
