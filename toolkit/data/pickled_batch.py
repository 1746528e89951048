"""Reads the pickles of CIFAR-10's Python version without running anything that a pickle names.

The official files were pickled by Python 2 at protocol 2. They name three things of numpy's; each is answered by a
stand-in from this file that only keeps bytes. Every other name is refused.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np

from toolkit.contracts import UInt8
from toolkit.errors import DataError


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


def records_from_pickle(data: bytes, name: str) -> bytes:
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
