"""CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 RGB images of 32x32, from its binary or its Python version.

Both versions are held against the sha256 of the binary files: a Python batch is rewritten as binary rows first, so
that its pixels and labels are the official ones whatever the pickle looks like. www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.contracts import Dataset, LabeledImages, UInt8
from toolkit.data.download import Progress, fetch
from toolkit.errors import DataError
from toolkit.storage.cache import cache_folder
from toolkit.storage.files import os_errors
from toolkit.storage.folders import folder_replaced
from toolkit.workspace import configured_home, listed


class _DType:
    """In place of numpy.dtype: keeps the type's code."""

    __slots__ = ("code",)

    def __init__(self, code: Any, *_: Any) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        """Byte order and alignment mean nothing for single bytes."""


class _NDArray:
    """In place of numpy.ndarray: keeps shape, type and bytes, as ndarray.__reduce__ gives them."""

    __slots__ = ("dtype", "fortran", "raw", "shape")

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.dtype, self.fortran, self.raw = state

    def pixels(self) -> UInt8:
        """The array, if it is one of bytes; a ValueError if not."""
        if not isinstance(self.dtype, _DType) or self.dtype.code not in (b"u1", "u1"):
            raise ValueError("its array is not uint8")
        flat = np.frombuffer(self.raw, np.uint8)
        return flat.reshape(self.shape, order="F" if self.fortran else "C")


def _reconstruct(*_: Any) -> _NDArray:
    """In place of numpy's function of this name, which makes an empty array for the state to fill."""
    return _NDArray()


STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _NDArray,
    ("numpy", "dtype"): _DType,
}


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return STAND_INS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is refused") from None


def rows_from_pickle(data: bytes, name: str) -> bytes:
    """One batch in the form of the binary version: a label byte and 3072 pixel bytes an image.

    Args:
        data: the bytes of a file such as data_batch_1.
        name: what an error calls it.

    Raises:
        DataError: it is no such batch, or it names anything but the arrays of one. Nothing of it has run.
    """
    try:
        batch = _Restricted(io.BytesIO(data), encoding="bytes").load()
        pixels, labels = batch[b"data"].pixels(), np.array(batch[b"labels"], np.uint8)
        return np.concatenate([labels[:, None], pixels], axis=1).tobytes()
    except Exception as error:  # hostile or damaged bytes can raise anything
        reason = f"no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise DataError(
            f"{name} is not a batch of CIFAR-10's Python version",
            found=reason,
            allowed="a dict of `data` (uint8) and `labels`",
            fix="unpack cifar-10-python.tar.gz again, or use the binary version",
        ) from error


NAME = "cifar10"
URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
BINARY, PYTHON = "cifar-10-batches-bin", "cifar-10-batches-py"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SHA256 = {
    "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}
ROW_BYTES = 1 + 3 * 32 * 32
LARGEST_FILE = 40_000_000  # a binary batch has 30,730,000 bytes, a pickled one 31 MB
LARGEST_ARCHIVE = 200_000_000  # the official one has 170 MB


def load(download: bool = False, on_progress: Progress | None = None) -> Dataset:
    """The set from $TOOLKIT_DATA, the cache or ./data, in this order; in each the binary version first.

    Returns:
        images uint8 (50000, 32, 32, 3) and (10000, 32, 32, 3); labels int64.

    Raises:
        DataError: the set is nowhere, or a file is not the published one.
    """
    homes = [*configured_home(), cache_folder(), Path("data")]
    for folder in (home / version for home in homes for version in (BINARY, PYTHON)):
        if is_folder(folder):
            return from_folder(folder)
    if not download:
        raise DataError(
            "CIFAR-10 is not installed",
            found=f"neither {BINARY} nor {PYTHON} in {listed(homes)}",
            fix=f"fetch the set {NAME} (170 MB), or unpack {URL} into ./data",
        )
    return from_folder(_downloaded(cache_folder() / BINARY, on_progress))


def is_folder(folder: Path) -> bool:
    """Whether a folder is named or filled like one version of the set."""
    if folder.name in (BINARY, PYTHON):
        return folder.is_dir()
    pickled = ("data_batch_1", "test_batch")
    return (folder / "test_batch.bin").is_file() or all((folder / name).is_file() for name in pickled)


def from_folder(folder: Path) -> Dataset:
    """Reads the six batches of a folder of either version, each verified.

    Raises:
        DataError: a batch is missing, damaged, or not the published one.
    """
    names = list(SHA256)
    return Dataset(NAME, _part(folder, names[:-1], "train"), _part(folder, names[-1:], "test"))


def _part(folder: Path, names: list[str], part: str) -> LabeledImages:
    rows = np.frombuffer(b"".join(_rows(folder, name) for name in names), np.uint8).reshape(-1, ROW_BYTES)
    planes = rows[:, 1:].reshape(-1, 3, 32, 32)
    images = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
    return LabeledImages(images, rows[:, 0].astype(np.int64), CLASSES, f"{NAME}/{part}")


def _rows(folder: Path, name: str) -> bytes:
    """The verified rows of one batch, from either version."""
    path, pickled = folder / name, folder / name.removesuffix(".bin")
    if path.is_file():
        rows = _bytes_of(path)
    elif pickled.is_file():
        path, rows = pickled, rows_from_pickle(_bytes_of(pickled), str(pickled))
    else:
        raise DataError(
            f"{folder} lacks {name}", found="an incomplete set", allowed=", ".join(SHA256), fix="unpack it again"
        )
    _verify(rows, name, str(path))
    return rows


def _bytes_of(path: Path) -> bytes:
    with os_errors(path, "read"), path.open("rb") as stream:
        return stream.read(LARGEST_FILE)


def _verify(rows: bytes, name: str, where: str) -> None:
    digest = hashlib.sha256(rows).hexdigest()
    if digest != SHA256[name]:
        raise DataError(
            f"{where} is damaged or is not CIFAR-10's",
            found=f"sha256 {digest} of {len(rows)} bytes",
            allowed=f"sha256 {SHA256[name]}",
            fix=f"unpack it again from {URL}, or remove the folder, then fetch the set {NAME}",
        )


def _downloaded(target: Path, on_progress: Progress | None) -> Path:
    """Fetches the archive and keeps its six batches; the folder gets its name when all are verified."""
    with folder_replaced(target, owned_by="test_batch.bin") as fresh:
        archive = fresh / "archive.tar.gz"
        fetch(URL, archive, most_bytes=LARGEST_ARCHIVE, on_progress=on_progress)
        _extract(archive, fresh)
        archive.unlink()
    return target


def _extract(archive: Path, folder: Path) -> None:
    """Takes the six expected members out by name, into names of our own."""
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for name in SHA256:
                member = tar.extractfile(f"{BINARY}/{name}")
                rows = member.read(LARGEST_FILE) if member else b""
                _verify(rows, name, f"{URL}: {name}")
                (folder / name).write_bytes(rows)
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, KeyError, zlib.error) as error:
        raise DataError(
            f"{URL} is not the published archive, so it was thrown away", found=error, fix="try later"
        ) from error
