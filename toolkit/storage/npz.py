"""Arrays of an .npz file, none of them allocated before all are known to fit; nothing is ever unpickled."""

from __future__ import annotations

import io
import math
import zipfile
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import ToolkitError
from toolkit.storage.files import Content
from toolkit.storage.limits import IMAGES_BYTES, IMAGES_PACKED

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def arrays_of_npz(content: Content, most: int, error: type[ToolkitError], fix: str) -> dict[str, NDArray[Any]]:
    """Every array by name.

    Args:
        most: bytes of all of them together.

    Raises:
        ToolkitError: as `error`, it is no whole .npz file of plain arrays, or holds more.
    """
    stream = io.BytesIO(content.data)
    try:
        require_arrays_fit(stream, most)
        with np.load(stream, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files if isinstance(arrays[name], np.ndarray)}
    except Exception as fault:  # zipfile, zlib and numpy's header reader each have their own kinds
        raise error(f"{content.path} cannot be read", found=fault, fix=fix) from fault


def require_arrays_fit(stream: IO[bytes], most: int) -> None:
    """Refuses arrays that are larger than they may be, or than the file says they are; leaves `stream` at its start.

    numpy allocates what an array's header asks for, before it reads a byte of the array.

    Raises:
        ValueError: says which array, and its size. zipfile.BadZipFile and others: it is no zip.
    """
    total = 0
    with zipfile.ZipFile(stream) as archive:
        for entry in archive.infolist():
            if not entry.filename.endswith(".npy"):
                continue
            with archive.open(entry) as member:
                version = np.lib.format.read_magic(member)
                if version not in HEADERS:
                    raise ValueError(f"{entry.filename} has version {version} of numpy's format")
                shape, _, dtype = HEADERS[version](member)
                size, there = math.prod(shape) * dtype.itemsize, entry.file_size - member.tell()
            if not dtype.hasobject and (size != there or any(length < 0 for length in shape)):
                raise ValueError(f"{entry.filename} says that it is {dtype} {shape}, and holds {there:,} bytes")
            total += entry.file_size
            if total > most:
                raise ValueError(f"its arrays take {total:,} bytes and more; {most:,} are allowed")
    stream.seek(0)


def most_of_images(size: int) -> int:
    """Bytes that the arrays of a user's set may take, where its file has `size` bytes.

    Photographs do not shrink to a fiftieth; what does is no set of images, however large it says it is.
    """
    return max(IMAGES_BYTES, IMAGES_PACKED * size)
