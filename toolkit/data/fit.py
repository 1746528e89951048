"""Images and the shape that a model takes: refused in words, or resized and converted where that was asked for."""

from __future__ import annotations

import numpy as np

from toolkit.contracts import LabeledImages, UInt8
from toolkit.errors import DataError
from toolkit.lazy import needs

COLORS = {1: "grayscale", 3: "RGB"}


def require_shape(shape: tuple[int, int, int]) -> None:
    """Refuses a shape that no image set can have.

    Raises:
        DataError: `shape` is not (H, W, C) with positive sizes and 1 or 3 channels.
    """
    if len(shape) != 3 or min(shape) < 1 or shape[2] not in COLORS:
        raise DataError(
            "images cannot have this shape", found=shape, allowed="(height, width, channels) with 1 or 3 channels"
        )


def fitted(images: LabeledImages, shape: tuple[int, int, int], convert: bool) -> LabeledImages:
    """The set in the shape (H, W, C), unchanged where it has it already.

    Raises:
        DataError: it has another shape and `convert` is False.
    """
    if images.images_nhwc.shape[1:] == shape:
        return images
    pixels = [fit(image, shape, convert, images.source) for image in images.images_nhwc]
    return LabeledImages(np.stack(pixels), images.labels, images.classes, images.source)


def fit(pixels: UInt8, shape: tuple[int, int, int], convert: bool, name: str) -> UInt8:
    """One image uint8 (H, W, C) in the wanted shape.

    Args:
        convert: gray to RGB by repetition, RGB to gray by ITU-R 601 luma, other sizes by a bilinear filter whose
            support grows with the reduction (antialiased).
        name: what an error calls the image.

    Raises:
        DataError: the size or the channels differ and `convert` is False.
    """
    if pixels.shape == shape:
        return pixels
    if not convert:
        raise _refusal(pixels, shape, name)
    return _resized(_in_channels(pixels, shape[2]), shape)


def gray_as_rgb(pixels: UInt8) -> UInt8:
    """(H, W, 1) or (H, W, 3) to (H, W, 3), exactly."""
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def _refusal(pixels: UInt8, shape: tuple[int, int, int], name: str) -> DataError:
    fix = f"add `convert=True`: it brings every image to {shape[0]}x{shape[1]} {COLORS[shape[2]]}"
    if pixels.shape[:2] != shape[:2]:
        return DataError(
            f"{name} has another size than the model takes",
            found=f"{pixels.shape[0]}x{pixels.shape[1]} (height x width)",
            allowed=f"{shape[0]}x{shape[1]}",
            fix=fix,
        )
    return DataError(
        f"{name} is {COLORS[pixels.shape[2]]} and the model takes {COLORS[shape[2]]}",
        found=f"{pixels.shape[2]} channel(s)",
        allowed=f"{shape[2]}",
        fix=fix,
    )


def _in_channels(pixels: UInt8, channels: int) -> UInt8:
    if channels == 3:
        return gray_as_rgb(pixels)
    if pixels.shape[2] == 1:
        return pixels
    with needs("convert images"):
        from PIL import Image
    return np.asarray(Image.fromarray(pixels).convert("L"))[..., None]


def _resized(pixels: UInt8, shape: tuple[int, int, int]) -> UInt8:
    if pixels.shape == shape:
        return pixels
    with needs("resize images"):
        from PIL import Image
    image = Image.fromarray(pixels[..., 0] if shape[2] == 1 else pixels)
    return np.asarray(image.resize((shape[1], shape[0]), Image.Resampling.BILINEAR)).reshape(shape)
