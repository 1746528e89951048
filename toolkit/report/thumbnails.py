"""Small pictures as data: URLs: PNG (ISO/IEC 15948) written with zlib alone, so that a device without Pillow can."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np

from toolkit.contracts import UInt8

LARGEST = 96  # pixels of a side; larger images are thinned, a flip is seen at that size


def png_of_image(image_hwc: UInt8) -> bytes:
    """A PNG of uint8 (H, W, C), gray for C 1 and RGB for C 3."""
    height, width, channels = image_hwc.shape
    rows = np.ascontiguousarray(image_hwc).reshape(height, width * channels)
    filtered = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1)  # filter type 0 before each row
    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2}[channels], 0, 0, 0)
    data = zlib.compress(filtered.tobytes(), 9)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def url_of_image(image_hwc: UInt8) -> str:
    """A `data:` URL of an image uint8 (H, W, C), at most `LARGEST` pixels a side."""
    step = max(1, -(-max(image_hwc.shape[:2]) // LARGEST))
    return "data:image/png;base64," + base64.b64encode(png_of_image(image_hwc[::step, ::step])).decode()
