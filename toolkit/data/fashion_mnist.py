"""Fashion-MNIST (Xiao, Rasul, Vollgraf 2017; MIT): 60,000 + 10,000 grayscale images, padded from 28x28 to 32x32.

The files are gzipped IDX arrays, as github.com/zalandoresearch/fashion-mnist publishes them. The hashes are of the
unpacked arrays: Debian's package and the original download differ in their gzip headers and in nothing else.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from pathlib import Path

import numpy as np

from toolkit.contracts import Dataset, Int64, LabeledImages, UInt8
from toolkit.data.download import Progress, fetch
from toolkit.errors import DataError
from toolkit.storage.cache import cache_folder
from toolkit.storage.files import os_errors
from toolkit.storage.folders import folder_replaced
from toolkit.workspace import configured_home, listed

NAME = "fashion-mnist"
BASE_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"  # https has no certificate for this host
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
SHA256_UNPACKED = {
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
LARGEST_PACKED = 40_000_000  # the largest file has 26,421,880 bytes, unpacked 47,040,016
LARGEST_UNPACKED = 50_000_000
PADDING = 2


def load(download: bool = False, on_progress: Progress | None = None) -> Dataset:
    """The set from $TOOLKIT_DATA/fashion-mnist, the cache or Debian's folder, in this order.

    Returns:
        images uint8 (60000, 32, 32, 1) and (10000, 32, 32, 1), zero border of 2 pixels; labels int64.

    Raises:
        DataError: the set is nowhere, or a file is not the published one.
    """
    cache = cache_folder() / NAME
    places = [*(home / NAME for home in configured_home()), cache, DEBIAN]
    for folder in places:
        if is_folder(folder):
            return from_folder(folder)
    if not download:
        raise DataError(
            "Fashion-MNIST is not installed",
            found=f"no {next(iter(SHA256_UNPACKED))} in {listed(places)}",
            fix=f"apt install dataset-fashion-mnist, or fetch the set {NAME} (30 MB)",
        )
    return from_folder(_downloaded(cache, on_progress))


def is_folder(folder: Path) -> bool:
    """Whether a folder holds all four files, whatever is in them."""
    return all((folder / name).is_file() for name in SHA256_UNPACKED)


def from_folder(folder: Path) -> Dataset:
    """Reads the four files of a folder, each verified.

    Raises:
        DataError: a file is damaged or is not the published one.
    """
    return Dataset(NAME, _part(folder, "train"), _part(folder, "t10k"))


def _part(folder: Path, prefix: str) -> LabeledImages:
    images = _images(unpacked(folder / f"{prefix}-images-idx3-ubyte.gz"))
    labels = _labels(unpacked(folder / f"{prefix}-labels-idx1-ubyte.gz"))
    return LabeledImages(images, labels, CLASSES, f"{NAME}/{'train' if prefix == 'train' else 'test'}")


def unpacked(path: Path) -> bytes:
    """The verified content of one gzip file.

    Raises:
        DataError: it is damaged, or its content has another sha256 than the published one.
    """
    with os_errors(path, "read"):
        packed = path.read_bytes()
    try:
        with gzip.open(io.BytesIO(packed)) as stream:
            content = stream.read(LARGEST_UNPACKED)
    except (OSError, EOFError, zlib.error) as error:
        raise _not_the_published_one(path, f"it cannot be unpacked: {error}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256_UNPACKED[path.name]:
        raise _not_the_published_one(path, f"sha256 {digest} after unpacking", SHA256_UNPACKED[path.name])
    return content


def _not_the_published_one(path: Path, found: str, allowed: str | None = None) -> DataError:
    return DataError(
        f"{path} is damaged or is not Fashion-MNIST's",
        found=found,
        allowed=f"sha256 {allowed}" if allowed else None,
        fix=f"delete {path.parent}, then fetch the set {NAME}, or reinstall dataset-fashion-mnist",
    )


def _images(content: bytes) -> UInt8:
    """IDX of rank 3 to (N, 32, 32, 1); the header is four big-endian int32: magic, N, rows, columns."""
    _, count, rows, columns = np.frombuffer(content, ">i4", 4).tolist()
    images = np.frombuffer(content, np.uint8, offset=16).reshape(count, rows, columns, 1)
    return np.pad(images, ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)))


def _labels(content: bytes) -> Int64:
    return np.frombuffer(content, np.uint8, offset=8).astype(np.int64)


def _downloaded(cache: Path, on_progress: Progress | None) -> Path:
    """Fetches the four files; the folder gets its name when every one of them is verified."""
    with folder_replaced(cache, owned_by=next(iter(SHA256_UNPACKED))) as fresh:
        for name in SHA256_UNPACKED:
            fetch(f"{BASE_URL}/{name}", fresh / name, most_bytes=LARGEST_PACKED, on_progress=on_progress)
            _verify_download(fresh / name)
    return cache


def _verify_download(path: Path) -> None:
    try:
        unpacked(path)
    except DataError as error:
        raise DataError(
            f"{BASE_URL}/{path.name} is not the published file, so it was thrown away",
            found=error.found,
            allowed=error.allowed,
            fix="try later, or apt install dataset-fashion-mnist",
        ) from error
