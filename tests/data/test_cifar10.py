"""CIFAR-10: both official versions as small stand-ins, hostile pickles, downloads; the real set where it lies."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.data import cifar10, dataset_from_spec, summary
from toolkit.data.cifar10 import rows_from_pickle
from toolkit.errors import DataError

REAL = Path(os.environ.get("TOOLKIT_DATA", "no-data")) / cifar10.BINARY


def python2_pickle(data: bytes) -> bytes:
    """A batch as Python 2 pickled it at protocol 2, which no Python 3 writes: byte strings as such."""

    def text(value: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(value)) + value

    rows = np.frombuffer(data, np.uint8).reshape(-1, cifar10.ROW_BYTES)
    dtype = (
        b"cnumpy\ndtype\n"
        + text(b"u1")
        + b"K\x00K\x01\x87R(K\x03"
        + text(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    shape = b"M" + struct.pack("<H", len(rows)) + b"M\x00\x0c\x86"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R(K\x01" + shape
    array += dtype + b"\x89" + text(rows[:, 1:].tobytes()) + b"tb"
    labels = b"](" + b"".join(b"K" + bytes([label]) for label in rows[:, 0]) + b"e"
    items = text(b"batch_label") + text(b"batch 1 of 5") + text(b"labels") + labels + text(b"data") + array
    return b"\x80\x02}(" + items + b"u."


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Six batches of 20 random rows, with their hashes put in place of the published ones."""
    rng = np.random.default_rng(0)
    made = {}
    for name in cifar10.SHA256:
        rows = rng.integers(0, 256, (20, cifar10.ROW_BYTES), np.uint8)
        rows[:, 0] = np.arange(20) % 10
        made[name] = rows.tobytes()
    monkeypatch.setattr(cifar10, "SHA256", {name: hashlib.sha256(data).hexdigest() for name, data in made.items()})
    return made


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def pickled(batches: dict[str, bytes]) -> dict[str, bytes]:
    return {name.removesuffix(".bin"): python2_pickle(data) for name, data in batches.items()}


@pytest.mark.skipif(not cifar10.is_folder(REAL), reason="no CIFAR-10 at $TOOLKIT_DATA")
def test_the_installed_set_is_the_published_one() -> None:
    facts = summary(dataset_from_spec("cifar10"))
    assert set(facts["train"]["per_class"].values()) == {5000}
    assert set(facts["test"]["per_class"].values()) == {1000}
    assert facts["mean"] == pytest.approx([0.4914, 0.4822, 0.4465], abs=1e-4)


def test_both_versions_give_the_same_images(tmp_path: Path, batches: dict[str, bytes]) -> None:
    binary = dataset_from_spec(str(write(tmp_path / cifar10.BINARY, batches)))
    python = dataset_from_spec(str(write(tmp_path / cifar10.PYTHON, pickled(batches))))
    assert (binary.train.sha256, binary.test.sha256) == (python.train.sha256, python.test.sha256)
    assert binary.train.images_nhwc.shape == (100, 32, 32, 3)
    row = np.frombuffer(batches["data_batch_1.bin"], np.uint8)[: cifar10.ROW_BYTES]
    red_green_blue = row[[1 + 33, 1 + 1024 + 33, 1 + 2048 + 33]]
    np.testing.assert_array_equal(binary.train.images_nhwc[0, 1, 1], red_green_blue)


def test_the_stand_in_pickle_is_what_pickle_itself_reads(batches: dict[str, bytes]) -> None:
    rows = batches["test_batch.bin"]
    pytest.importorskip("numpy._core")
    batch = pickle.loads(python2_pickle(rows), encoding="bytes")
    again = np.concatenate([np.array(batch[b"labels"], np.uint8)[:, None], batch[b"data"]], axis=1)
    assert again.tobytes() == rows


@pytest.mark.parametrize("home", ["TOOLKIT_DATA", "cache", "./data"])
def test_the_set_is_found_in_each_of_its_places(
    home: str, bare_machine: Path, batches: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = {"TOOLKIT_DATA": tmp_path / "mine", "cache": bare_machine, "./data": Path("data").absolute()}[home]
    monkeypatch.setenv("TOOLKIT_DATA", str(tmp_path / "mine"))
    write(folder / cifar10.BINARY, batches)
    assert len(dataset_from_spec("cifar10").test) == 20


def test_a_missing_set_says_how_to_get_it(bare_machine: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)not installed.*fetch the set cifar10.*unpack .*cifar-10-binary.tar.gz"):
        dataset_from_spec("cifar10")


def test_a_batch_that_is_missing_short_or_changed_is_named(tmp_path: Path, batches: dict[str, bytes]) -> None:
    folder = write(tmp_path / cifar10.BINARY, batches)
    (folder / "data_batch_3.bin").write_bytes(batches["data_batch_3.bin"][:-1])
    with pytest.raises(DataError, match=r"data_batch_3.bin is damaged"):
        dataset_from_spec(str(folder))
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(DataError, match=r"lacks data_batch_3.bin"):
        dataset_from_spec(str(folder))


def test_a_pickle_with_one_other_pixel_is_refused(tmp_path: Path, batches: dict[str, bytes]) -> None:
    changed = dict(batches)
    changed["data_batch_2.bin"] = (
        batches["data_batch_2.bin"][:-1] + b"\x00\x01"[batches["data_batch_2.bin"][-1] == 0 :][:1]
    )
    with pytest.raises(DataError, match=r"data_batch_2 is damaged or is not CIFAR-10's"):
        dataset_from_spec(str(write(tmp_path / cifar10.PYTHON, pickled(changed))))


class Hostile:
    """What a pickle can do when it is loaded blindly."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_hostile_pickle_runs_nothing(tmp_path: Path, batches: dict[str, bytes], protocol: int) -> None:
    files = pickled(batches)
    files["data_batch_1"] = pickle.dumps({"data": Hostile(tmp_path / "pwned")}, protocol)
    with pytest.raises(DataError, match=r"(?s)data_batch_1 is not a batch.*posix.mkdir, which is refused"):
        dataset_from_spec(str(write(tmp_path / cifar10.PYTHON, files)))
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"junk",
        pickle.dumps([1, 2]),
        pickle.dumps({b"data": b"bytes", b"labels": [1]}),
        pickle.dumps({b"labels": [1]}),
        b"\x80\x02cbuiltins\neval\n(T\x04\x00\x00\x001 + 1tR.",
        b"\x80\x02cnumpy\nndarray\n(K\x01tR.",
    ],
)
def test_whatever_is_no_batch_is_one_error(data: bytes) -> None:
    with pytest.raises(DataError, match="the file is not a batch of CIFAR-10's Python version"):
        rows_from_pickle(data, "the file")


def archive(batches: dict[str, bytes], extra: str = "cifar-10-batches-bin/../../evil") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in {extra: b"evil", **{f"{cifar10.BINARY}/{n}": d for n, d in batches.items()}}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def test_a_download_is_verified_and_only_its_batches_are_kept(
    batches: dict[str, bytes], bare_machine: Path, served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (served[0] / "cifar.tar.gz").write_bytes(archive(batches))
    monkeypatch.setattr(cifar10, "URL", f"{served[1]}/cifar.tar.gz")
    assert len(dataset_from_spec("cifar10", download=True).train) == 100
    assert sorted(p.name for p in bare_machine.rglob("*") if p.is_file()) == sorted(batches)
    assert not list(bare_machine.parent.rglob("evil"))


@pytest.mark.parametrize("fault", ["tampered", "lacks a batch", "broken gzip", "not gzip", "cut short"])
def test_a_wrong_archive_is_refused_and_leaves_nothing(
    fault: str, batches: dict[str, bytes], bare_machine: Path, served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = archive(batches)
    data = {
        "tampered": archive({**batches, "test_batch.bin": b"\0" * 3073}),
        "lacks a batch": archive({name: batches[name] for name in list(batches)[1:]}),
        "broken gzip": good[: len(good) // 2] + b"\0\0\0\0" + good[len(good) // 2 + 4 :],
        "not gzip": b"<html>not found</html>",
        "cut short": good[:5000],
    }[fault]
    (served[0] / "cifar.tar.gz").write_bytes(data)
    monkeypatch.setattr(cifar10, "URL", f"{served[1]}/cifar.tar.gz")
    with pytest.raises(DataError, match=r"is not the published archive|is damaged or is not CIFAR-10's"):
        dataset_from_spec("cifar10", download=True)
    assert list(bare_machine.iterdir()) == []
