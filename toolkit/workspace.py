"""Where things lie: rooms of the user's workspace, then those shipped with the package; the user's cache and data."""

from __future__ import annotations

import difflib
import os
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from toolkit.errors import BundleError, ModelError, ToolkitError
from toolkit.storage.documents import Document

DEFAULT_MODEL = "resnet32x32-fashion"
ROOMS = ("models", "calibration", "export")
MANIFEST = "manifest.json"
WEIGHTS = (".pth", ".pt", ".ckpt", ".safetensors", ".bin")  # of a checkpoint, which is taken for a model


@dataclass(frozen=True)
class NewWorkspace(Document):
    """What toolkit init prints.

    Attributes:
        workspace: the folder that has the rooms.
    """

    SCHEMA = "toolkit/init/1"
    ok: Literal[True]
    workspace: Path


def workspace() -> Path:
    """The folder that holds the user's rooms: `TOOLKIT_WORKSPACE`, or the current folder."""
    return Path(os.environ.get("TOOLKIT_WORKSPACE") or Path.cwd())


def shipped() -> Path:
    """The folder that holds the rooms shipped with the package: package data, or the repository itself."""
    package = Path(__file__).parent
    inside = package / "shipped"
    return inside if inside.is_dir() else package.parent


def require_name(name: str) -> str:
    """A name that can be a folder's and never leaves the one above it: letters, digits, '.', '_' and '-'.

    Whatever becomes a part of a path and was read from a card, a manifest or the command line goes through here.

    Raises:
        ToolkitError: it is none.
    """
    if is_name(name):
        return name
    usable = usable_name(name)
    raise ToolkitError(
        "a name must be usable as a folder",
        found=repr(name),
        allowed="up to 64 letters, digits, '.', '_' and '-', a letter or digit first",
        fix=f"did you mean {usable}?" if usable and not {"/", "\\"} & set(name) else None,
    )


def usable_name(name: str) -> str:
    """The nearest name that can be a folder's; empty where none is near."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("._-")[:64]


def is_name(name: str) -> bool:
    """Whether `require_name` takes it."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name) is not None


def find_in_room(room: str, name: str) -> Path | None:
    """The folder `name` of a room: the workspace's, else the shipped one, else None, as for what is no name."""
    if not is_name(name):
        return None
    for root in (workspace(), shipped()):
        if (root / room / name).exists():
            return root / room / name
    return None


def names_in_room(room: str) -> list[str]:
    """Every name a room has, workspace and shipped together, sorted."""
    roots = {workspace() / room, shipped() / room}
    entries = [entry for root in roots if root.is_dir() for entry in root.iterdir()]
    return sorted({entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")})


def bundle_names() -> list[str]:
    """Every bundle in the workspace's `bundles/`, sorted."""
    found = (workspace() / "bundles").glob(f"*/{MANIFEST}")
    return sorted(path.parent.name for path in found if not path.parent.name.startswith("."))


def bundle_as_typed(path: Path) -> Path:
    """A path as it is; what is none, and the name of a bundle in `bundles/`, is that one."""
    if len(path.parts) == 1 and is_name(path.name) and not path.exists() and path.name in bundle_names():
        return workspace() / "bundles" / path.name
    return path


def nearest(name: str, names: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The name that was meant, if one is near."""
    return next(iter(difflib.get_close_matches(name, list(names), n=1, cutoff=cutoff)), None)


def no_bundle(path: Path) -> BundleError:
    """What is said of a bundle that does not exist."""
    names, models = bundle_names(), names_in_room("models")
    meant = nearest(path.name, names)
    if meant is not None:
        fix = f"did you mean {Path('bundles', meant)}?"
    elif path.name in models:
        fix = f"`toolkit.export({path.name!r})` makes one of the model"
    else:
        fix = "check the path; look at what there is"
    here = f"bundles/ has {', '.join(names)}" if names else "bundles/ has none"
    return BundleError(
        f"there is no bundle '{path}'",
        found=f"nothing at {path.absolute()}",
        allowed=f"a bundle's folder, its .tar, or its name: {here}",
        fix=fix,
    )


def no_model(name: str) -> ModelError:
    """What is said of a model that does not exist, and of what is taken for one: its code, its weights, its bundle."""
    path, models = Path(name), names_in_room("models")
    what, fix = f"there is no model '{name}'", "check the path; look at what there is"
    if path.suffix == ".py":
        what, fix = f"{name} is a file of Python", f"name what builds the network in it, as in {path.stem}:build"
    elif path.suffix in WEIGHTS:
        what = f"{name} holds weights, and no network"
        fix = f"name what builds the network, as in package.module:build, and `checkpoint={name!r}`"
    elif (meant := nearest(path.name, models)) is not None:
        fix = f"did you mean {meant}?"
    elif name in bundle_names():
        what = f"'{name}' is a bundle, and this takes a model"
        fix = f"{Path('bundles', name, 'model.onnx')} where a file is taken; look at what there is"
    allowed = ", ".join(models) or "(none yet)"
    return ModelError(what, allowed=f"a model folder, or one of: {allowed}", fix=fix)


def newest_bundle() -> Path:
    """The bundle in the workspace's `bundles/` whose manifest was written last.

    Raises:
        BundleError: there is none.
    """
    manifests = [workspace() / "bundles" / name / MANIFEST for name in bundle_names()]
    if not manifests:
        raise BundleError(
            "there is no bundle in this workspace",
            found=f"no */{MANIFEST} in {workspace() / 'bundles'}",
            fix="`toolkit.export(options=ExportOptions(int8=True, fp16=True))`",
        )
    return max(manifests, key=lambda path: path.stat().st_mtime_ns).parent


def configured_home() -> list[Path]:
    """$TOOLKIT_DATA, if it is set."""
    value = os.environ.get("TOOLKIT_DATA")
    return [Path(value).expanduser()] if value else []


def listed(places: list[Path]) -> str:
    """Places as an error names them."""
    return ", ".join(map(str, places))
