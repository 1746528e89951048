"""The wheel in a bare venv: what a device gets, and what it says about what it lacks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a venv with the wheel and its plain dependencies only."""
    folder = tmp_path_factory.mktemp("bare")
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv/bin/python"
    [wheel] = folder.glob("*.whl")
    done = subprocess.run([python, "-m", "pip", "install", "--quiet", str(wheel)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return python


def toolkit(python: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of the installed wheel, in a folder of its own."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    return subprocess.run(
        [str(python.parent / "toolkit"), *words], cwd=folder, env=environment, capture_output=True, text=True
    )


def test_a_device_gets_numpy_and_typer_and_nothing_heavy(bare: Path) -> None:
    done = subprocess.run([bare, "-m", "pip", "list", "--format=json"], capture_output=True, text=True, check=True)
    names = {entry["name"].lower().replace("_", "-") for entry in json.loads(done.stdout)}
    assert {"numpy", "typer", "trt-edge-toolkit"} <= names
    assert not names & {"torch", "onnx", "onnxruntime", "safetensors", "pillow", "tensorrt"}


def test_help_works_in_a_bare_venv(bare: Path, tmp_path: Path) -> None:
    done = toolkit(bare, tmp_path, "--help")
    assert done.returncode == 0
    assert "export" in done.stdout


def test_the_wheel_has_the_default_model_its_images_and_targets(bare: Path, tmp_path: Path) -> None:
    code = (
        "from toolkit.workspace import find_in_room, DEFAULT_MODEL\n"
        "from toolkit.card import card_from_folder\n"
        "from toolkit.bundle.images import images_from_folder\n"
        "from toolkit.export.target import target_from_name\n"
        "card = card_from_folder(find_in_room('models', DEFAULT_MODEL))\n"
        "images = images_from_folder(find_in_room('calibration', DEFAULT_MODEL))\n"
        "import pathlib, toolkit.report\n"
        "parts = {path.name for path in pathlib.Path(toolkit.report.__file__).parent.iterdir()}\n"
        "assert {'style.css', 'page.js'} <= parts, parts\n"
        "print(card.name, len(images.calibration), len(images.evaluation), target_from_name('rtx').name)\n"
    )
    done = subprocess.run([bare, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == ["resnet32x32-fashion", "512", "2000", "rtx"], done.stderr


@pytest.mark.parametrize("words", ["export --int8", "train net --data fashion-mnist"])
def test_what_is_missing_is_named_with_the_pip_command(bare: Path, tmp_path: Path, words: str) -> None:
    done = toolkit(bare, tmp_path, *words.split())
    assert done.returncode == 1
    assert "pip install 'trt-edge-toolkit[host]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["error"] == "MissingPackage"


def test_the_wheel_lives_beside_an_apps_own_models(bare: Path, tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text("MINE = 1\n")
    (tmp_path / "export.py").write_text("MINE = 2\n")
    (tmp_path / "calibration").mkdir()
    (tmp_path / "calibration/__init__.py").write_text("MINE = 3\n")
    code = "import models, export, calibration, toolkit.bundle; print(models.MINE, export.MINE, calibration.MINE)"
    done = subprocess.run([bare, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == ["1", "2", "3"], done.stderr
