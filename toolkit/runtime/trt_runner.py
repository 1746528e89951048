"""TensorRT engines as runners: images in host or device memory, CUDA graphs, several threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toolkit.contracts import Float32
from toolkit.errors import BackendUnavailable
from toolkit.runtime.runner import ClosesItself, Phases


class TrtRunner(ClosesItself):
    """Runs a plan on this machine's first GPU.

    Attributes:
        description: TensorRT, GPU, plan, CUDA package, and whether CUDA graphs are used.
        graph: "" where calls are replayed from CUDA graphs, else the reason why not.
    """

    name = "trt"

    def __init__(self, engine: Path, *, graph: bool = True, cuda: str = "auto", contexts: int = 4) -> None:
        raise BackendUnavailable("not written yet")

    def logits(self, images_nhwc: Any) -> Float32:
        """uint8 (N, H, W, C) in host or device memory to logits float32 (N, classes), a fresh array."""
        raise NotImplementedError

    def phases(self, images_nhwc: Any) -> Phases:
        """The parts of one call on the device."""
        raise NotImplementedError

    def without_graph(self) -> TrtRunner:
        """The same engine without CUDA graphs; closed on its own."""
        raise NotImplementedError
