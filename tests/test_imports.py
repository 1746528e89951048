"""Claims about what importing costs: heavy packages stay out until something needs them."""

from __future__ import annotations

import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import toolkit
from tests.warm import python
from toolkit.errors import ToolkitError
from toolkit.runtime.trt.module import MODULES
from toolkit.storage.files import read_toml

HEAVY = {"torch", "onnx", "onnxruntime", "PIL", "safetensors", "matplotlib", "cuda", "pycuda", "pandas", "scipy"}
ROOT = Path(toolkit.__file__).parents[1]
# The rooms of PyTorch import it, but for the card; __main__ runs the command line.
LIGHT = sorted(
    module.name
    for module in pkgutil.walk_packages(toolkit.__path__, "toolkit.")
    if not module.name.startswith(("toolkit.models", "toolkit.training", "toolkit.shipped", "toolkit.__main__"))
    or module.name == "toolkit.models.card"
)


def test_every_name_of_tensorrt_is_banned_at_module_level() -> None:
    lint = read_toml(ROOT / "pyproject.toml", ToolkitError)["tool"]["ruff"]["lint"]
    assert set(MODULES) <= set(lint["flake8-tidy-imports"]["banned-module-level-imports"])


def _imported_with(*modules: str, then: str = "") -> set[str]:
    """The modules that a fresh interpreter holds after these imports and what it does then."""
    code = f"import sys, {', '.join(modules)}\n{then}\nprint(*sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def _heavy(names: set[str]) -> set[str]:
    return {name for name in names if name in HEAVY or name.startswith("tensorrt")}


def test_the_list_of_modules_is_the_whole_package() -> None:
    assert {
        "toolkit.cli",
        "toolkit.bundle",
        "toolkit.compare.parity",
        "toolkit.timing.latency",
        "toolkit.doctor.checks",
    } <= set(LIGHT)
    for room in ("runtime", "engine", "calibration", "data"):
        assert sum(name.startswith(f"toolkit.{room}.") for name in LIGHT) >= 4


def test_everything_but_the_models_imports_without_a_heavy_package() -> None:
    found = _imported_with("toolkit", *LIGHT)
    assert _heavy(found) == set()
    assert "numpy" in found


def test_the_command_line_alone_imports_neither_numpy_nor_rich() -> None:
    found = _imported_with("toolkit.cli")
    assert "typer" in found
    assert _heavy(found) | (found & {"numpy", "rich"}) == set()


TRAINING = """
import numpy, torch
from toolkit.contracts import LabeledImages, Preprocessing
from toolkit.models.checkpoint import classifier_from_config
from toolkit.models.resnet import ResNetConfig
from toolkit.training.loop import Recipe, Trainer
images = LabeledImages(numpy.zeros((20, 8, 8, 3), numpy.uint8), numpy.arange(20) % 2, ("a", "b"), "zeros")
config = ResNetConfig(widths=(8,), blocks=(1,), strides=(1,), classes=2)
net = classifier_from_config(config, Preprocessing(8, 8, 3, (0.5,) * 3, (0.25,) * 3))
list(Trainer(net, images, Recipe(epochs=1, batch=8, amp="off"), torch.device("cpu")).epochs())
"""


@pytest.mark.slow
def test_training_is_pytorch_and_needs_neither_onnx_nor_what_compiles_programs() -> None:
    found = _imported_with("toolkit.models.resnet", "toolkit.training.session", then=TRAINING)
    assert {"torch", "torch.optim"} <= found
    assert found & {"onnx", "onnxruntime", "PIL", "torch._dynamo", "torch._inductor", "sympy"} == set()


@pytest.mark.slow
def test_every_benchmark_imports_what_the_package_has() -> None:
    names = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py"))
    assert "walk" in names
    code = f"import {', '.join(f'benchmarks.{name}' for name in names)}"
    done = subprocess.run([*python(), "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
