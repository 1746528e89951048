"""A runner that runs nothing: fixed logits from the pixels, for tests and for measuring what surrounds an engine."""

from __future__ import annotations

import numpy as np

from toolkit.contracts import Float32, UInt8
from toolkit.runtime.runner import ClosesItself


class NullRunner(ClosesItself):
    """Answers each image with logits that depend on its pixels only: (sum of pixels) mod classes is the top one."""

    name = "null"

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.description = f"null ({classes} classes)"

    def logits(self, images_nhwc: UInt8) -> Float32:
        """Images uint8 (N, H, W, C) to logits float32 (N, classes): 1 for the top one, else 0."""
        top = images_nhwc.reshape(len(images_nhwc), -1).sum(axis=1, dtype=np.int64) % self.classes
        logits: Float32 = np.eye(self.classes, dtype=np.float32)[top]
        return logits
