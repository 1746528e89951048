"""Claims about what importing costs: heavy packages stay out until something needs them."""

from __future__ import annotations

import ast
import os
import pkgutil
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import toolkit
from tests.sources import nodes_of
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


def _imports_of(file: Path, modules: set[str]) -> set[str]:
    """Modules of ours that a file names anywhere: at its top, in its functions, for types."""
    found = set()
    for node in nodes_of(file):
        if isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{name.name}" for name in node.names} & modules
            found |= inside or {node.module}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return found & modules


def test_no_files_import_each_other_in_a_circle_inside_a_room_either() -> None:
    files = {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in ROOT.glob("toolkit/**/*.py")}
    files = {name.removesuffix(".__init__"): file for name, file in files.items()}
    del files["toolkit"]  # it points down, when somebody asks
    imports = {name: _imports_of(file, set(files)) for name, file in files.items()}
    assert imports["toolkit.bundle.reading"] >= {
        "toolkit.bundle.sealing",
        "toolkit.bundle.unpacking",
    }  # inside a function
    TopologicalSorter(imports).prepare()  # raises CycleError


def _imported_with(*modules: str) -> set[str]:
    """The modules that a fresh interpreter holds after these imports."""
    code = f"import sys, {', '.join(modules)}\nprint(*sys.modules)"
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


@pytest.mark.slow
def test_the_rooms_of_models_and_training_are_pytorch_and_need_no_onnx() -> None:
    found = _imported_with("toolkit.models.resnet", "toolkit.training.session")
    assert "torch" in found
    assert found & {"onnx", "onnxruntime", "PIL"} == set()


@pytest.mark.slow
def test_every_benchmark_imports_what_the_package_has() -> None:
    names = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py"))
    assert "walk" in names
    code = f"import {', '.join(f'benchmarks.{name}' for name in names)}"
    done = subprocess.run([*python(), "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
