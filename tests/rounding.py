"""A processor on which the place of an image in a batch changes its last bits."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.contracts import Float32
from toolkit.runtime.ort.runner import OrtRunner


@pytest.fixture
def rounds_by_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime answers as if its kernels rounded otherwise at every place of a batch, and in every size of one."""

    def rounded(values: Float32) -> Float32:
        factors = 1 + np.arange(len(values), dtype=np.float32) * len(values) * np.float32(2**-22)
        return values * factors.reshape(-1, *[1] * (values.ndim - 1))

    logits, tensors = OrtRunner.logits, OrtRunner.tensors
    monkeypatch.setattr(OrtRunner, "logits", lambda self, images: rounded(logits(self, images)))
    monkeypatch.setattr(
        OrtRunner, "tensors", lambda self, images: {n: rounded(v) for n, v in tensors(self, images).items()}
    )
