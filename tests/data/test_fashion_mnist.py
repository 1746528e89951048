"""Fashion-MNIST: the real files where they are installed, small stand-ins with their own hashes elsewhere."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from toolkit.data import dataset_from_spec, fashion_mnist, summary
from toolkit.errors import DataError


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four IDX files of a few images in a folder, with their hashes put in place of the published ones."""
    rng, folder, hashes = np.random.default_rng(0), tmp_path / "data" / "fashion-mnist", {}
    folder.mkdir(parents=True)
    for name in fashion_mnist.SHA256_UNPACKED:
        count = 40 if name.startswith("train") else 20
        if "images" in name:
            pixels = rng.integers(0, 256, (count, 28, 28), np.uint8)
            content = struct.pack(">4i", 0x803, count, 28, 28) + pixels.tobytes()
        else:
            content = struct.pack(">2i", 0x801, count) + bytes(i % 10 for i in range(count))
        (folder / name).write_bytes(gzip.compress(content))
        hashes[name] = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(fashion_mnist, "SHA256_UNPACKED", hashes)
    return folder


@pytest.mark.skipif(not fashion_mnist.is_folder(fashion_mnist.DEBIAN), reason="dataset-fashion-mnist is not installed")
def test_the_installed_set_is_the_published_one(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fashion_mnist, "DEBIAN", Path("/usr/share/datasets/fashion-mnist"))
    facts = summary(dataset_from_spec("fashion-mnist"))
    assert facts["shape"] == [32, 32, 1]
    assert set(facts["train"]["per_class"].values()) == {6000}
    assert set(facts["test"]["per_class"].values()) == {1000}
    # 0.2860 and 0.3530 are the published figures of the bare 28x28; the border of zeros lowers the mean
    assert facts["mean"][0] * 32**2 / 28**2 == pytest.approx(0.2860, abs=1e-4)


def test_images_get_a_border_of_two_zeros(stand_ins: Path, bare_machine: Path) -> None:
    dataset = dataset_from_spec(str(stand_ins))
    raw = gzip.decompress((stand_ins / "train-images-idx3-ubyte.gz").read_bytes())[16:]
    inner = dataset.train.images_nhwc[:, 2:-2, 2:-2, 0]
    np.testing.assert_array_equal(inner, np.frombuffer(raw, np.uint8).reshape(40, 28, 28))
    assert dataset.train.images_nhwc.sum() == inner.sum(dtype=np.uint64)
    assert dataset.train.classes[9] == "Ankle boot"


def test_the_configured_folder_is_found(stand_ins: Path, bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_DATA", str(stand_ins.parent))
    dataset = dataset_from_spec("fashion-mnist")
    assert (len(dataset.train), len(dataset.test)) == (40, 20)


def test_a_missing_set_says_how_to_get_it(bare_machine: Path) -> None:
    with pytest.raises(DataError) as caught:
        dataset_from_spec("fashion-mnist")
    assert "apt install dataset-fashion-mnist" in str(caught.value)
    assert "fetch the set fashion-mnist" in str(caught.value)
    assert str(bare_machine) in str(caught.value)


@pytest.mark.parametrize("damage", ["truncated", "other content", "not gzip"])
def test_a_damaged_file_is_named(stand_ins: Path, damage: str) -> None:
    path = stand_ins / "t10k-labels-idx1-ubyte.gz"
    data = {"truncated": path.read_bytes()[:-9], "other content": gzip.compress(b"x" * 28), "not gzip": b"hello"}
    path.write_bytes(data[damage])
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte.gz is damaged or is not"):
        dataset_from_spec(str(stand_ins))


def test_a_download_is_verified_and_kept(
    stand_ins: Path, bare_machine: Path, served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in stand_ins.iterdir():
        os.rename(path, served[0] / path.name)
    monkeypatch.setattr(fashion_mnist, "BASE_URL", served[1])
    progress: list[tuple[int, int]] = []
    first = dataset_from_spec("fashion-mnist", download=True, on_progress=lambda *step: progress.append(step))
    assert [done for done, total in progress if done == total] == [
        p.stat().st_size for p in (served[0] / name for name in fashion_mnist.SHA256_UNPACKED)
    ]
    assert sorted(p.name for p in bare_machine.iterdir()) == ["fashion-mnist"]
    # the second time nothing is fetched
    monkeypatch.setattr(fashion_mnist, "BASE_URL", "http://127.0.0.1:9")
    assert dataset_from_spec("fashion-mnist", download=True).train.sha256 == first.train.sha256


@pytest.mark.parametrize("fault", ["tampered", "missing", "too large"])
def test_a_wrong_download_is_refused_and_leaves_nothing(
    stand_ins: Path, bare_machine: Path, served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    for path in stand_ins.iterdir():
        os.rename(path, served[0] / path.name)
    monkeypatch.setattr(fashion_mnist, "BASE_URL", served[1])
    last = served[0] / "t10k-labels-idx1-ubyte.gz"
    if fault == "tampered":
        last.write_bytes(gzip.compress(b"\0" * 28))
    elif fault == "missing":
        last.unlink()
    else:
        monkeypatch.setattr(fashion_mnist, "LARGEST_PACKED", 1000)
    says = {"tampered": "not the published file", "missing": "404", "too large": "sends too much"}[fault]
    with pytest.raises(DataError, match=says):
        dataset_from_spec("fashion-mnist", download=True)
    assert list(bare_machine.iterdir()) == []


def test_an_unreachable_server_is_a_sentence(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(fashion_mnist, "BASE_URL", "http://127.0.0.1:9")
    with pytest.raises(DataError, match=r"(?s)cannot be downloaded.*refused.*check the network"):
        dataset_from_spec("fashion-mnist", download=True)
    assert list(bare_machine.iterdir()) == []
