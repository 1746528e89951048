"""What a runner knows of its CUDA graphs: whether they are used, and what each was captured from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from toolkit.contracts import Float32
from toolkit.runtime.trt.engine import LoadedEngine

Key = tuple[int, int]  # how many images, and where in device memory; 0: they come from the host


@dataclass
class GraphUse:
    """Whether calls of a runner are replayed from graphs; `off` says why not, in a clause.

    `own` is set where TensorRT-RTX captures and replays by itself; `full` and `alone` where only some calls are: `full`
    says how many batch sizes have graphs.
    """

    off: str = ""
    own: bool = False
    full: int = 0
    alone: bool = False

    def __str__(self) -> str:
        if self.own:
            return "TensorRT-RTX's own"
        if self.off:
            return f"off, {self.off}"
        if self.alone:
            return "on, for one batch size at a time: the plan's profile serves one execution context"
        return f"on, for the first {self.full} batch sizes" if self.full else "on"


def graph_use(engine: LoadedEngine, wanted: bool) -> GraphUse:
    """What an engine and the CUDA that drives it let a runner begin with."""
    if not wanted:
        return GraphUse("not asked for")
    if engine.is_rtx and not engine.leaves_memory_to_caller:
        return GraphUse(own=True)
    return GraphUse("" if engine.cuda.has_graphs else f"{engine.cuda.name} has none")


@dataclass
class Execution:
    """An execution context, what it is set to, and what the graph captured from it is of."""

    context: Any
    bound: Key | None = None
    graph_of: Key | None = None


@dataclass
class Replay:
    """A captured call: images go into `pixels`, a view of pinned memory; `fresh` copies the answers out of another."""

    execution: Execution
    pixels: NDArray[Any]
    fresh: Callable[[], Float32]
    whole: Any
    compute: Any = None
