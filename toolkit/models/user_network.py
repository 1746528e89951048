"""A user's network, with its weights: where both come from, and the two put together."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from toolkit.contracts import Preprocessing
from toolkit.errors import ModelError
from toolkit.models.import_path import network_from_import_path
from toolkit.models.resnet import Classifier
from toolkit.models.user_weights import Found, load_user_weights, weights_from_checkpoint
from toolkit.storage.files import os_errors, sha256_of_file

FAMILY = "python"


@dataclass(frozen=True)
class Source:
    """What a bundle remembers of such a network.

    Attributes:
        builder: `package.module:name`.
        checkpoint: the file with the weights.
        kwargs: given to the builder; JSON values.
        weights: which set of a checkpoint with several, by its place; None prefers a moving average.
    """

    builder: str
    checkpoint: Path
    kwargs: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The card's `arch` entry."""
        return {
            "family": FAMILY,
            "builder": self.builder,
            "kwargs": self.kwargs,
            "checkpoint": str(self.checkpoint.resolve()),
            **({"weights": self.weights} if self.weights is not None else {}),
        }


def source_from_dict(values: dict[str, Any]) -> Source:
    """The inverse of `Source.as_dict`.

    Raises:
        ModelError: an entry is missing or of the wrong type.
    """
    try:
        weights = None if values.get("weights") is None else str(values["weights"])
        return Source(str(values["builder"]), Path(values["checkpoint"]), dict(values["kwargs"]), weights)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            "what the bundle says of its Python network cannot be read", found=f"{type(error).__name__}: {error}"
        ) from error


@dataclass(frozen=True)
class UserNetwork:
    """A network with its weights in it: float images (N, C, H, W) to logits.

    Attributes:
        weights_sha256: of the checkpoint file.
        found: where in the checkpoint the weights were.
    """

    net: nn.Module
    weights_sha256: str
    found: Found


def network_from_source(source: Source, weights_sha256: str | None = None) -> UserNetwork:
    """Builds the network and loads the checkpoint into it. **This runs the code that the source names.**

    Args:
        weights_sha256: what the checkpoint must be; None takes any.

    Raises:
        ModelError: no such builder, it fails, or the checkpoint is damaged, unsafe or of another network.
    """
    # What is no checkpoint is refused before gigabytes of it are hashed; a bundle's is hashed before it is read.
    sets = weights_from_checkpoint(source.checkpoint) if weights_sha256 is None else ()
    with os_errors(source.checkpoint, "read"):
        digest = sha256_of_file(source.checkpoint)
    if weights_sha256 not in (None, digest):
        raise ModelError(
            f"{source.checkpoint} changed since the bundle was written",
            found=f"sha256 {digest[:16]}...",
            allowed=f"{str(weights_sha256)[:16]}...",
            fix="restore the checkpoint, or export again",
        )
    sets = sets or weights_from_checkpoint(source.checkpoint)
    net, build = network_from_import_path(source.builder, source.kwargs)
    found = load_user_weights(net, sets, source.checkpoint, build, source.weights)
    _compute_parametrizations(net)
    return UserNetwork(net, digest, found)


def _compute_parametrizations(net: nn.Module) -> None:
    """Weights that are computed from others, once: of orthogonal ones no exporter writes the computation."""
    for module in list(net.modules()):
        parametrizations = getattr(module, "parametrizations", None)
        if isinstance(parametrizations, nn.ModuleDict):
            for name in list(parametrizations):
                with contextlib.suppress(Exception), torch.no_grad():  # what cannot be taken out stays
                    parametrize.remove_parametrizations(module, name, leave_parametrized=True)


def classifier_of(net: nn.Module, preprocessing: Preprocessing) -> Classifier:
    """The network behind its preprocessing, in evaluation mode: uint8 (N, H, W, C) to logits."""
    scale, shift = preprocessing.scale_and_shift()
    factors = torch.from_numpy(scale), torch.from_numpy(shift)
    return Classifier(net, *factors, contiguous=True, bgr=preprocessing.bgr).eval()
