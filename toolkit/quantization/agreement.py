"""How far a quantized graph is from the fp32 one, without labels: on images held out of those that calibrate."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from toolkit.compare.parity import answers_of, flips_between, logits_in_batches, relative_l2
from toolkit.contracts import Float32, UInt8, order_by_content, sha256_of_each
from toolkit.runtime.ort.runner import OrtRunner

if TYPE_CHECKING:
    import onnx

HELD_OUT_SHARE, MOST_HELD_OUT = 4, 256  # one image in four, 256 at most


@dataclass(frozen=True)
class Agreement:
    """A candidate's logits against fp32's on the same images.

    Attributes:
        relative_l2: ||candidate - fp32|| / ||fp32|| over all logits; it ranks quantizers where flips cannot.
        flips: images whose top answer differs, of `images`.
    """

    relative_l2: float
    flips: int
    images: int

    @property
    def percent(self) -> float:
        """Images with the same top answer, in percent."""
        return 100 * (1 - self.flips / self.images)

    @property
    def order(self) -> tuple[float, int]:
        """What candidates are sorted by: the distance of the logits first, then flips."""
        return self.relative_l2, self.flips


def agreement_from_logits(expected: Float32, got: Float32) -> Agreement:
    """Compares logits (N, classes) as `toolkit.compare.parity` does; the same bits for any order of the rows."""
    flips = flips_between(answers_of(expected), answers_of(got))
    return Agreement(relative_l2(expected, got), flips, len(got))


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


def as_row(agreement: Agreement) -> dict[str, Any]:
    """For JSON; a distance that is not finite becomes null."""
    distance = agreement.relative_l2
    return {
        "relative_l2": distance if np.isfinite(distance) else None,
        "flips": agreement.flips,
        "images": agreement.images,
    }
