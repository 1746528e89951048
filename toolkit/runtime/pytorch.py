"""PyTorch in eager mode as a runner, on the CPU or a CUDA device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from toolkit.contracts import Float32, UInt8
from toolkit.lazy import needs
from toolkit.runtime.runner import ClosesItself

if TYPE_CHECKING:
    import torch


class TorchRunner(ClosesItself):
    """Runs a module that takes uint8 (N, H, W, C) and gives logits; float32, channels_last unless it is `contiguous`.

    Args:
        classifier: moved to `device` and put into evaluation mode.
        device: "cpu" or "cuda".
    """

    name = "torch"

    def __init__(self, classifier: torch.nn.Module, *, device: str = "cpu", label: str = "model") -> None:
        with needs("run the PyTorch model"):
            import torch
        self._torch = torch
        self.device = torch.device(device)
        self.classifier = classifier.to(self.device).eval()
        # The conversion to channels_last halves the time of the 64-64-64 net on the CPU (159 to 89 ms at batch 64).
        # Some nets that we did not write fail in it; those say that they want plain memory.
        if not getattr(classifier, "contiguous", False):
            self.classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        where = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        self.description = f"PyTorch {torch.__version__} {where} {label}"

    def logits(self, images_nhwc: UInt8) -> Float32:
        """Images uint8 (N, H, W, C) to logits float32 (N, classes)."""
        with self._torch.inference_mode():
            # A copy: a read-only array is no tensor, nor is a mirrored view.
            images = self._torch.tensor(np.ascontiguousarray(images_nhwc)).to(self.device)
            logits: Float32 = self.classifier(images).float().cpu().numpy()
        return logits
