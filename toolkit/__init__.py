"""From a trained 32x32 ResNet to a checked INT8 TensorRT bundle for the edge."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolkit.bundle.benching import bench as bench
    from toolkit.bundle.net import load as load
    from toolkit.bundle.verifying import verify as verify

__version__ = "0.1.0"
__all__ = ["__version__", "bench", "load", "verify"]


def __getattr__(name: str) -> object:
    """`toolkit.load` and its like, imported when they are asked for: the command line starts without numpy."""
    if name == "load":
        from toolkit.bundle.net import load

        return load
    if name == "bench":
        from toolkit.bundle.benching import bench

        return bench
    if name == "verify":
        from toolkit.bundle.verifying import verify

        return verify
    raise AttributeError(f"module 'toolkit' has no attribute {name!r}")
