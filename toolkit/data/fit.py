"""Images and the shape that a model takes: refused in words, or resized and converted where that was asked for."""

from __future__ import annotations

import numpy as np

from toolkit.contracts import LabeledImages, UInt8
from toolkit.errors import DataError
from toolkit.lazy import needs

COLORS = {1: "grayscale", 3: "RGB"}
SQUASH, CROP, PAD = "squash", "crop", "pad"
RESIZES = (SQUASH, CROP, PAD)


def require_shape(shape: tuple[int, int, int]) -> None:
    """Refuses a shape that no image set can have.

    Raises:
        DataError: `shape` is not (H, W, C) with positive sizes and 1 or 3 channels.
    """
    if len(shape) != 3 or min(shape) < 1 or shape[2] not in COLORS:
        raise DataError(
            "images cannot have this shape", found=shape, allowed="(height, width, channels) with 1 or 3 channels"
        )


def require_resize(resize: str) -> str:
    """One of `RESIZES`.

    Raises:
        DataError: another word.
    """
    if resize not in RESIZES:
        raise DataError("`resize=` cannot be read", found=resize, allowed=", ".join(RESIZES))
    return resize


def is_out_of_proportion(pixels: UInt8, shape: tuple[int, int, int]) -> bool:
    """Whether an image (H, W, C) has other proportions than the shape: how it is resized then makes a difference."""
    return bool(pixels.shape[0] * shape[1] != pixels.shape[1] * shape[0])


def note_on_proportions(count: int, resize: str, shape: tuple[int, int, int]) -> tuple[str, ...]:
    """What is said where so many images changed their proportions, or lost their edges."""
    done = {
        SQUASH: "were squashed to it: `resize='crop'` keeps their middle, as many training scripts do",
        CROP: "were cropped: their middle is kept",
        PAD: "were padded with black",
    }
    size = f"{shape[0]}x{shape[1]}"
    return (f"{count:,} images have other proportions than {size} and {done[resize]}.",) if count else ()


def fitted(images: LabeledImages, shape: tuple[int, int, int], convert: bool, resize: str = SQUASH) -> LabeledImages:
    """The set in the shape (H, W, C), unchanged where it has it already.

    Raises:
        DataError: it has another shape and `convert` is False.
    """
    if images.images_nhwc.shape[1:] == shape:
        return images
    pixels = [fitted_image(image, shape, convert, images.source, resize) for image in images.images_nhwc]
    return LabeledImages(np.stack(pixels), images.labels, images.classes, images.source)


def fitted_image(pixels: UInt8, shape: tuple[int, int, int], convert: bool, name: str, resize: str = SQUASH) -> UInt8:
    """One image uint8 (H, W, C) in the wanted shape.

    Args:
        convert: gray to RGB by repetition, RGB to gray by ITU-R 601 luma, other sizes by a bilinear filter whose
            support grows with the reduction (antialiased).
        name: what an error calls the image.
        resize: "squash" changes the proportions; "crop" covers the shape and keeps the middle; "pad" fits in, with
            black beside it.

    Raises:
        DataError: the size or the channels differ and `convert` is False.
    """
    if pixels.shape == shape:
        return pixels
    if not convert:
        raise _refusal(pixels, shape, name)
    inside = _in_channels(pixels, shape[2])
    if resize == SQUASH or not is_out_of_proportion(pixels, shape):
        return _resized(inside, shape)
    return _placed(_resized(inside, _size_kept(inside, shape, resize)), shape)


def _size_kept(pixels: UInt8, shape: tuple[int, int, int], resize: str) -> tuple[int, int, int]:
    """The size in proportion that covers the shape, or that fits into it."""
    factors = shape[0] / pixels.shape[0], shape[1] / pixels.shape[1]
    factor = max(factors) if resize == CROP else min(factors)
    height, width = (max(1, round(factor * side)) for side in pixels.shape[:2])
    return height, width, shape[2]


def _placed(pixels: UInt8, shape: tuple[int, int, int]) -> UInt8:
    """The middle of an image that is larger, on the middle of a black one where it is smaller."""
    result = np.zeros(shape, np.uint8)
    pairs = list(zip(pixels.shape[:2], shape[:2], strict=True))
    taken = tuple(_middle(have, min(have, want)) for have, want in pairs)
    filled = tuple(_middle(want, min(have, want)) for have, want in pairs)
    result[filled] = pixels[taken]
    return result


def gray_as_rgb(pixels: UInt8) -> UInt8:
    """(H, W, 1) or (H, W, 3) to (H, W, 3), exactly."""
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def _middle(size: int, count: int) -> slice:
    return slice((size - count) // 2, (size - count) // 2 + count)


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
