"""Images held out of those that calibrate, and what a graph answers on them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from toolkit.compare.parity import logits_in_batches
from toolkit.contracts import Float32, UInt8, order_by_content, sha256_of_each
from toolkit.runtime.ort.runner import OrtRunner

if TYPE_CHECKING:
    import onnx

HELD_OUT_SHARE, MOST_HELD_OUT = 4, 256  # one image in four, 256 at most


def logits_of(
    model: onnx.ModelProto, images_nhwc: UInt8, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> Float32:
    """Logits float32 (N, classes) of a graph in ONNX Runtime; each image's are the same bits for any order of them."""
    order = order_by_content(images_nhwc)
    with OrtRunner(model.SerializeToString(), label="a candidate") as runner:
        logits: Float32 = logits_in_batches(runner, images_nhwc[order], on_progress)[np.argsort(order)]
    return logits


def held_out(images_nhwc: UInt8) -> NDArray[np.bool_]:
    """A bool (N,) mask: one image in four, 256 at most, by content: the same in any order, equal images together."""
    digests = sha256_of_each(images_nhwc)
    different = sorted(set(digests), key=lambda digest: hashlib.sha256(b"held out" + digest).digest())
    chosen = set(different[: min(len(different) // HELD_OUT_SHARE, MOST_HELD_OUT)])
    return np.array([digest in chosen for digest in digests])
