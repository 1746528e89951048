"""Heavy packages are imported inside the function that needs them, under `needs`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from toolkit.errors import MissingPackage

EXTRAS = {
    "torch": "host",
    "onnx": "host",
    "onnx_ir": "host",
    "onnxruntime": "host",
    "safetensors": "host",
    "PIL": "host",
    "matplotlib": "host",
    "tensorboard": "tensorboard",
    "cuda": "trt",
    "pycuda": "pycuda",
    "cryptography": "sign",
}


# What packages do unasked is off before their first import, unless somebody set it. ONNX Runtime from 1.32 on looks its
# maker's servers up and keeps a device's number and a list of events in the user's cache, at every session.
QUIET = {"ORT_DISABLE_TELEMETRY": "1"}


@contextmanager
def needs(purpose: str) -> Iterator[None]:
    """Turns an ImportError of a third-party package into the pip command that mends it.

    Args:
        purpose: what the package is needed for, to be read after "... is needed to".

    Raises:
        MissingPackage: the import inside the `with` block failed.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        yield
    except ImportError as error:
        package = (error.name or str(error)).split(".")[0]
        if package == "toolkit":
            raise
        extra = EXTRAS.get(package)
        wanted = f"'trt-edge-toolkit[{extra}]'" if extra else package
        raise MissingPackage(
            f"{package} is needed to {purpose}, and cannot be imported here",
            found=error,
            fix=f"pip install {wanted}",
        ) from error
