"""CUDA's error codes as exceptions with a name, what they mean for somebody who runs an engine, and what to do.

Names, numbers and meanings are those of CUresult in cuda.h (CUDA Driver API, "Data types used by CUDA driver").
"""

from __future__ import annotations

from toolkit.errors import BackendUnavailable, ToolkitError


class CudaError(ToolkitError):
    """A call of CUDA failed.

    Attributes:
        meaning: the class's sentence for people.
        code: CUDA's name of the error, such as "CUDA_ERROR_INVALID_VALUE".
        call: the function of the driver API that reported it; work that was put into a stream earlier may be meant.
    """

    meaning = "A call of CUDA failed"

    def __init__(self, code: str, call: str, fix: str | None = None) -> None:
        self.code, self.call = code, call
        super().__init__(self.meaning, found=f"{code} from {call}", fix=fix)


class CudaOutOfMemory(CudaError):
    """The GPU has no memory left for this."""

    meaning = "The GPU has no memory left for this"


class CudaNotInitialized(CudaError):
    """CUDA cannot be used in this process, most likely because it was forked after CUDA was used."""

    meaning = "CUDA cannot be used in this process, most likely because it was forked after CUDA was used"


class CudaContextLost(CudaError):
    """The CUDA context of this process is gone."""

    meaning = "The CUDA context of this process is gone"


class CudaFault(CudaError):
    """A kernel failed on the GPU, and nothing more can run in this process."""

    meaning = "A kernel failed on the GPU, and nothing more can run in this process"


class CudaHardwareFault(CudaError):
    """The GPU reports a hardware fault."""

    meaning = "The GPU reports a hardware fault"


class CudaCaptureError(CudaError):
    """What a CUDA graph was to be made of cannot be captured."""

    meaning = "What a CUDA graph was to be made of cannot be captured"


class CudaUnavailable(CudaError, BackendUnavailable):
    """CUDA cannot be used here."""

    meaning = "CUDA cannot be used here"


_RESTART = "end this process and start a new one; if it comes again, build the engine again with `toolkit.build`"

# cuda.h's name: the exception, and what to do.
_KINDS: dict[str, tuple[type[CudaError], str | None]] = {
    "CUDA_ERROR_OUT_OF_MEMORY": (
        CudaOutOfMemory,
        "end other programs that use the GPU, give smaller batches, or fewer contexts",
    ),
    "CUDA_ERROR_NOT_INITIALIZED": (CudaNotInitialized, "start workers with multiprocessing's 'spawn'"),
    "CUDA_ERROR_DEINITIALIZED": (CudaContextLost, "close runners before the program ends"),
    "CUDA_ERROR_CONTEXT_IS_DESTROYED": (CudaContextLost, "do not reset the device while a runner is open"),
    "CUDA_ERROR_INVALID_CONTEXT": (CudaContextLost, "do not reset the device while a runner is open"),
    "CUDA_ERROR_NO_DEVICE": (CudaUnavailable, "look at what works on this machine"),
    "CUDA_ERROR_INVALID_DEVICE": (CudaUnavailable, "look at what works on this machine"),
    "CUDA_ERROR_DEVICE_UNAVAILABLE": (CudaUnavailable, "end the program that holds the GPU exclusively"),
    "CUDA_ERROR_STUB_LIBRARY": (CudaUnavailable, "take the CUDA toolkit's stubs folder out of LD_LIBRARY_PATH"),
    "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH": (CudaUnavailable, "reboot after the driver's update"),
    "CUDA_ERROR_SYSTEM_NOT_READY": (CudaUnavailable, "look at what works on this machine"),
    "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE": (CudaUnavailable, "take the compat folder out of LD_LIBRARY_PATH"),
    "CUDA_ERROR_NOT_SUPPORTED": (CudaUnavailable, None),
    "CUDA_ERROR_ILLEGAL_ADDRESS": (CudaFault, _RESTART),
    "CUDA_ERROR_MISALIGNED_ADDRESS": (CudaFault, _RESTART),
    "CUDA_ERROR_ILLEGAL_INSTRUCTION": (CudaFault, _RESTART),
    "CUDA_ERROR_LAUNCH_FAILED": (CudaFault, _RESTART),
    "CUDA_ERROR_LAUNCH_TIMEOUT": (CudaFault, _RESTART),
    "CUDA_ERROR_ASSERT": (CudaFault, _RESTART),
    "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES": (CudaOutOfMemory, "end other programs that use the GPU"),
    "CUDA_ERROR_ECC_UNCORRECTABLE": (CudaHardwareFault, "look at nvidia-smi and dmesg; reboot"),
    "CUDA_ERROR_HARDWARE_STACK_ERROR": (CudaHardwareFault, "look at dmesg; reboot"),
    "CUDA_ERROR_UNKNOWN": (CudaError, "look at what works on this machine"),
}


def cuda_error(code: str, call: str) -> CudaError:
    """The exception of a code by its name in cuda.h; a code that is not known keeps its name in the text."""
    kind, fix = _KINDS.get(code, (CudaError, None))
    if code.startswith("CUDA_ERROR_STREAM_CAPTURE") or code == "CUDA_ERROR_CAPTURED_EVENT":
        kind = CudaCaptureError
    return kind(code, call, fix)
