"""One image file to uint8 pixels. What has no right reading as 8-bit gray or RGB is refused, never guessed."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from toolkit.contracts import UInt8
from toolkit.errors import DataError, ToolkitError
from toolkit.lazy import needs
from toolkit.storage.files import open_regular, require_size
from toolkit.storage.limits import IMAGE_BYTES, PIXELS

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})
OTHER_IMAGES = frozenset({".gif", ".tif", ".tiff", ".jp2", ".avif", ".heic", ".heif", ".ppm", ".pgm", ".tga", ".jxl"})
GRAY = frozenset({"1", "L", "LA", "La"})


class Unreadable(Exception):
    """A damaged file: the folder reader counts these before it speaks."""


def read_image(path: Path, convert: bool = False) -> UInt8:
    """The pixels of one PNG, JPEG, BMP or WebP file, turned upright by its EXIF orientation.

    Args:
        convert: CMYK becomes RGB, alpha is composited on black, 16-bit gray is divided by 257; otherwise such files
            are refused. An alpha channel that is opaque everywhere says nothing and is dropped in any case.

    Returns:
        uint8 (H, W, 1) for grayscale files, (H, W, 3) for all others.

    Raises:
        DataError: animated, or of a kind that is refused.
        Unreadable: missing, truncated, not what its name says, no regular file, or larger than the limits.
    """
    with needs("read image files"):
        from PIL import Image, ImageOps
    try:
        with open_regular(path) as stream:
            require_size(path, os.fstat(stream.fileno()).st_size, IMAGE_BYTES)
            data = stream.read()
        with warnings.catch_warnings():
            # Pillow warns of broken metadata, which we do not use; of a bomb we want to hear before it is unpacked
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _refuse_animated(image, path)
                if image.width * image.height > PIXELS:
                    raise Unreadable(f"{image.width:,} x {image.height:,} pixels, more than {PIXELS:,}")
                image.load()
                return _pixels(ImageOps.exif_transpose(image), _has_sixteen_bits(data), convert, path)
    except (DataError, Unreadable):
        raise
    except ToolkitError as error:  # a pipe, a device, or larger than any image
        raise Unreadable(f"{error.found}; allowed is {error.allowed}") from error
    except OSError as error:
        raise Unreadable(error.strerror or _short(error)) from error
    except Exception as error:  # decoders raise SyntaxError, struct.error, IndexError and more on damaged bytes
        raise Unreadable(_short(error)) from error


def _short(error: Exception) -> str:
    text = str(error)
    return "not a PNG, JPEG, BMP or WebP file" if text.startswith("cannot identify") else text or type(error).__name__


def _refuse_animated(image: Image.Image, path: Path) -> None:
    # a JPEG with a preview is a multi-picture file to Pillow; its first picture is the photograph
    if image.format in ("PNG", "WEBP") and getattr(image, "is_animated", False):
        raise DataError(
            f"{path} is animated",
            found=f"{getattr(image, 'n_frames', 'several')} frames",
            allowed="one picture a file",
            fix="save the frames as files of their own, or remove the file",
        )


def _has_sixteen_bits(data: bytes) -> bool:
    """Read off the PNG header, because Pillow opens 16-bit RGB as RGB and drops the low bytes."""
    return data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR" and data[24:25] == b"\x10"


def _pixels(image: Image.Image, sixteen_bits: bool, convert: bool, path: Path) -> UInt8:
    if sixteen_bits:
        return _from_sixteen_bits(image, convert, path)
    if "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        return _without_alpha(image, convert, path)
    if image.mode in GRAY:
        return np.asarray(image.convert("L"))[..., None]
    if image.mode == "CMYK" and not convert:
        raise _refusal(path, "a CMYK image", "add `convert=True` to convert it, or save it as RGB")
    if image.mode in ("RGB", "P", "CMYK"):
        return np.asarray(image.convert("RGB"))
    raise _refusal(path, f"an image of mode {image.mode}", "save it as 8-bit grayscale or RGB")


def _from_sixteen_bits(image: Image.Image, convert: bool, path: Path) -> UInt8:
    # modes I and I;16 hold all 16 bits of gray; color with 16 bits has lost the low bytes by now
    if not image.mode.startswith("I") or "transparency" in image.info:
        raise _refusal(path, "a 16-bit image with color or transparency", "save it with 8 bits a channel")
    if not convert:
        raise _refusal(path, "a 16-bit image", "add `convert=True` to scale it to 8 bits, or save it with 8 bits")
    # 65535 / 257 = 255: the whole range onto the whole range
    return np.round(np.asarray(image).astype(np.float64) / 257).astype(np.uint8)[..., None]


def _without_alpha(image: Image.Image, convert: bool, path: Path) -> UInt8:
    from PIL import Image

    rgba = image.convert("RGBA")
    if np.asarray(rgba)[..., 3].min() < 255:
        if not convert:
            raise _refusal(
                path, "an image with transparency", "add `convert=True` to put it on black, or save it without alpha"
            )
        rgba = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    return np.asarray(rgba)[..., : 1 if image.mode in GRAY else 3]


def _refusal(path: Path, found: str, fix: str) -> DataError:
    return DataError(f"{path} cannot be used as it is", found=found, allowed="8-bit grayscale or RGB", fix=fix)
