"""Where a run computes: which device, in which precision, with which promises about repeating itself."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from toolkit.errors import ToolkitError

# malloc.h of glibc
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def device_from_name(name: str) -> torch.device:
    """`auto`, `cpu` or `cuda` to a device that is here.

    Raises:
        ToolkitError: CUDA was asked for and is not here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda"):
        raise ToolkitError("unknown device", found=name, allowed="auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ToolkitError(
            "this PyTorch finds no CUDA device",
            found=f"torch {torch.__version__}",
            fix="`device='cpu'`, or look at what works on this machine",
        )
    return torch.device(name)


def computes_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is native: a CUDA device of compute capability 8, or AVX512-BF16 or AMX on the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)


def channels_last(module: nn.Module) -> nn.Module:
    """The same module with its convolutions' weights in NHWC order: twice as fast on the CPU, and on tensor cores.

    One that wants plain memory stays as it is.
    """
    if getattr(module, "contiguous", False):
        return module
    moved: nn.Module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """PyTorch's deterministic algorithms for a block, and as it was after it."""
    if not wanted:
        yield
        return
    before, tuned = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    # cuBLAS reads this when it makes its first handle; PyTorch refuses matrix products without it.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.backends.cudnn.benchmark = tuned


def keep_freed_memory() -> None:
    """Makes glibc keep what a training step frees, instead of giving it back and faulting it in again every step.

    By default malloc maps large blocks anew each time, and every page of them costs a fault. Measured with resnet32x32
    at batch 128 on two cores: 285 ms a step without and 246 ms with the thresholds raised; 29,000 to 45,000 page faults
    a step against 8,000. MALLOC_MMAP_THRESHOLD_ and its siblings in the environment do the same, and win here.
    Elsewhere than on Linux with glibc nothing happens.
    """
    if not sys.platform.startswith("linux") or any(name.startswith("MALLOC_") for name in os.environ):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # musl
        return
    for parameter in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
        mallopt(parameter, 1 << 30)
