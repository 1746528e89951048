"""Heavy packages are imported inside the function that needs them, under `needs`."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlparse

from toolkit.errors import MissingPackage

NAME = "trt-edge-toolkit"
EXTRAS = {
    "torch": "host",
    "onnx": "host",
    "onnx_ir": "host",
    "onnxruntime": "host",
    "safetensors": "host",
    "matplotlib": "host",
    "tensorboard": "tensorboard",
    "cuda": "trt",
    "pycuda": "pycuda",
    "cryptography": "sign",
}
ALONE = {"PIL": "pillow"}  # small: who reads one image on a device is not sent for PyTorch


# What packages do unasked is off before their first import, unless somebody set it. ONNX Runtime from 1.32 on looks its
# maker's servers up and keeps a device's number and a list of events in the user's cache, at every session. PyTorch's
# threads spin while they wait for one that another program keeps from its core: with a small net that is most of the
# time. A short spin is as fast where nobody else computes.
QUIET = {"ORT_DISABLE_TELEMETRY": "1", "GOMP_SPINCOUNT": "10000"}


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
        wanted = requirement(extra) if extra else ALONE.get(package, package)
        raise MissingPackage(
            f"{package} is needed to {purpose}, and cannot be imported here",
            found=error,
            fix=f"pip install {wanted}",
        ) from error


def requirement(extra: str = "") -> str:
    """What pip installs this package with an extra from: the clone or the wheel that it came from, else its name.

    The name alone would be looked up in an index, where this package, or this version of it, may not be.
    """
    editable, source = _source()
    wanted = shlex.quote(f"{source}[{extra}]" if extra else source)
    return (
        f"-e {wanted}" if editable else f"'{source}[{extra}]'" if extra and wanted == f"{source}[{extra}]" else wanted
    )


@cache
def _source() -> tuple[bool, str]:
    """Whether it is a clone, and where it lies, as pip wrote down at its installation (PEP 610)."""
    clone = Path(__file__).parent.parent
    try:
        said = distribution(NAME).read_text("direct_url.json")
    except PackageNotFoundError:
        said = None
    if said is None:
        return (True, str(clone)) if (clone / "pyproject.toml").is_file() else (False, NAME)
    found = json.loads(said)
    place = unquote(urlparse(str(found.get("url", ""))).path)
    editable = bool(found.get("dir_info", {}).get("editable"))
    return (editable, place) if Path(place).exists() else (False, NAME)
