"""Which runner is meant: its backend, the variant of its file, which of two bundles it is of; and its name in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

HOST_BACKENDS = ("torch", "ort")  # they compute on the CPU
Side = Literal["", "against", "B"]
FIRST: Final = ""
AGAINST: Final = "against"  # of the bundle that bench compares with
SECOND: Final = "B"  # of the bundle that verify compares with
_AGAINST, _SECOND, _WITHOUT_GRAPH = " (against)", "B ", " without graph"


@dataclass(frozen=True, order=True)
class RunnerId:
    """One runner among those that are opened together. Documents and tables have `str` of it, as "ort int8 (against)".

    Attributes:
        backend: such as "trt"; for a runner or file of the user's what they call it.
        variant: of its file, a key of `toolkit.bundle.manifest.VARIANTS`; "" for a backend as a whole, and where it is
            not known.
        side: the bundle that it is of.
        graph: False where each call is enqueued anew though a CUDA graph could be replayed.
    """

    backend: str
    variant: str = ""
    side: Side = FIRST
    graph: bool = True

    def __str__(self) -> str:
        name = f"{self.backend} {self.variant}" if self.variant else self.backend
        name += "" if self.graph else _WITHOUT_GRAPH
        return {FIRST: name, AGAINST: name + _AGAINST, SECOND: _SECOND + name}[self.side]

    @classmethod
    def from_name(cls, name: str) -> RunnerId:
        """Reads the name of a saved document, or what a user calls a runner; `str` gives any text back as it was."""
        side: Side = AGAINST if name.endswith(_AGAINST) else SECOND if name.startswith(_SECOND) else FIRST
        name = {FIRST: name, AGAINST: name.removesuffix(_AGAINST), SECOND: name.removeprefix(_SECOND)}[side]
        bare = name.removesuffix(_WITHOUT_GRAPH)
        backend, space, variant = bare.rpartition(" ")
        return cls(*((backend, variant) if space and variant else (bare, "")), side=side, graph=bare == name)

    @property
    def on_device(self) -> bool:
        """It computes on a GPU, as far as its backend says."""
        return self.backend not in HOST_BACKENDS
