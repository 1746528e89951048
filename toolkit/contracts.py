"""The values that pass between the rooms: images, preprocessing, cards. Frozen, numpy only, checked when made."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import DataError, ModelError

UInt8 = NDArray[np.uint8]
Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
# Weights (C_out, ...) to the scales of int8 (C_out,), or to what int8 numbers in such steps make of them, (C_out, ...).
WeightScales: TypeAlias = Callable[[Float32], Float32]
WeightsAsInt8: TypeAlias = Callable[[Float32], Float32]
BGR = "BGR"  # in cards and manifests, of a network that wants blue first


def sha256_of_images(images_nhwc: UInt8, labels: Int64) -> str:
    """One sha256 for a set of labeled images: shape, pixels and labels, in order."""
    digest = hashlib.sha256(f"uint8 {images_nhwc.shape}".encode())
    digest.update(np.ascontiguousarray(images_nhwc).tobytes())
    digest.update(np.ascontiguousarray(labels, np.int64).tobytes())
    return digest.hexdigest()


def sha256_of_each(images_nhwc: UInt8) -> list[bytes]:
    """The sha256 of each image's pixels, 32 bytes each: what "the same image" means here."""
    return [hashlib.sha256(image.tobytes()).digest() for image in np.ascontiguousarray(images_nhwc)]


def order_by_content(images_nhwc: UInt8) -> Int64:
    """Indices (N,) that sort images by their sha256: whoever runs them in this order gets the same bits for any other.

    An engine may round an image's values otherwise at another place in a batch, or in a batch of another size.
    """
    digests = sha256_of_each(images_nhwc)
    return np.array(sorted(range(len(digests)), key=digests.__getitem__), np.int64)


@dataclass(frozen=True)
class LabeledImages:
    """Images uint8 (N, H, W, C), labels int64 (N,) that index `classes`, and where they came from."""

    images_nhwc: UInt8
    labels: Int64
    classes: tuple[str, ...]
    source: str

    def __post_init__(self) -> None:
        images, labels = self.images_nhwc, self.labels
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
            raise DataError(
                f"{self.source}: images have the wrong form",
                found=f"{images.dtype} {images.shape}",
                allowed="uint8 (N, H, W, C) with C 1 or 3",
            )
        if len(images) == 0:
            raise DataError(f"{self.source}: there are no images", found="0 images", allowed="at least 1")
        if labels.shape != (len(images),) or labels.dtype != np.int64:
            raise DataError(
                f"{self.source}: labels do not fit the images",
                found=f"{labels.dtype} {labels.shape} for {len(images)} images",
                allowed=f"int64 ({len(images)},)",
            )
        broken = next((name for name in self.classes if not _is_text(name)), None)
        if broken is not None:
            raise DataError(
                f"{self.source}: the name of a class is no text in UTF-8",
                found=ascii(broken),
                allowed="names that can be written into a card",
                fix="give the folder another name",
            )
        if labels.min() < 0 or labels.max() >= len(self.classes):
            raise DataError(
                f"{self.source}: a label lies outside the classes",
                found=f"labels {labels.min()} to {labels.max()}",
                allowed=f"0 to {len(self.classes) - 1}",
            )

    def __len__(self) -> int:
        return len(self.images_nhwc)

    @cached_property
    def sha256(self) -> str:
        """Identity of the whole set, order included."""
        return sha256_of_images(self.images_nhwc, self.labels)

    def take(self, indices: NDArray[np.integer[Any]] | slice, source: str | None = None) -> LabeledImages:
        """A part of the set, in the order of `indices`."""
        return LabeledImages(self.images_nhwc[indices], self.labels[indices], self.classes, source or self.source)


def _is_text(name: str) -> bool:
    """Whether it can be written: a name of other bytes than UTF-8 comes as halves of surrogate pairs."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True)
class Dataset:
    """A training and a test part with the same classes and image shape.

    Attributes:
        skipped: files that could not be read and were left out on request, each with the reason.
        notes: what was done to the images, in sentences.
    """

    name: str
    train: LabeledImages
    test: LabeledImages
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Preprocessing:
    """What happens to uint8 pixels before the first convolution: (pixel / 255 - mean) / std, a channel each.

    Attributes:
        height, width, channels: the images a model takes, always RGB or gray.
        mean, std: of pixels scaled to 0..1, one entry a channel, in the images' order; one alone is for all channels.
        bgr: the network behind it wants blue first, as OpenCV and Caffe have it: its graph turns the channels about.
    """

    height: int
    width: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    bgr: bool = False

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            if len(getattr(self, name)) == 1:
                object.__setattr__(self, name, tuple(getattr(self, name)) * self.channels)
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ModelError(
                "preprocessing needs one mean and one std a channel",
                found=f"{len(self.mean)} means, {len(self.std)} stds",
                allowed=f"{self.channels} each",
            )
        if not all(math.isfinite(m) for m in self.mean) or not all(s > 0 and math.isfinite(s) for s in self.std):
            raise ModelError(
                "preprocessing has a mean or std that cannot be used",
                found=f"mean {self.mean}, std {self.std}",
                allowed="finite means, positive finite stds",
            )
        if self.bgr and self.channels != 3:
            raise ModelError("blue comes first in images of 3 channels only", found=f"{self.channels} channel")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return (self.height, self.width, self.channels)

    def scale_and_shift(self) -> tuple[Float32, Float32]:
        """float32 (C,) each, so that normalized = pixel * scale + shift."""
        mean, std = np.array(self.mean, np.float64), np.array(self.std, np.float64)
        return (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)

    def as_dict(self) -> dict[str, Any]:
        """For cards and manifests."""
        return {
            "input": "images",
            "dtype": "uint8",
            "layout": "NHWC",
            "height": self.height,
            "width": self.width,
            "channels": self.channels,
            "formula": "(pixel / 255 - mean) / std",
            "mean": list(self.mean),
            "std": list(self.std),
            **({"network_channels": BGR} if self.bgr else {}),
        }


def preprocessing_from_dict(values: dict[str, Any]) -> Preprocessing:
    """The inverse of `Preprocessing.as_dict`."""
    try:
        return Preprocessing(
            int(values["height"]),
            int(values["width"]),
            int(values["channels"]),
            tuple(float(m) for m in values["mean"]),
            tuple(float(s) for s in values["std"]),
            values.get("network_channels") == BGR,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError("preprocessing cannot be read", found=f"{type(error).__name__}: {error}") from error


def preprocessing_from_images(images_nhwc: UInt8) -> Preprocessing:
    """Mean and std of each channel over all pixels of uint8 (N, H, W, C) images."""
    height, width, channels = images_nhwc.shape[1:]
    counts = np.stack([np.bincount(images_nhwc[..., c].reshape(-1), minlength=256) for c in range(channels)]).astype(
        np.float64
    )
    values = np.arange(256) / 255
    total = counts.sum(axis=1)
    mean = counts @ values / total
    std = np.sqrt(np.maximum(counts @ values**2 / total - mean**2, 0))
    if (std == 0).any():
        raise DataError(
            "the training images are constant in a channel, so they cannot be normalized",
            found=f"std {std.tolist()}",
            allowed="images with content",
        )
    return Preprocessing(
        height, width, channels, tuple(float(m) for m in mean.round(6)), tuple(float(s) for s in std.round(6))
    )


def require_images(images_nhwc: UInt8, preprocessing: Preprocessing, who: str) -> None:
    """Refuses images that a model does not take, in words.

    Raises:
        DataError: dtype, rank, size or channels differ from (N, H, W, C) uint8 of the model.
    """
    wanted = preprocessing.shape
    if images_nhwc.dtype == np.uint8 and images_nhwc.ndim == 4 and images_nhwc.shape[1:] == wanted:
        return
    fix = None
    if images_nhwc.ndim == 4 and images_nhwc.shape[3] == 1 and wanted[2] == 3:
        fix = "convert grayscale images to RGB: numpy.repeat(images, 3, axis=3)"
    elif images_nhwc.ndim == 4 and images_nhwc.shape[1:3] != wanted[:2]:
        fix = f"resize the images to {wanted[0]}x{wanted[1]} first"
    if images_nhwc.ndim == 4 and images_nhwc.shape[1:] == (wanted[2], *wanted[:2]):
        fix = "channels come last: images.transpose(0, 2, 3, 1)"
    elif images_nhwc.dtype != np.uint8 and fix is None:
        fix = "give the pixels as they are, 0 to 255 as uint8: the model normalizes them itself"
    raise DataError(
        f"{who} does not take these images",
        found=f"{images_nhwc.dtype} {images_nhwc.shape}",
        allowed=f"uint8 (N, {wanted[0]}, {wanted[1]}, {wanted[2]})",
        fix=fix,
    )
