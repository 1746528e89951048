"""From a trained 32x32 ResNet to a checked INT8 TensorRT bundle for the edge."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolkit.benchmarking.bench import bench as bench
    from toolkit.deployment.net import load as load
    from toolkit.verification.verify import verify as verify

__version__ = "0.1.0"
__all__ = ["__version__", "bench", "load", "verify"]


def __getattr__(name: str) -> object:
    """`toolkit.load` and its like, imported when they are asked for: the command line starts without numpy."""
    if name == "load":
        from toolkit.deployment.net import load

        return load
    if name == "bench":
        from toolkit.benchmarking.bench import bench

        return bench
    if name == "verify":
        from toolkit.verification.verify import verify

        return verify
    raise AttributeError(f"module 'toolkit' has no attribute {name!r}")
