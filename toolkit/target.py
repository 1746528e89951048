"""What an engine is built for: `export/<target>.toml`, data that people write."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import EngineError
from toolkit.storage.files import read_toml
from toolkit.workspace import find_in_room, nearest, shipped, workspace

DEFAULT_TARGET = "default"
ENTRIES = (
    "description", "tensorrt", "tensorrt_version", "machine", "gpus", "batch", "compute_capabilities", "workspace_mib",
    "optimization_level", "compatible", "dla", "refused",
)  # fmt: skip
KINDS = ("tensorrt", "tensorrt-rtx")
MACHINES = ("aarch64", "x86_64")
COMPATIBLE = ("version", "hardware")
BOARDS = re.compile("jetson|orin|xavier|nano|agx|tx2")  # what is typed instead of a JetPack
JETPACK = "jetpack61 for JetPack 6.1 and 6.2, jetpack60 for 6.0, and so on"


@dataclass(frozen=True)
class Target:
    """The content of a target file.

    Attributes:
        tensorrt: kinds of TensorRT that may build for it.
        tensorrt_version: of the device, as in (10, 3, 0), or its first numbers; () takes any. An engine runs on the
            version that built it.
        machine: of the device, "aarch64" or "x86_64"; None takes any. No TensorRT builds for another.
        gpus: of the device, such as ("SM87",); () takes any. Full TensorRT builds for the GPU that it runs on.
        batch: smallest, best served and largest batch.
        compute_capabilities: for TensorRT-RTX, such as ("SM86",); none makes a plan for all that it supports.
        workspace_mib: scratch memory that a layer may use; None leaves it to TensorRT.
        optimization_level: 0 (builds fastest) to 5 (tries most); None leaves it to TensorRT.
        compatible: "version" (plans outlive an upgrade), "hardware" (plans move to another GPU), or None.
        dla_core: of the DLA that takes what layers it can; None builds for the GPU alone.
        refused: why no engine of a bundle is built for it at all; empty where they are.
    """

    name: str
    description: str
    tensorrt: tuple[str, ...]
    batch: tuple[int, int, int]
    compute_capabilities: tuple[str, ...] = ()
    workspace_mib: int | None = None
    tensorrt_version: tuple[int, ...] = ()
    machine: str | None = None
    gpus: tuple[str, ...] = ()
    optimization_level: int | None = None
    compatible: str | None = None
    dla_core: int | None = None
    refused: str = ""

    def obstacle(self, tensorrt: str, version: str, machine: str, gpu: str | None = None) -> str:
        """Why the TensorRT that is here cannot build for this target, and where it can be done; empty if it can.

        Args:
            tensorrt: its kind, see `KINDS`. version: as its module says. machine: as `platform.machine()` says.
            gpu: the compute capability of the GPU that is here; None where there is none.
        """
        if self.refused:
            return self.refused
        here = f"{tensorrt} {version} on {machine} is what can build here"
        wanted = ".".join(map(str, self.tensorrt_version))
        if tensorrt not in self.tensorrt and self.machine in (None, machine):
            return f"target {self.name} wants {' or '.join(self.tensorrt)}, and {here}"
        if self.machine not in (None, machine) or not f"{version}.".startswith(f"{wanted}." if wanted else ""):
            of = " ".join(part for part in (wanted and f"TensorRT {wanted}", self.machine) if part)
            return f"target {self.name} is {of}, and {here}: copy the bundle there and build on the device"
        if self.gpus and gpu not in self.gpus:
            return (
                f"target {self.name} is for a GPU of {' or '.join(self.gpus)}, and {gpu or 'no GPU'} is here: copy the "
                "bundle there and build on the device"
            )
        return ""


def target_from_name(name: str) -> Target:
    """Reads `export/<name>.toml` of the workspace, else the shipped one.

    Raises:
        EngineError: no such target, not TOML, or an entry that is unknown or wrong.
    """
    path = find_in_room("export", f"{name}.toml")
    if path is None:
        known = {p.stem for root in (workspace(), shipped()) for p in (root / "export").glob("*.toml")}
        meant = nearest(name, known)
        board = f"a Jetson's target is its JetPack's: {JETPACK}" if BOARDS.search(name.lower()) else None
        raise EngineError(
            f"there is no target '{name}'",
            allowed=", ".join(sorted(known)),
            fix=f"did you mean `target={meant!r}`?" if meant else board,
        )
    values = read_toml(path, EngineError)
    unknown = sorted(values.keys() - set(ENTRIES))
    if unknown:
        raise EngineError(
            f"{path} has entries that no target has", found=", ".join(unknown), allowed=", ".join(ENTRIES)
        )
    batch, kinds = values.get("batch"), values.get("tensorrt", list(KINDS))
    if not (isinstance(batch, list) and len(batch) == 3 and all(type(n) is int for n in batch)):
        raise EngineError(f"{path}: 'batch' cannot be read", found=batch, allowed="three numbers, as in [1, 8, 64]")
    if not (isinstance(kinds, list) and kinds and all(kind in KINDS for kind in kinds)):
        raise EngineError(f"{path}: 'tensorrt' cannot be read", found=kinds, allowed=", ".join(KINDS))
    machine = values.get("machine")
    if machine not in (None, *MACHINES):
        raise EngineError(f"{path}: 'machine' cannot be read", found=machine, allowed=", ".join(MACHINES))
    compatible = values.get("compatible")
    if compatible not in (None, *COMPATIBLE):
        raise EngineError(f"{path}: 'compatible' cannot be read", found=compatible, allowed=", ".join(COMPATIBLE))
    return Target(
        name=name,
        description=str(values.get("description", "")),
        tensorrt=tuple(kinds),
        batch=require_batch(*batch),
        compute_capabilities=_texts(path, values, "compute_capabilities"),
        workspace_mib=_number(path, values, "workspace_mib"),
        optimization_level=_number(path, values, "optimization_level"),
        dla_core=_number(path, values, "dla"),
        compatible=compatible,
        gpus=_texts(path, values, "gpus"),
        refused=str(values.get("refused", "")),
        tensorrt_version=_version(path, values.get("tensorrt_version", "")),
        machine=machine,
    )


def _number(path: Path, values: dict[str, Any], entry: str) -> int | None:
    value = values.get(entry)
    if value is not None and (type(value) is not int or value < 0):
        raise EngineError(f"{path}: '{entry}' cannot be read", found=value, allowed="a whole number from 0")
    return value


def _texts(path: Path, values: dict[str, Any], entry: str) -> tuple[str, ...]:
    value = values.get(entry, [])
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise EngineError(f"{path}: '{entry}' cannot be read", found=value, allowed='a list of texts, as in ["SM87"]')
    return tuple(value)


def _version(path: Path, text: object) -> tuple[int, ...]:
    """The numbers of a text such as 10.3.0, or its first ones; an empty text is ()."""
    parts = text.split(".") if isinstance(text, str) and text else []
    if not isinstance(text, str) or len(parts) > 3 or not all(part.isdecimal() for part in parts):
        raise EngineError(
            f"{path}: 'tensorrt_version' cannot be read", found=text, allowed='up to three numbers, as in "10.3.0"'
        )
    return tuple(int(part) for part in parts)


def require_batch(smallest: int, best: int, largest: int) -> tuple[int, int, int]:
    """A batch profile whose sizes rise.

    Raises:
        EngineError: they do not, or are out of range.
    """
    if not 1 <= smallest <= best <= largest <= 4096:
        raise EngineError(
            "the batch profile cannot be used",
            found=f"{smallest}:{best}:{largest}",
            allowed="smallest:best:largest from 1 to 4096, as in 1:8:64",
        )
    return smallest, best, largest
