"""Claims about arrays in files: whatever a header says, nothing is allocated before it is known to fit."""

from __future__ import annotations

import io
import resource
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.data.npz import dataset_from_npz
from toolkit.errors import DataError, ToolkitError
from toolkit.storage.files import Content
from toolkit.storage.npz import arrays_of_npz

MOST = 1 << 20


def npz(**members: bytes) -> bytes:
    """A zip of .npy files as they are given."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return stream.getvalue()


def header(shape: str, dtype: str = "|u1", version: bytes = b"\x01\x00") -> bytes:
    """The beginning of a .npy file that says what it is told to say."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text


def zeros(size: int) -> bytes:
    """A .npy file of so many zeros, a thousandth of that when packed."""
    return header(f"({size},)") + bytes(size)


HOSTILE: dict[str, Callable[[], bytes]] = {
    "more than it says": lambda: npz(a=header("(5,)") + bytes(6)),
    "8 EiB in 100 bytes": lambda: npz(a=header("(9223372036854775807,)")),
    "more than 64 bits": lambda: npz(a=header("(4611686018427387904, 4611686018427387904)")),
    "a negative shape": lambda: npz(a=header("(-1,)") + b"x"),
    "zeros": lambda: npz(a=zeros(MOST + 1)),
    "zeros in parts": lambda: npz(**{f"a{n}": zeros(MOST // 8) for n in range(9)}),
    "objects": lambda: npz(a=header("(1,)", "|O") + b"\x80\x04N."),
    "a later version": lambda: npz(a=header("(1,)", version=b"\x09\x00") + b"x"),
    "code in the header": lambda: npz(a=header("__import__('os').abort()")),
    "no array": lambda: npz(a=b"hello"),
    "no zip": lambda: b"PK\x03\x04" + bytes(100),
    "empty": lambda: b"",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_does_not_fit_is_refused_before_it_is_allocated(kind: str) -> None:
    data = HOSTILE[kind]()
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(DataError, match="cannot be read"):
        arrays_of_npz(Content(Path("golden.npz"), data), MOST, DataError, "again")
    assert time.monotonic() - started < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10


def test_what_fits_is_read_to_the_last_bit() -> None:
    stream = io.BytesIO()
    wanted: dict[str, Any] = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.array(["x", "yy"]),
        "c": np.array(3),
    }
    np.savez(stream, **wanted)
    found = arrays_of_npz(Content(Path("f.npz"), stream.getvalue()), MOST, DataError, "again")
    assert found.keys() == wanted.keys()
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


def _packed_zeros(before: bytes, size: int) -> bytes:
    """Deflated bytes and as many zeros, of which a block is deflated once: they take seconds otherwise."""
    packing = zlib.compressobj(wbits=-15)
    first = packing.compress(before) + packing.flush(zlib.Z_FULL_FLUSH)
    block = packing.compress(bytes(1 << 24)) + packing.flush(zlib.Z_FULL_FLUSH)
    return first + block * (size >> 24) + packing.flush()


def test_a_users_set_of_zeros_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    size = 3 << 30
    start = header(f"({size}, 1, 1)")
    with zipfile.ZipFile(tmp_path / "images.npz", "w") as archive:
        archive.writestr("images.npy", _packed_zeros(start, size))
        told = archive.getinfo("images.npy")
        told.compress_type, told.file_size = zipfile.ZIP_DEFLATED, len(start) + size
        archive.writestr("labels.npy", zeros(8))
    with zipfile.ZipFile(tmp_path / "images.npz") as archive, archive.open("images.npy") as stream:
        assert stream.read(1 << 20) == start + bytes((1 << 20) - len(start))
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(ToolkitError) as caught:
        dataset_from_npz(tmp_path / "images.npz")
    assert "bytes" in str(caught.value.found)
    assert time.monotonic() - started < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10
