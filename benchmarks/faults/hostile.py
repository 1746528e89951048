"""Files that somebody made to hang, to fill the memory, to escape or to end in a traceback: each with what reads it.

A refusal is one clear error within 2 s and 300 MiB beyond the import; a file that is taken after all took no more.
"""

from __future__ import annotations

import io
import json
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from kills import Place
from rows import MIB, SECONDS, Table
from tries import command, in_child

HANGS = 30.0  # seconds after which one is killed
Files = Iterator[tuple[str, Callable[[Path], object]]]


def written(data: bytes) -> Callable[[Path], object]:
    """Writes these bytes."""
    return lambda path: path.write_bytes(data)


def cut_and_flipped(data: bytes) -> Files:
    """What any format is tried with: nothing, a half, bits that flipped, other bytes, what is no file."""
    yield "empty", written(b"")
    for part in (1, 3, 7):
        yield f"cut at {part}/8", written(data[: len(data) * part // 8])
    for place in range(0, len(data), max(1, len(data) // 12)):
        yield f"bit flipped at {place}", written(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
    yield "zeros", written(bytes(len(data)))
    yield "noise", written(np.random.default_rng(0).bytes(min(len(data), 1 << 16)))
    yield "a pipe", os.mkfifo
    yield "a device", lambda path: path.symlink_to("/dev/zero")
    yield "a folder", Path.mkdir
    yield "a link to itself", lambda path: path.symlink_to(path)
    yield "sparse, 8 GiB", lambda path: (path.touch(), os.truncate(path, 8 << 30))


def tars(workspace: Path) -> Files:
    """Packed bundles."""
    yield from cut_and_flipped((workspace / "tiny.tar").read_bytes())
    for name, kind in (("../../escaped", tarfile.REGTYPE), ("/escaped", tarfile.REGTYPE), ("link", tarfile.SYMTYPE),
                       ("device", tarfile.CHRTYPE), ("hard", tarfile.LNKTYPE)):  # fmt: skip
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as tar:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        yield f"member {name}", written(stream.getvalue())
    yield "gzip", written(zlib.compress((workspace / "tiny.tar").read_bytes()))


def jsons(text: str) -> Files:
    """Documents that are JSON, or nearly."""
    yield "deep", written(b"[" * 200_000)
    yield "deep objects", written(b'{"a":' * 100_000 + b"1" + b"}" * 100_000)
    yield "large numbers", written(b'{"format": 1' + b"0" * 5000 + b"}")
    yield "keys twice", written(text.replace("{", '{"format": 1,', 1).encode())
    yield "half a surrogate", written(text.replace('"', '"\\ud800', 1).encode())
    yield "100 MiB of blanks", written(b" " * (100 << 20))
    document = json.loads(text)
    for key in document:
        for wrong in (None, [], {}, -1, 1e308, "x" * 100, [[]], True):
            yield f"{key} = {str(wrong)[:12]}", written(json.dumps(document | {key: wrong}).encode())


def npzs(workspace: Path) -> Files:
    """Sets of images."""
    yield from cut_and_flipped((workspace / "set.npz").read_bytes())
    header = b"\x93NUMPY\x01\x00"
    for name, text in (
        ("4 TiB", "{'descr': '|u1', 'fortran_order': False, 'shape': (4398046511104,)}"),
        ("negative", "{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 2)}"),
        ("objects", "{'descr': '|O', 'fortran_order': False, 'shape': (4,)}"),
        ("code", "__import__('os').abort()"),
    ):
        filled = text.encode().ljust(118 - 1) + b"\n"
        array = header + struct.pack("<H", len(filled)) + filled
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for part in ("images", "labels"):
                archive.writestr(f"{part}.npy", array)
        yield f"header: {name}", written(stream.getvalue())
    yield "2 GiB of zeros, packed", _bomb


def _bomb(path: Path) -> None:
    zeros = bytes(1 << 20)
    text = b"{'descr': '|u1', 'fortran_order': False, 'shape': (2097152, 32, 32, 1)}".ljust(117) + b"\n"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("images.npy", "w", force_zip64=True) as member,
    ):
        member.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text)
        for _ in range(2 << 10):
            member.write(zeros)


def images(workspace: Path) -> Files:
    """One image file among others."""
    from PIL import Image

    stream = io.BytesIO()
    Image.new("L", (16, 16), 90).save(stream, "PNG")
    data = stream.getvalue()
    yield from cut_and_flipped(data)
    size = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + size
    yield "3.6 billion pixels", written(data[:8] + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)))
    yield "text", written(b"hello")


def onnxs(workspace: Path) -> Files:
    """Classifiers of strangers."""
    from hostile_graphs import graphs

    yield from cut_and_flipped((workspace / "out/model.onnx").read_bytes())
    for name, data in graphs():
        yield name, written(data)


def checkpoints(workspace: Path) -> Files:
    """Weights as .pth."""
    from hostile_graphs import pickles

    for name, data in pickles():
        yield name, written(data)
    yield from cut_and_flipped(next(data for name, data in pickles() if name == "of another net"))


def tomls(workspace: Path) -> Files:
    """Targets."""
    text = b'description = "x"\ntensorrt = ["rtx"]\nbatch = [1, 8, 64]\n'
    yield from cut_and_flipped(text)
    yield "deep", written(b"batch = " + b"[" * 100_000)
    yield "deep tables", written(b"[" + b"a." * 50_000 + b"a]\n")
    for line in (b"tensorrt = [[1]]", b"tensorrt = 1", b"batch = [1, 8, 99999999999999999999]", b"batch = [true, 1, 1]",
                 b"batch = [nan, 1, 1]", b"workspace_mib = 1e99", b"tensorrt_version = [1]", b"compatible = [[1]]",
                 b"gpus = 3", b"compute_capabilities = 3", b"machine = []", b"refused = {a=1}"):  # fmt: skip
        yield line.decode(), written(text + line if not text.count(line.split(b" ")[0]) else line)


KINDS: dict[str, tuple[str, str, Callable[[Path], Files]]] = {
    "hostile tars": ("h/x.tar", "bundle unpack h/x.tar -o h/out", tars),
    "hostile manifests": ("out/manifest.json", "selftest out --backend ort --seconds 0.01",
                          lambda w: jsons((w / "out/manifest.json").read_text())),
    "hostile records": ("h/record.json", "export tiny --int8 --no-engines --force --record h/record.json -o h/b",
                        lambda w: jsons((w / "calibration/tiny.record/record.json").read_text())),
    "hostile cards": ("models/tiny/card.json", "export tiny --no-engines -o h/b",
                      lambda w: jsons((w / "models/tiny/card.json").read_text())),
    "hostile npz": ("h/x.npz", "train net --arch resnet8 --epochs 1 --images 8 --data h/x.npz", npzs),
    "hostile images": ("h/set/a/x.png", "train net --arch resnet8 --epochs 1 --images 8 --data h/set", images),
    "hostile ONNX": ("h/x.onnx", "export h/x.onnx --data set.npz --pixels 0-1 --no-engines -o h/b", onnxs),
    "hostile checkpoints": ("h/x.pth", "export build:net --checkpoint h/x.pth --data set.npz --size 16x16x1 "
                            "--no-engines -o h/b", checkpoints),
    "hostile targets": ("export/h.toml", "build out --target h --explain", tomls),
}  # fmt: skip


def hostile(place: Place, kinds: list[str], every: int, table: Table) -> None:
    """Every `every`-th file of each kind."""
    for kind in kinds:
        where, words, files = KINDS[kind]
        place.restore()
        _beside(place.workspace)
        with table.row(kind) as row:
            path = place.workspace / where
            kept = path.read_bytes() if path.is_file() else b""
            for index, (name, make) in enumerate(files(place.workspace)):
                if index % every:
                    continue
                _cleared(path)
                make(path)
                done = in_child(command(place.workspace, words), place.log, limit=HANGS)
                row.add(name, _why(done, place), done)
            _cleared(path)
            path.write_bytes(kept)
    place.restore()


def _why(done: Any, place: Place) -> str:
    if done.code not in (0, 1, 2) or done.crashed:
        return f"ended with {done.code}"
    if done.code and not done.refused:
        return "no clear error"
    if done.code and done.seconds > SECONDS:
        return f"took {done.seconds:.1f} s"
    if done.code and done.mib > MIB:
        return f"took {done.mib:.0f} MiB"
    return "escaped" if (place.workspace.parent / "escaped").exists() else ""


def _cleared(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    path.unlink(missing_ok=True)


def _beside(workspace: Path) -> None:
    """Class folders with sound images, a network for checkpoints, and room for what is made."""
    from PIL import Image

    for name in "abcd":
        folder = workspace / "h/set" / name
        folder.mkdir(parents=True)
        for index in range(12):
            Image.new("L", (16, 16), 20 * index).save(folder / f"{index}.png")
    (workspace / "build.py").write_text(NETWORK)


NETWORK = """
import torch
def net():
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        torch.nn.Linear(8, 4),
    )
"""
