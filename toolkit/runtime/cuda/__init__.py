"""The CUDA seam: memory, streams, events and graphs behind one small protocol, on the driver API."""

from __future__ import annotations

from toolkit.runtime.cuda.errors import CudaError, CudaOutOfMemory
from toolkit.runtime.cuda.opening import open_cuda, wait_for_gpu_by
from toolkit.runtime.cuda.seam import Cuda, Pinned, Stream

__all__ = ["Cuda", "CudaError", "CudaOutOfMemory", "Pinned", "Stream", "open_cuda", "wait_for_gpu_by"]
