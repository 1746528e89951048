"""From a trained 32x32 ResNet to a checked INT8 TensorRT bundle for the edge."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolkit.benchmarking.bench import bench as bench
    from toolkit.benchmarking.result import Benchmark as Benchmark
    from toolkit.deployment.net import Net as Net
    from toolkit.deployment.net import load as load
    from toolkit.deployment.selftest import Selftest as Selftest
    from toolkit.deployment.selftest import selftest as selftest
    from toolkit.engine.bundle_engines import Built as Built
    from toolkit.engine.bundle_engines import build as build
    from toolkit.engine.planning import BuildOptions as BuildOptions
    from toolkit.errors import ToolkitError as ToolkitError
    from toolkit.exporting.calibrate import Calibration as Calibration
    from toolkit.exporting.calibrate import calibrate as calibrate
    from toolkit.exporting.export import export as export
    from toolkit.exporting.options import CalibrateOptions as CalibrateOptions
    from toolkit.exporting.options import ExportOptions as ExportOptions
    from toolkit.exporting.options import UserModel as UserModel
    from toolkit.exporting.result import Exported as Exported
    from toolkit.reporting.report import report as report
    from toolkit.reporting.result import Reported as Reported
    from toolkit.training.options import TrainingResult as TrainingResult
    from toolkit.training.options import TrainOptions as TrainOptions
    from toolkit.training.train import train as train
    from toolkit.verification.result import Verification as Verification
    from toolkit.verification.verify import verify as verify
    from toolkit.version import __version__ as __version__

# In the order of the walk: functions, what they are told, what they return.
_LIES_IN = {
    "train": "toolkit.training.train",
    "calibrate": "toolkit.exporting.calibrate",
    "export": "toolkit.exporting.export",
    "build": "toolkit.engine.bundle_engines",
    "verify": "toolkit.verification.verify",
    "bench": "toolkit.benchmarking.bench",
    "load": "toolkit.deployment.net",
    "report": "toolkit.reporting.report",
    "selftest": "toolkit.deployment.selftest",
    "TrainOptions": "toolkit.training.options",
    "CalibrateOptions": "toolkit.exporting.options",
    "ExportOptions": "toolkit.exporting.options",
    "UserModel": "toolkit.exporting.options",
    "BuildOptions": "toolkit.engine.planning",
    "TrainingResult": "toolkit.training.options",
    "Calibration": "toolkit.exporting.calibrate",
    "Exported": "toolkit.exporting.result",
    "Built": "toolkit.engine.bundle_engines",
    "Verification": "toolkit.verification.result",
    "Benchmark": "toolkit.benchmarking.result",
    "Net": "toolkit.deployment.net",
    "Reported": "toolkit.reporting.result",
    "Selftest": "toolkit.deployment.selftest",
    "ToolkitError": "toolkit.errors",
    "__version__": "toolkit.version",
}
__all__ = [
    "Benchmark",
    "BuildOptions",
    "Built",
    "CalibrateOptions",
    "Calibration",
    "ExportOptions",
    "Exported",
    "Net",
    "Reported",
    "Selftest",
    "ToolkitError",
    "TrainOptions",
    "TrainingResult",
    "UserModel",
    "Verification",
    "__version__",
    "bench",
    "build",
    "calibrate",
    "export",
    "load",
    "report",
    "selftest",
    "train",
    "verify",
]


def __getattr__(name: str) -> object:
    """`toolkit.load` and its like, imported when they are asked for: the command line starts without numpy."""
    if name not in _LIES_IN:
        raise AttributeError(f"module 'toolkit' has no attribute {name!r}")
    return getattr(importlib.import_module(_LIES_IN[name]), name)


def __dir__() -> list[str]:
    """What is offered, whether it has been asked for or not, and nothing else: the rooms are private."""
    return sorted(__all__)
