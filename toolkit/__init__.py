"""From a trained 32x32 ResNet to a checked INT8 TensorRT bundle for the edge."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolkit.benchmarking.bench import bench as bench
    from toolkit.deployment.net import load as load
    from toolkit.errors import ToolkitError as ToolkitError
    from toolkit.verification.verify import verify as verify
    from toolkit.version import __version__ as __version__

_LIES_IN = {
    "ToolkitError": "toolkit.errors",
    "__version__": "toolkit.version",
    "bench": "toolkit.benchmarking.bench",
    "load": "toolkit.deployment.net",
    "verify": "toolkit.verification.verify",
}
__all__ = ["ToolkitError", "__version__", "bench", "load", "verify"]


def __getattr__(name: str) -> object:
    """`toolkit.load` and its like, imported when they are asked for: the command line starts without numpy."""
    if name not in _LIES_IN:
        raise AttributeError(f"module 'toolkit' has no attribute {name!r}")
    return getattr(importlib.import_module(_LIES_IN[name]), name)


def __dir__() -> list[str]:
    """What is offered, whether it has been asked for or not."""
    return sorted({*globals(), *__all__})
