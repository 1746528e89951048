"""What reads files of strangers, each as one function of bytes; any exception but the toolkit's own is a finding."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import EngineError, ToolkitError
from toolkit.storage.files import Content, json_object

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "tests/bundle/format-1"
CORPUS = Path(__file__).with_name("corpus")
Read = Callable[[bytes, Path], object]


@dataclass(frozen=True)
class Target:
    """One reader.

    Attributes:
        read: of bytes, with a folder that it may write to; raises ToolkitError or Unreadable where it refuses them.
        seeds: files that are sound.
        text: what is mutated as JSON or lines where it is one, and as bytes.
    """

    read: Read
    seeds: Callable[[], list[bytes]]
    text: bool = False


def manifest(data: bytes, folder: Path) -> None:
    """A bundle whose manifest somebody wrote, its digest computed anew, opened, shown and asked for its parts."""
    from toolkit.bundle.reading import bundle_from_folder
    from toolkit.bundle.results import shown_bundle
    from toolkit.bundle.sealing import digest_of

    bundle = folder / "bundle"
    if not bundle.exists():
        shutil.copytree(BUNDLE, bundle)
    try:
        document = json.loads(data)
        if isinstance(document, dict) and "digest" in document:
            document["digest"] = digest_of(document)
            data = json.dumps(document).encode()
    except (ValueError, RecursionError, ToolkitError):
        pass
    (bundle / "manifest.json").write_bytes(data)
    opened = bundle_from_folder(bundle)
    shown_bundle(opened.folder, opened.manifest).as_dict()
    opened.preprocessing.as_dict()
    opened.golden()


def record(data: bytes, folder: Path) -> None:
    """A record, as a file and as one in a bundle."""
    from toolkit.calibration.record import record_from_content

    found = record_from_content(Content(folder / "record.json", data))
    found.require_belongs_to(found.belongs_to)
    found.as_dict()


def card(data: bytes, folder: Path) -> None:
    """A model's card."""
    from toolkit.models.card import card_from_folder

    (folder / "card.json").write_bytes(data)
    card_from_folder(folder).text()


def target(data: bytes, folder: Path) -> None:
    """What an engine is for."""
    from toolkit.target import target_from_name

    os.environ["TOOLKIT_WORKSPACE"] = str(folder)
    (folder / "export").mkdir(exist_ok=True)
    (folder / "export/fuzzed.toml").write_bytes(data)
    repr(target_from_name("fuzzed"))


def calib_cache(data: bytes, folder: Path) -> None:
    """Ranges as TensorRT's calibrators read them."""
    from toolkit.engine.planning import _calib_cache

    _calib_cache(Content(folder / "calib.cache", data), _tensorrt())


def sidecar(data: bytes, folder: Path) -> None:
    """What an engine says about itself, and whether it could run on an Orin."""
    from toolkit.runtime.driver import Driver
    from toolkit.runtime.trt.preflight import _sidecar, obstacle_to_running

    found = _sidecar(Content(folder / "model.engine.json", data), "`toolkit.build(BUNDLE)`")
    obstacle_to_running(found, _tensorrt(), Driver(True, "", "13.0", (_device(),)))


def _device() -> Any:
    from toolkit.runtime.driver import Device

    return Device("Orin", "SM87", 8192)


def _tensorrt() -> Any:
    from toolkit.runtime.trt.module import TensorRT

    return TensorRT(None, "tensorrt", "10.3.0", True, False)


def tar(data: bytes, folder: Path) -> None:
    """A packed bundle."""
    from toolkit.bundle.packing import check_tar

    (folder / "x.tar").write_bytes(data)
    check_tar(folder / "x.tar")


def npz(data: bytes, folder: Path) -> None:
    """A set of images."""
    from toolkit.data.npz import dataset_from_npz

    (folder / "x.npz").write_bytes(data)
    dataset_from_npz(folder / "x.npz")


def onnx(data: bytes, folder: Path) -> None:
    """A classifier from any exporter, up to the form that every TensorRT reads."""
    from toolkit.graph.user_file import onnx_from_file

    (folder / "x.onnx").write_bytes(data)
    onnx_from_file(folder / "x.onnx")


def image(data: bytes, folder: Path) -> None:
    """One image file."""
    from toolkit.data.image_files import Unreadable, read_image

    (folder / "x").write_bytes(data)
    try:
        read_image(folder / "x", convert=len(data) % 2 == 0)
    except Unreadable as error:
        raise ToolkitError(str(error)) from None


def _files(*paths: Path) -> Callable[[], list[bytes]]:
    return lambda: [path.read_bytes() for path in paths]


def _tars() -> list[bytes]:
    from toolkit.bundle.packing import tar_of_files
    from toolkit.bundle.reading import bundle_from_folder

    return [tar_of_files(bundle_from_folder(BUNDLE).files, (BUNDLE / "manifest.json").read_bytes())]


def _images() -> list[bytes]:
    from PIL import Image

    found = []
    for kind in ("PNG", "JPEG", "BMP", "WEBP"):
        for mode in ("L", "RGB", "RGBA", "P", "I;16", "CMYK", "1"):
            stream = io.BytesIO()
            try:
                Image.new(mode, (9, 7)).save(stream, kind)
            except (OSError, KeyError, ValueError):  # this kind has no such mode
                continue
            found.append(stream.getvalue())
    return found


def _sets() -> list[bytes]:
    import numpy as np

    found = []
    for save in (np.savez, np.savez_compressed):
        stream, images = io.BytesIO(), np.zeros((6, 4, 4, 3), np.uint8)
        save(stream, images=images, labels=np.arange(6) % 2, classes=np.array(["a", "b"]))
        found.append(stream.getvalue())
    return found


def _sidecars() -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / "sidecar").glob("*"))]


def _manifests() -> list[bytes]:
    """That of the first format, and one with a digest."""
    from toolkit.bundle.sealing import manifest_text

    old = (BUNDLE / "manifest.json").read_bytes()
    document = json_object(Content(BUNDLE / "manifest.json", old), EngineError)
    return [old, manifest_text(document | {"format": 2}).encode()]


TARGETS = {
    "manifest": Target(manifest, _manifests, True),
    "sidecar": Target(sidecar, _sidecars, True),
    "record": Target(record, _files(BUNDLE / "record.json"), True),
    "card": Target(card, _files(ROOT / "models/resnet32x32-fashion/card.json"), True),
    "target": Target(target, _files(*sorted((ROOT / "export").glob("*.toml"))), True),
    "calib.cache": Target(calib_cache, _files(BUNDLE / "calib.cache"), True),
    "tar": Target(tar, _tars),
    "npz": Target(npz, _sets),
    "onnx": Target(onnx, _files(BUNDLE / "model.onnx")),
    "image": Target(image, _images),
}
