"""Images that lie in a GPU's memory already: torch, cupy, numba, pycuda; read where they are, never through the host.

`__cuda_array_interface__` (numba's documentation, version 3) says which stream to wait for; older versions do not, so
an object that also speaks DLPack (dmlc/dlpack, `__dlpack__` of the array API standard) is asked through that.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace
from typing import Any

from toolkit.errors import DataError

ON_A_GPU = (2, 13)  # kDLCUDA and kDLCUDAManaged of dlpack.h
_LEGACY_STREAM = 1  # the handle of the legacy default stream, in both protocols


@dataclass(frozen=True)
class DeviceImages:
    """uint8 images in C order in a GPU's memory.

    Attributes:
        address: of the first pixel.
        shape: (N, H, W, C).
        stream: handle of the stream whose work must be done first; None where there is none.
        ordinal: number of the GPU, where the owner says it.
        owner: what keeps the memory alive.
    """

    address: int
    shape: tuple[int, ...]
    stream: int | None
    ordinal: int | None
    owner: Any

    def part(self, start: int, stop: int) -> DeviceImages:
        """Images start to stop, in place."""
        size_bytes = 1
        for length in self.shape[1:]:
            size_bytes *= length
        return replace(self, address=self.address + start * size_bytes, shape=(stop - start, *self.shape[1:]))


def device_images(images: Any) -> DeviceImages | None:
    """Where the images lie; None where they do not lie on a GPU.

    Raises:
        DataError: they do, and are not uint8 in C order without gaps.
    """
    interface = getattr(images, "__cuda_array_interface__", None)
    device = getattr(images, "__dlpack_device__", None)
    by_dlpack = device is not None and int(device()[0]) in ON_A_GPU
    if interface is not None and (interface.get("version", 0) >= 3 or not by_dlpack):
        return _from_interface(images, interface)
    return _from_dlpack(images) if by_dlpack else None


def _from_interface(images: Any, interface: dict[str, Any]) -> DeviceImages:
    shape = tuple(int(length) for length in interface["shape"])
    if interface["typestr"] not in ("|u1", "<u1", ">u1", "=u1") or interface.get("mask") is not None:
        raise _refused(images, f"type {interface['typestr']}")
    _require_c_order(images, shape, interface.get("strides"))
    stream = interface.get("stream") if interface.get("version", 0) >= 3 else _LEGACY_STREAM
    return DeviceImages(int(interface["data"][0] or 0), shape, stream, None, images)


class _Tensor(ctypes.Structure):
    """DLTensor of dlpack.h, with which a DLManagedTensor begins."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),  # in elements; null for C order
        ("byte_offset", ctypes.c_uint64),
    )


def _from_dlpack(images: Any) -> DeviceImages:
    """The capsule keeps its name, so whoever made it frees the tensor once nobody holds it any more."""
    capsule = images.__dlpack__(stream=_LEGACY_STREAM)
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    tensor = _Tensor.from_address(pointer(capsule, b"dltensor"))
    if (tensor.code, tensor.bits, tensor.lanes) != (1, 8, 1):
        raise _refused(images, f"DLPack type code {tensor.code}, {tensor.bits} bits")
    shape = tuple(tensor.shape[axis] for axis in range(tensor.ndim))
    _require_c_order(images, shape, tuple(tensor.strides[: tensor.ndim]) if tensor.strides else None)
    address = (tensor.data or 0) + tensor.byte_offset
    return DeviceImages(address, shape, _LEGACY_STREAM, int(tensor.device_id), (images, capsule))


def _require_c_order(images: Any, shape: tuple[int, ...], strides: tuple[int, ...] | None) -> None:
    """Strides in bytes, which for uint8 are strides in elements; those of an axis of length 1 mean nothing."""
    if strides is None or 0 in shape:
        return
    expected = 1
    for length, stride in zip(reversed(shape), reversed(tuple(strides)), strict=True):
        if length != 1 and stride != expected:
            raise _refused(images, f"strides {tuple(strides)} for shape {shape}", "make it contiguous first")
        expected *= length


def _refused(images: Any, found: str, fix: str | None = None) -> DataError:
    return DataError(
        "these images on the GPU cannot be read as they lie",
        found=f"{type(images).__module__}.{type(images).__qualname__}, {found}",
        allowed="uint8 (N, H, W, C) in C order without gaps",
        fix=fix or "give the pixels as they are, 0 to 255 as uint8: the model normalizes them itself",
    )
