"""Reading a bundle: numpy only, every file's hash checked before anything in it is believed."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.bundle.entries import Manifest
from toolkit.bundle.manifest import FORMAT, GOLDEN, VARIANTS
from toolkit.contracts import Float32, LabeledImages, Preprocessing, preprocessing_from_dict, require_images
from toolkit.errors import BundleError, ToolkitError
from toolkit.files import os_errors, read_json, sha256_of_file
from toolkit.workspace import MANIFEST, newest_bundle

ALL = ("all",)  # what a choice of backends or precisions is unless it names some


@dataclass(frozen=True)
class Bundle:
    """An opened bundle whose files are those of its manifest.

    Attributes:
        precisions: those of the ONNX files inside, fp32 first.
    """

    folder: Path
    manifest: dict[str, Any]
    model: str
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    precisions: tuple[str, ...]

    @property
    def manifest_sha256(self) -> str:
        """Of the manifest's bytes as they lie in the folder: what says in documents which bundle they are about."""
        return sha256_of_file(self.folder / MANIFEST)

    def onnx_file(self, precision: str) -> Path:
        """The ONNX file of a precision.

        Raises:
            BundleError: the bundle has none.
        """
        if precision not in self.precisions:
            wanted = [VARIANTS[precision].export_options] if precision in VARIANTS else []
            arguments = ", ".join([repr(self.model), *filter(None, wanted)])
            raise BundleError(
                f"{self.folder} holds no {precision} model",
                found=", ".join(self.precisions),
                fix=f"`toolkit.export({arguments})`",
            )
        return self.folder / VARIANTS[precision].file

    def engines(self) -> list[dict[str, Any]]:
        """The manifest's engines: file, precision, sha256, what they were built with."""
        return list(self.manifest.get("engines", []))

    def golden(self) -> tuple[LabeledImages, dict[str, Float32]]:
        """A few evaluation images and the logits float32 (N, classes) each precision gave for them on the host."""
        with os_errors(self.folder / GOLDEN, "read"):
            data = (self.folder / GOLDEN).read_bytes()
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                images = LabeledImages(arrays["images"], arrays["labels"], self.labels, f"{self.folder / GOLDEN}")
                logits = {key.removeprefix("logits_"): arrays[key] for key in arrays.files if key.startswith("logits_")}
        except (ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
            raise BundleError(f"{self.folder / GOLDEN} cannot be read", found=error, fix="`toolkit.export`") from error
        require_images(images.images_nhwc, self.preprocessing, f"model '{self.model}', in {self.folder / GOLDEN},")
        wanted = (len(images), len(self.labels))
        for name, found in logits.items():
            if found.shape != wanted or found.dtype != np.float32:
                raise BundleError(
                    f"{self.folder / GOLDEN} holds {name} logits of another form",
                    found=f"{found.dtype} {found.shape}",
                    allowed=f"float32 {wanted}",
                    fix="`toolkit.export`",
                )
        return images, logits


def bundle_from_folder(folder: Path | None = None, *, packed: bool = True) -> Bundle:
    """Opens a bundle, the newest of the workspace without an argument.

    Args:
        folder: or a `.tar` of `toolkit bundle pack`, which is unpacked into a private cache.
        packed: take tars; False for what writes into the bundle.

    Raises:
        BundleError: not a bundle, a newer format, a file missing or changed since the manifest was written.
    """
    folder = folder or newest_bundle()
    with os_errors(folder, "read"):
        is_tar, is_bundle = folder.is_file(), (folder / MANIFEST).is_file()
    if is_tar:
        return _bundle_from_tar(folder, packed)
    if not is_bundle:
        raise BundleError(
            f"{folder} is not a bundle",
            found=f"no {MANIFEST}",
            fix=f"`toolkit.export(options=ExportOptions(int8=True, fp16=True), bundle={str(folder)!r})`",
        )
    manifest = read_json(folder / MANIFEST, BundleError)
    require_manifest(manifest, folder)
    _require_files(folder, manifest["files"])
    return Bundle(
        folder=folder,
        manifest=manifest,
        model=manifest["model"]["name"],
        labels=tuple(manifest["labels"]),
        preprocessing=preprocessing_from_dict(manifest["preprocessing"]),
        precisions=tuple(name for name, variant in VARIANTS.items() if variant.file in manifest["files"]),
    )


def opened_bundle(bundle: str | os.PathLike[str] | Bundle | None) -> Bundle:
    """An opened bundle as it is, else `bundle_from_folder`."""
    if isinstance(bundle, Bundle):
        return bundle
    return bundle_from_folder(None if bundle is None else Path(bundle))


def require_manifest(manifest: dict[str, Any], bundle: Path) -> None:
    """Refuses a manifest that a later version wrote, or that cannot be one.

    Args:
        bundle: the folder or the tar that it is in.

    Raises:
        BundleError: names the entry, what is there and what must be.
    """
    if manifest.get("format") != FORMAT:
        raise BundleError(
            f"{bundle} has a bundle format that this version cannot read",
            found=manifest.get("format"),
            allowed=FORMAT,
            fix="pip install -U trt-edge-toolkit",
        )
    what = f"{MANIFEST} of {bundle}"
    Manifest.from_dict(manifest, what, error=BundleError, fix="copy the bundle again, or export again")
    logits = (manifest.get("output", {}).get("shape") or [len(manifest["labels"])])[-1]
    if not manifest["labels"] or logits != len(manifest["labels"]):
        raise BundleError(
            f"{what} has another number of labels than logits",
            found=f"{len(manifest['labels'])} labels",
            allowed=logits,
        )


def _bundle_from_tar(tar: Path, allowed: bool) -> Bundle:
    from toolkit.bundle.unpacking import folder_in_cache

    if not allowed:
        raise BundleError(f"{tar} is packed, and this writes into a bundle", fix=f"unpack the tar {tar}")
    try:
        return bundle_from_folder(folder_in_cache(tar))
    except BundleError:  # a damaged cache is no fault of the tar; a fault of the tar comes again
        return bundle_from_folder(folder_in_cache(tar, again=True))


def _require_files(folder: Path, files: dict[str, dict[str, Any]]) -> None:
    """Every file of the manifest is there, inside the bundle, with the bytes that were written."""
    for name, entry in files.items():
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise BundleError(f"{folder / MANIFEST} names a file outside the bundle", found=name)
        with os_errors(path, "read"):
            there = path.is_file()
        if not there:
            raise BundleError(
                f"{folder} is incomplete", found=f"no {name}", fix="copy the bundle again, or export again"
            )
        with os_errors(path, "read"):
            digest = sha256_of_file(path)
        if digest != entry["sha256"]:
            raise BundleError(
                f"{path} changed since the bundle was written",
                found=f"sha256 {digest}",
                allowed=entry["sha256"],
                fix="copy the bundle again, or export again",
            )


def require_apart(bundle: Bundle, path: Path, option: str) -> None:
    """Refuses to write over a file of a bundle.

    Raises:
        ToolkitError: `path` is inside and one of the manifest's, or the manifest itself.
    """
    inside = {os.path.realpath(bundle.folder / name) for name in (MANIFEST, *bundle.manifest["files"])}
    if os.path.realpath(path) in inside:  # Path.resolve raises where links go round in a circle
        raise ToolkitError(f"{path} is a file of the bundle itself", fix=f"choose another {option}")


def names_of(wanted: str | Sequence[str]) -> tuple[str, ...]:
    """The names in a text with commas or in a sequence, each once, in the order given."""
    text = wanted if isinstance(wanted, str) else ",".join(wanted)
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def require_precisions(wanted: str | Sequence[str], bundle: Bundle) -> tuple[str, ...]:
    """`all` or names to precisions that the bundle holds.

    Raises:
        ToolkitError: an unknown precision, or one that the bundle lacks.
    """
    names = names_of(wanted)
    if names == ALL:
        return bundle.precisions
    unknown = [name for name in names if name not in VARIANTS]
    if unknown or not names:
        raise ToolkitError("unknown precision", found=",".join(names), allowed="all, " + ", ".join(VARIANTS))
    for name in names:
        bundle.onnx_file(name)
    return names
