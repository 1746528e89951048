"""Model folders: `card.json` and `weights.safetensors`, written whole, read with every doubt spoken."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toolkit.contracts import Preprocessing
from toolkit.errors import ModelError
from toolkit.lazy import needs
from toolkit.models.card import CARD, WEIGHTS, Card, card_from_folder
from toolkit.models.resnet import Classifier, ResNet, ResNetConfig, config_from_dict
from toolkit.storage.files import open_regular, os_errors, sha256_of_file
from toolkit.storage.folders import folder_replaced
from toolkit.workspace import DEFAULT_MODEL, find_in_room, no_model

# Below, a 1x1 convolution with stride 2 hangs or dies in the backward pass of PyTorch 2.13's channels_last on the CPU.
FEWEST_CHANNELS_LAST = 8


@dataclass(frozen=True)
class LoadedModel:
    """A card and the module it describes, in evaluation mode on the CPU: uint8 (N, H, W, C) to logits.

    Attributes:
        folder: where the weights lie.
        decided: what nobody said and was found instead, such as the mean; for the manifest.
    """

    card: Card
    classifier: Classifier
    folder: Path
    decided: dict[str, str] = field(default_factory=dict)


def classifier_from_config(config: ResNetConfig, preprocessing: Preprocessing) -> Classifier:
    """A fresh network behind its preprocessing.

    Raises:
        ModelError: the images are smaller than the strides allow.
    """
    config.require_size(preprocessing.height, preprocessing.width)
    scale, shift = preprocessing.scale_and_shift()
    narrow = min(config.widths) < FEWEST_CHANNELS_LAST
    return Classifier(ResNet(config), torch.from_numpy(scale), torch.from_numpy(shift), contiguous=narrow)


def arch_from_config(config: ResNetConfig) -> dict[str, Any]:
    """The card's `arch` entry."""
    return {"family": "resnet", **config.as_dict()}


def folder_of_model(model: str | None) -> Path:
    """A model folder from a name in `models/`, a path, or nothing (the shipped default).

    Raises:
        ModelError: there is no such model; names those that exist.
    """
    name = model or DEFAULT_MODEL
    folder = find_in_room("models", name)
    folder = folder or (Path(name) if Path(name).is_dir() else None)
    if folder is None:
        raise no_model(name)
    return folder


def tensors_from_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file; a truncated or foreign file is a ModelError."""
    with needs("read weights"):
        from safetensors import SafetensorError, safe_open
    with os_errors(path, "read"), open_regular(path, ModelError):
        pass  # a pipe would be waited for
    try:
        with os_errors(path, "read"), safe_open(path, framework="pt") as stream:
            return {key: stream.get_tensor(key) for key in stream.keys()}, stream.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise ModelError(
            f"{path} is not a whole safetensors file",
            found=error,
            fix="restore the file from its source, or train again",
        ) from error


def load_model(folder: Path) -> LoadedModel:
    """Reads a model folder and proves that it is whole.

    Raises:
        ModelError: card or weights missing, truncated, changed since the card was written, of another shape, or
            with values that are not numbers.
    """
    card = card_from_folder(folder)
    path = folder / WEIGHTS
    if not path.is_file():
        raise ModelError(f"{folder} has a card and no weights", found=f"no {WEIGHTS}", fix="restore the file")
    tensors, _ = tensors_from_file(path)
    digest = sha256_of_file(path)
    if digest != card.weights_sha256:
        raise ModelError(
            f"{path} is not the file that {CARD} describes",
            found=f"sha256 {digest}",
            allowed=card.weights_sha256,
            fix="restore the file that belongs to the card, or train again",
        )
    if card.arch.get("family") != "resnet":
        raise ModelError(
            "the card's architecture is unknown",
            found=card.arch.get("family"),
            allowed="resnet",
            fix="`toolkit.export('package.module:build', user=UserModel(checkpoint=FILE))` takes other networks",
        )
    config = config_from_dict({k: v for k, v in card.arch.items() if k != "family"})
    if config.classes != len(card.labels):
        raise ModelError("the card's labels and classes differ", found=f"{len(card.labels)} and {config.classes}")
    if config.in_channels != card.preprocessing.channels:
        raise ModelError(
            "the card's preprocessing and architecture differ in channels",
            found=f"{card.preprocessing.channels} and {config.in_channels}",
        )
    classifier = classifier_from_config(config, card.preprocessing)
    load_weights(classifier.net, tensors, path)
    return LoadedModel(card, classifier.eval(), folder)


def load_weights(net: torch.nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Copies tensors into a network after comparing names, shapes and finiteness."""
    wanted = net.state_dict()
    missing, extra = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    if missing or extra:
        raise ModelError(
            f"{path} belongs to another architecture",
            found=f"{len(missing)} tensors missing ({', '.join(missing[:3])}), {len(extra)} unknown "
            f"({', '.join(extra[:3])})",
        )
    for name, value in tensors.items():
        if value.shape != wanted[name].shape:
            raise ModelError(
                f"{path}: tensor '{name}' has another shape",
                found=tuple(value.shape),
                allowed=tuple(wanted[name].shape),
            )
        require_float(name, value, wanted[name], path)
        require_finite(name, value, path, fix="train again with a lower learning rate")
    net.load_state_dict(tensors)


FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def require_float(name: str, value: Tensor, wanted: Tensor, path: Path) -> None:
    """Refuses what torch would cast without a word: integers, complex numbers or flags where a network has weights.

    Raises:
        ModelError: by the name of the tensor and of its type.
    """
    if value.is_meta:
        found = f"{_short(value.dtype)} on the device 'meta', a shape without numbers"
    elif value.is_quantized or value.layout != torch.strided:
        found = f"{_short(value.dtype)}{'' if value.is_quantized else f', {value.layout}'}"
    elif not wanted.is_floating_point() or value.dtype in FLOATS:
        return
    else:
        found = _short(value.dtype)
    raise ModelError(
        f"{path}: tensor '{name}' is {found}, and the network computes with {_short(wanted.dtype)}",
        found=f"{found} {tuple(value.shape)}",
        allowed=", ".join(map(_short, FLOATS)),
        fix="use the weights as they were trained; `int8=True` quantizes them at export",
    )


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def require_finite(name: str, value: Tensor, path: Path, fix: str) -> None:
    """Refuses a tensor with NaN or infinity in it, by its name."""
    if value.is_floating_point() and not torch.isfinite(value).all():
        bad = int((~torch.isfinite(value)).sum())
        raise ModelError(
            f"{path}: tensor '{name}' holds NaN or infinity", found=f"{bad} of {value.numel()} values", fix=fix
        )


def save_model(
    folder: Path, card: Card, net_weights: dict[str, Tensor], beside: Mapping[str, bytes] | None = None
) -> Card:
    """Writes card and weights together, or neither; returns the card with the weights' sha256 in it.

    Args:
        beside: further files of the folder, by name. What else an older folder holds stays there.
    """
    with needs("write weights"):
        from safetensors.torch import save
    data = save({k: v.detach().cpu().contiguous() for k, v in net_weights.items()})
    card = replace(card, weights_sha256=hashlib.sha256(data).hexdigest())
    own = {WEIGHTS, CARD, *(beside or {})}
    with folder_replaced(folder, CARD, lambda name: name in own or name.startswith("tensorboard/")) as fresh:
        (fresh / WEIGHTS).write_bytes(data)
        (fresh / CARD).write_text(card.text())
        for name, content in (beside or {}).items():
            (fresh / name).write_bytes(content)
    return card
