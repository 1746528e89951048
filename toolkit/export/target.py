"""What an engine is built for: `export/<target>.toml`, data that people write."""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.errors import EngineError
from toolkit.files import read_toml
from toolkit.workspace import find_in_room, shipped, workspace

DEFAULT_TARGET = "default"
ENTRIES = ("description", "tensorrt", "batch", "compute_capabilities", "workspace_mib")
KINDS = ("tensorrt", "tensorrt-rtx")


@dataclass(frozen=True)
class Target:
    """The content of a target file.

    Attributes:
        tensorrt: kinds of TensorRT that may build for it.
        batch: smallest, best served and largest batch.
        compute_capabilities: for TensorRT-RTX, such as ("SM86",); none makes a plan for all that it supports.
        workspace_mib: scratch memory that a layer may use; None leaves it to TensorRT.
    """

    name: str
    description: str
    tensorrt: tuple[str, ...]
    batch: tuple[int, int, int]
    compute_capabilities: tuple[str, ...] = ()
    workspace_mib: int | None = None


def target_from_name(name: str) -> Target:
    """Reads `export/<name>.toml` of the workspace, else the shipped one.

    Raises:
        EngineError: no such target, not TOML, or an entry that is unknown or wrong.
    """
    path = find_in_room("export", f"{name}.toml")
    if path is None:
        known = {p.stem for root in (workspace(), shipped()) for p in (root / "export").glob("*.toml")}
        raise EngineError(f"there is no target '{name}'", allowed=", ".join(sorted(known)), fix="--target default")
    values = read_toml(path, EngineError)
    unknown = sorted(values.keys() - set(ENTRIES))
    if unknown:
        raise EngineError(
            f"{path} has entries that no target has", found=", ".join(unknown), allowed=", ".join(ENTRIES)
        )
    batch, kinds = values.get("batch"), values.get("tensorrt", list(KINDS))
    if not (isinstance(batch, list) and len(batch) == 3 and all(type(n) is int for n in batch)):
        raise EngineError(f"{path}: 'batch' cannot be read", found=batch, allowed="three numbers, as in [1, 8, 64]")
    if not (isinstance(kinds, list) and kinds and set(kinds) <= set(KINDS)):
        raise EngineError(f"{path}: 'tensorrt' cannot be read", found=kinds, allowed=", ".join(KINDS))
    return Target(
        name=name,
        description=str(values.get("description", "")),
        tensorrt=tuple(kinds),
        batch=require_batch(*batch),
        compute_capabilities=tuple(str(c) for c in values.get("compute_capabilities", [])),
        workspace_mib=values.get("workspace_mib"),
    )


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
