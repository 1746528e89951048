"""Which implementation of the CUDA seam is used here, and why."""

from __future__ import annotations

from collections.abc import Callable

from toolkit.errors import BackendUnavailable, ToolkitError
from toolkit.runtime.cuda.cuda_python import CudaPython
from toolkit.runtime.cuda.libcuda import choose_wait, require_known_wait
from toolkit.runtime.cuda.pycuda_ import PyCuda
from toolkit.runtime.cuda.seam import Cuda
from toolkit.runtime.driver import Driver, probe_driver

CHOICES = ("auto", "cuda-python", "pycuda")
_IMPLEMENTATIONS: dict[str, Callable[[str], Cuda]] = {"cuda-python": CudaPython, "pycuda": PyCuda}
_FIX = "pip install cuda-python (CUDA graphs), or pip install pycuda (compiles on every JetPack)"


def open_cuda(choice: str = "auto", driver: Driver | None = None) -> Cuda:
    """CUDA on the first GPU; `reason` of the answer says why this implementation.

    Args:
        choice: "cuda-python", "pycuda", or "auto": cuda-python where it imports, because it has CUDA graphs.
        driver: stands in for `probe_driver()`.

    Raises:
        BackendUnavailable: no driver, no GPU, or none of the packages; with what each said.
        ToolkitError: an unknown choice.
    """
    if choice not in CHOICES:
        raise ToolkitError("unknown implementation of CUDA", found=choice, allowed=", ".join(CHOICES))
    driver = probe_driver() if driver is None else driver
    if not driver.available:
        raise BackendUnavailable(
            "CUDA cannot be used here", found=driver.reason, fix="look at what works on this machine"
        )
    names = tuple(_IMPLEMENTATIONS) if choice == "auto" else (choice,)
    absent: list[str] = []
    for name in names:
        reason = "asked for" if choice != "auto" else "; ".join(absent) or "it has CUDA graphs"
        try:
            return _IMPLEMENTATIONS[name](reason)
        except ImportError as error:
            absent.append(f"{name} cannot be imported: {error}")
    raise BackendUnavailable("Python cannot speak to CUDA here", found="; ".join(absent), fix=_FIX)


def wait_for_gpu_by(wanted: str) -> None:
    """Chooses how every thread of this process waits for the GPU, best before anything uses it; "auto" chooses nothing.

    Raises:
        BackendUnavailable: there is no GPU to wait for. ToolkitError: an unknown way, or too late to choose it.
    """
    if wanted == "auto":
        return
    require_known_wait(wanted)
    driver = probe_driver()
    if not driver.available:
        raise BackendUnavailable(
            f"there is no GPU to wait for with {wanted!r}", found=driver.reason, fix="leave `wait=` out here"
        )
    choose_wait(wanted)
