"""Reading a bundle: numpy only, every file's hash checked before anything in it is believed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.bundle.manifest import GOLDEN, VARIANTS
from toolkit.bundle.open_files import OpenFiles
from toolkit.bundle.requirements import NOTHING, Requirement, requirement
from toolkit.bundle.sealing import manifest_of
from toolkit.contracts import Float32, LabeledImages, Preprocessing, preprocessing_from_dict, require_images
from toolkit.errors import BundleError, ToolkitError
from toolkit.storage.files import Content, content_of, os_errors
from toolkit.storage.folders import restored
from toolkit.storage.limits import GOLDEN_BYTES, MANIFEST_BYTES
from toolkit.storage.npz import arrays_of_npz
from toolkit.workspace import MANIFEST, bundle_as_typed, newest_bundle, no_bundle

REPLACED_AT_MOST = 5  # times while it is opened
ALL = ("all",)  # what a choice of backends or precisions is unless it names some


@dataclass(frozen=True)
class Bundle:
    """An opened bundle whose files are those of its manifest.

    Attributes:
        folder: where it lies, or where in the cache its tar was unpacked.
        precisions: those of the ONNX files inside, fp32 first.
        files: its files as they were opened; whoever reads one reads it here.
        manifest_content: the manifest's own bytes.
        wanted: whose signature was asked for, as it is of whatever is opened in its place or beside it.
    """

    folder: Path
    manifest: dict[str, Any]
    model: str
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    precisions: tuple[str, ...]
    files: OpenFiles
    manifest_content: Content
    wanted: Requirement = NOTHING

    @property
    def manifest_sha256(self) -> str:
        """Of the manifest's bytes: what says in documents which bundle they are about."""
        return self.manifest_content.sha256

    def onnx(self, precision: str) -> Content:
        """The ONNX file of a precision, as its hash was checked.

        Raises:
            BundleError: the bundle has none, or it was written into since the bundle was opened.
        """
        return self.files.content(self.onnx_file(precision).name)

    def onnx_file(self, precision: str) -> Path:
        """Where the ONNX file of a precision lies; `onnx` has its bytes.

        Raises:
            BundleError: the bundle has none.
        """
        if precision not in self.precisions:
            options = VARIANTS[precision].export_options if precision in VARIANTS else ""
            raise BundleError(
                f"{self.folder} holds no {precision} model",
                found=", ".join(self.precisions),
                fix=f"`toolkit.export({self.model!r}{options and f', {options}'})`",
            )
        return self.folder / VARIANTS[precision].file

    def engines(self) -> list[dict[str, Any]]:
        """The manifest's engines: file, precision, sha256, what they were built with."""
        return list(self.manifest.get("engines", []))

    def golden(self) -> tuple[LabeledImages, dict[str, Float32]]:
        """A few evaluation images and the logits float32 (N, classes) each precision gave for them on the host."""
        content = self.files.content(GOLDEN)
        arrays = arrays_of_npz(content, GOLDEN_BYTES, BundleError, "`toolkit.export`")
        logits = {key.removeprefix("logits_"): values for key, values in arrays.items() if key.startswith("logits_")}
        try:
            images = LabeledImages(arrays["images"], arrays["labels"], self.labels, f"{content.path}")
        except KeyError as error:
            raise BundleError(f"{content.path} cannot be read", found=error, fix="`toolkit.export`") from error
        require_images(images.images_nhwc, self.preprocessing, f"model '{self.model}', in {content.path},")
        wanted = (len(images), len(self.labels))
        for name, found in logits.items():
            if found.shape != wanted or found.dtype != np.float32:
                raise BundleError(
                    f"{content.path} holds {name} logits of another form",
                    found=f"{found.dtype} {found.shape}",
                    allowed=f"float32 {wanted}",
                    fix="`toolkit.export`",
                )
        return images, logits


def bundle_from_folder(folder: Path | None = None, *, packed: bool = True, wanted: Requirement | None = None) -> Bundle:
    """Opens a bundle, the newest of the workspace without an argument.

    Every file is opened once and hashed; what is used later are those very bytes. A bundle that is replaced while it is
    opened is read again, so that the old one or the new one is seen, never both.

    Args:
        folder: or a `.tar` of `toolkit bundle pack`, which is unpacked into a private cache.
        packed: take tars; False for what writes into the bundle.
        wanted: whose signature it must have; None asks for what the workspace's `toolkit.toml` does. A tar's is checked
            before anything in it is looked at.

    Raises:
        BundleError: not a bundle, a newer format, a file missing or changed since the manifest was written, not signed.
    """
    folder = newest_bundle() if folder is None else bundle_as_typed(folder)
    wanted = requirement() if wanted is None else wanted
    with os_errors(folder, "read"):
        there = folder.exists() or restored(folder)
        is_folder = folder.is_dir()
    if there and not is_folder:
        return _bundle_from_tar(folder, packed, wanted)
    for _ in range(REPLACED_AT_MOST):
        before = _which(folder)
        try:
            return _signed(_opened(folder), wanted)
        except ToolkitError:
            if _which(folder) == before:
                raise
    return _signed(_opened(folder), wanted)


def opened_bundle(
    bundle: str | os.PathLike[str] | Bundle | None, *, packed: bool = True, wanted: Requirement | None = None
) -> Bundle:
    """An opened bundle as it is, else `bundle_from_folder`."""
    if isinstance(bundle, Bundle):
        return bundle
    return bundle_from_folder(None if bundle is None else Path(bundle), packed=packed, wanted=wanted)


def _signed(bundle: Bundle, wanted: Requirement) -> Bundle:
    """The bundle in a folder, once it is known as signed where that is asked for."""
    wanted.require_folder(bundle.folder, bundle.manifest_content)
    return replace(bundle, wanted=wanted)


def _opened(folder: Path, manifest: Content | None = None) -> Bundle:
    """The bundle in a folder, as its own manifest has it or as another one that was checked already."""
    with _folder_opened(folder) as inside:
        content = manifest or content_of(folder / MANIFEST, MANIFEST_BYTES, BundleError, (inside, MANIFEST))
        values = manifest_of(content, folder)
        files = OpenFiles(folder, values["files"], inside)
    return Bundle(
        folder=folder,
        manifest=values,
        model=values["model"]["name"],
        labels=tuple(values["labels"]),
        preprocessing=preprocessing_from_dict(values["preprocessing"]),
        precisions=tuple(name for name, variant in VARIANTS.items() if variant.file in values["files"]),
        files=files,
        manifest_content=content,
    )


@contextmanager
def _folder_opened(folder: Path) -> Iterator[int]:
    """The folder's descriptor: what is opened by it lies in the same folder, whatever its name is by then."""
    with os_errors(folder, "read"):
        handle = os.open(folder, os.O_RDONLY) if (folder / MANIFEST).is_file() else None
    if handle is None:
        if not folder.exists():
            raise no_bundle(folder)
        raise BundleError(f"{folder} is not a bundle", found=f"no {MANIFEST}", allowed="a folder that an export wrote")
    try:
        yield handle
    finally:
        os.close(handle)


def _which(folder: Path) -> tuple[int, ...] | None:
    """Tells one manifest from the next in the same place; None while there is none."""
    try:
        found = os.stat(folder / MANIFEST)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


def _bundle_from_tar(tar: Path, allowed: bool, wanted: Requirement) -> Bundle:
    """The tar's bytes are read once; from the folder in the cache only what their manifest says is taken."""
    from toolkit.bundle.packing import packed_from_tar
    from toolkit.bundle.unpacking import folder_in_cache

    if not allowed:
        raise BundleError(f"{tar} is packed, and this writes into a bundle", fix=f"unpack the tar {tar}")
    packed = packed_from_tar(tar, wanted)
    try:
        opened = _opened(folder_in_cache(packed), packed.manifest_content)
    except BundleError:  # a damaged cache is no fault of the tar; a fault of the tar comes again
        opened = _opened(folder_in_cache(packed, again=True), packed.manifest_content)
    return replace(opened, wanted=wanted)


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
