"""Numbers that no training leaves: below what a GPU computes with, channels that are nothing but zeros."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from toolkit.compare.doubts import Doubt
from toolkit.contracts import Float32
from toolkit.graph.int8_layers import weights_of_layers

if TYPE_CHECKING:
    import onnx

# GPUs and TensorRT's kernels flush what is below to zero; CPUs need not, so that the two would answer differently.
SMALLEST = float(np.finfo(np.float32).tiny)


def doubts_in_numbers(logits: Float32) -> list[Doubt]:
    """Logits float32 (N, classes) that a GPU takes for zeros."""
    words = _too_small("the logits", logits)
    return [Doubt("numbers", words)] if words else []


def notes_of_weights(graph: onnx.ModelProto) -> list[str]:
    """A sentence for each layer whose weights a GPU takes for zeros, or some of whose output channels are zeros.

    Neither is refused: who prunes makes zeros, and weight decay makes blocks so small that they do nothing.
    """
    notes = []
    for layer, (_, values) in weights_of_layers(graph).items():
        if words := _too_small(f"the weights of '{layer}'", values):
            notes.append(f"Mind that {words}.")
        zeros = int((~values.reshape(len(values), -1).any(axis=1)).sum())
        if zeros:
            notes.append(f"{zeros} of {len(values)} channels of '{layer}' have no weight but zero.")
    return notes


def _too_small(what: str, values: Float32) -> str:
    largest = float(np.abs(values).max(initial=0.0))
    if not 0 < largest < SMALLEST:
        return ""
    return f"{what} reach {largest:.2g}, and a GPU takes all below {SMALLEST:.2g} for zeros"
