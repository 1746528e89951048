"""From a checkpoint's names to a network's: wrappers, prefixes, and what a training script keeps beside its network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

WRAPPERS = ("module.", "_orig_mod.")  # DataParallel and torch.compile put them before any module's names
LOSSES = ("criterion.", "loss")  # what a training script keeps beside its network
# Counters that decide nothing in evaluation mode, and that old checkpoints lack.
HARMLESS = ("num_batches_tracked", "n_averaged")
COUNTERS = ("steps", "step", "initted", "decay", "num_updates")  # what averages keep of themselves, one number each


@dataclass(frozen=True)
class Renaming:
    """From a checkpoint's names to the network's.

    Attributes:
        wrappers: taken out wherever they stand.
        prefix: what stands before all that the network has, once those are out.
    """

    wrappers: tuple[str, ...]
    prefix: str

    def of(self, name: str) -> str | None:
        """The network's name; None for what stands beside the network."""
        for wrapper in self.wrappers:
            name = name.replace(wrapper, "")
        return name.removeprefix(self.prefix) if name.startswith(self.prefix) else None

    def of_all(self, tensors: dict[str, Tensor], wanted: set[str]) -> tuple[dict[str, Tensor], list[str]]:
        """The network's tensors, and the names of those that stand beside it: a loss with weights, a teacher."""
        inside = {new: value for name, value in tensors.items() if (new := self.of(name)) is not None}
        left = [name for name in tensors if self.of(name) is None]
        losses = [name for name in inside if name.startswith(LOSSES) and name not in wanted]
        return {name: value for name, value in inside.items() if name not in losses}, left + losses

    def of_modules(self, versions: dict[str, Any]) -> dict[str, Any]:
        """The same for names of modules, which end before the dot."""
        named = {self.of(f"{name}." if name else ""): value for name, value in versions.items()}
        whole = {"": versions[""]} if "" in versions else {}
        return {**whole, **{name.rstrip("."): value for name, value in named.items() if name is not None}}


def renaming_to(names: set[str], wanted: set[str]) -> Renaming:
    """How tensors come to the network's names: without what wrappers put in, and what stands before all of them."""
    wrappers = tuple(w for w in WRAPPERS if any(w in n for n in names) and not any(w in n for n in wanted))
    plain = {Renaming(wrappers, "").of(name) or "" for name in names}
    return Renaming(wrappers, _prefix(plain, {name for name in wanted if not name.endswith(HARMLESS)}))


def _prefix(names: set[str], needed: set[str]) -> str:
    """What stands before every name that the network needs; "" where nothing does, or nothing fits."""
    if not needed or needed <= names:
        return ""
    first = min(needed)
    ends = [name.removesuffix(first) for name in names if name.endswith(f".{first}")]
    whole = [prefix for prefix in ends if all(prefix + name in names for name in needed)]
    usual = [word for word in ("model.", "net.") if all(name.startswith(word) for name in names)]
    return min(whole, key=len) if whole else next((w for w in usual if not any(n.startswith(w) for n in needed)), "")
