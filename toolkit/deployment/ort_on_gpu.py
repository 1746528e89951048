"""ONNX Runtime's GPU providers over a bundle's files: CUDA, and TensorRT with caches of this user."""

from __future__ import annotations

from toolkit.bundle.manifest import VARIANTS
from toolkit.bundle.reading import Bundle
from toolkit.errors import BackendUnavailable, MissingPackage
from toolkit.lazy import needs
from toolkit.runtime.driver import probe_driver
from toolkit.runtime.runner import Runner
from toolkit.storage.cache import private_folder
from toolkit.target import DEFAULT_TARGET, target_from_name


def open_ort_cuda(bundle: Bundle, precision: str) -> Runner:
    """ONNX Runtime's CUDA provider with the bundle's file of a precision.

    Raises:
        BackendUnavailable: it is not installed, or there is no GPU. ToolkitError: it does not take the whole file.
    """
    from toolkit.runtime.ort.runner import CUDA, OrtRunner

    try:
        optimize = VARIANTS[precision].optimize
        return OrtRunner(bundle.onnx(precision), provider=CUDA, optimize=optimize)
    except MissingPackage as error:
        raise BackendUnavailable(error.what, fix=error.fix) from error


def open_ort_trt(bundle: Bundle, precision: str) -> Runner:
    """ONNX Runtime's TensorRT provider; it builds its engines itself, for the batches of the target `default`.

    TensorRT gets the graph as it stands: ONNX Runtime's own rewrites around Q/DQ are made for its own kernels.

    Raises:
        BackendUnavailable: it is not installed, or there is no GPU. ToolkitError: it does not take the whole file.
    """
    from toolkit.runtime.ort.runner import TENSORRT, OrtRunner, require_provider
    from toolkit.runtime.ort.tensorrt_options import tensorrt_options

    try:
        with needs("run ONNX files"):
            import onnxruntime
        require_provider(onnxruntime, TENSORRT)
        model, batch = bundle.onnx(precision), target_from_name(DEFAULT_TARGET).batch
        types, cache = VARIANTS[precision].builder_flags, private_folder("ort-trt")
        options = tensorrt_options(model, types, batch, cache, probe_driver().devices[0].name)
        return OrtRunner(model, provider=TENSORRT, provider_options=options, largest_batch=batch[2], optimize=False)
    except MissingPackage as error:
        raise BackendUnavailable(error.what, fix=error.fix) from error
