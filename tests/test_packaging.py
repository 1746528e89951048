"""Wheel and sdist, and the wheel in a bare venv: what a device gets, and what it says about what it lacks."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from toolkit.errors import ToolkitError
from toolkit.storage.files import read_toml
from toolkit.version import __version__

pytestmark = pytest.mark.slow  # pip builds, resolves and installs
ROOT = Path(__file__).parent.parent
BUILD = [sys.executable, "-m", "build", "--no-isolation"]  # hatchling is a package of the developers', with its hash
INSTALL = ["install", "--quiet", "--no-compile"]  # Python compiles what is imported, a tenth of it


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [*BUILD, "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    [sdist], [wheel] = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="session")
def bare(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a venv with the wheel and its plain dependencies only."""
    folder, wheel = tmp_path_factory.mktemp("bare"), built[1]
    venv.create(folder / "venv")
    python = folder / "venv/bin/python"
    command = [*_pip_of(python), *INSTALL, str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return python


def _pip_of(python: Path) -> list[str]:
    """Ours, for another Python: a pip of its own would take longer to install than the package."""
    return [sys.executable, "-m", "pip", "--python", str(python)]


def toolkit(python: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of the installed wheel, in a folder of its own."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    return subprocess.run(
        [str(python.parent / "toolkit"), *words], cwd=folder, env=environment, capture_output=True, text=True
    )


def _tracked(folder: str) -> list[str]:
    return subprocess.run(["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True).stdout.split()


def test_the_wheel_holds_the_package_its_types_and_its_rooms_and_no_tests(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as wheel:
        names = set(wheel.namelist())
    shipped = {f"toolkit/{file.relative_to(ROOT / 'toolkit')}" for file in (ROOT / "toolkit").rglob("*.py")}
    for room in ("models", "calibration", "export"):
        shipped |= {f"toolkit/shipped/{name}" for name in _tracked(room)}
    assert shipped | {"toolkit/py.typed", "toolkit/reporting/style.css", "toolkit/reporting/page.js"} <= names
    assert {name.split("/")[0] for name in names} == {"toolkit", f"trt_edge_toolkit-{__version__}.dist-info"}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_two_builds_give_the_same_wheel_byte_for_byte(built: tuple[Path, Path], tmp_path: Path) -> None:
    """One from the sdist, one from a working tree in which somebody has trained, at another time and place."""
    tree = tmp_path / "tree"
    for name in _tracked("."):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    for name in ("models/my-net/card.json", "calibration/my-net/evaluation.npz", "calibration/resnet20-cifar10/a.npz"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_text("of no concern to others")
    command = [*BUILD, "--wheel", "--outdir", str(tmp_path), str(tree)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    [again] = tmp_path.glob("*.whl")
    assert again.name == built[1].name
    with zipfile.ZipFile(again) as one, zipfile.ZipFile(built[1]) as other:
        differ = [name for name in {*one.namelist(), *other.namelist()} if one.read(name) != other.read(name)]
    assert not differ
    assert again.read_bytes() == built[1].read_bytes()


def test_ci_installs_what_constraints_name_each_with_a_hash() -> None:
    text = (ROOT / "constraints-ci.txt").read_text()
    entries = re.findall(r"^([\w.-]+)==(\S+)(.*(?:\n    --hash=sha256:[0-9a-f]{64}(?: \\)?)+)", text, re.MULTILINE)
    assert len(entries) == len(re.findall(r"^[\w.-]+==", text, re.MULTILINE)) > 80
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    both = {
        name: version for name, version, _ in entries if name in pinned
    }  # the pages are built by packages of their own
    assert both == {name: pinned[name] for name in both}
    assert {"torch", "onnx", "onnxruntime", "safetensors", "pillow"} <= both.keys()
    found = {name: Version(version) for name, version, _ in entries}
    for one in map(Requirement, _asked_for()):
        name = canonicalize_name(one.name)
        if one.marker is None or one.marker.evaluate({"python_version": "3.11"}):
            assert one.specifier.contains(found[name]), f"make constraints: {one} is not in constraints-ci.txt"


def _asked_for() -> list[str]:
    """What the Makefile's venv is made of, and what builds the package."""
    project = read_toml(ROOT / "pyproject.toml", ToolkitError)
    extras = [project["project"]["optional-dependencies"][name] for name in ("host", "rtx", "sign")]
    groups = [project["dependency-groups"][name] for name in ("dev", "oracles", "zoo", "schemas", "readers")]
    return [*project["build-system"]["requires"], *project["project"]["dependencies"], *chain(*extras, *groups)]


def test_the_sdist_holds_what_builds_the_wheel_and_the_pages(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "docs/measured.md"} <= names
    assert not [name for name in names if name.startswith(("tests/", "bundles/", ".venv/"))]


def test_a_device_gets_numpy_and_typer_and_nothing_heavy(bare: Path) -> None:
    done = subprocess.run([*_pip_of(bare), "list", "--format=json"], capture_output=True, text=True, check=True)
    names = {entry["name"].lower().replace("_", "-") for entry in json.loads(done.stdout)}
    assert {"numpy", "typer", "trt-edge-toolkit"} <= names
    assert not names & {"torch", "onnx", "onnxruntime", "safetensors", "pillow", "tensorrt"}


def test_help_and_version_work_in_a_bare_venv(bare: Path, tmp_path: Path) -> None:
    done = toolkit(bare, tmp_path, "--help")
    assert done.returncode == 0
    assert "export" in done.stdout
    assert toolkit(bare, tmp_path, "--version").stdout.strip() == __version__


def test_a_bundle_without_a_backend_says_what_each_of_them_lacks(bare: Path, tmp_path: Path) -> None:
    bundle = ROOT / "tests/bundle/format-1"
    code = f"import toolkit\ntry: toolkit.load({str(bundle)!r})\nexcept toolkit.ToolkitError as error: print(error)"
    done = subprocess.run([bare, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "onnxruntime" in done.stdout
    assert "pip install" in done.stdout


def test_the_wheel_has_the_default_model_its_images_and_targets(bare: Path, tmp_path: Path) -> None:
    code = (
        "from toolkit.workspace import find_in_room, DEFAULT_MODEL\n"
        "from toolkit.models.card import card_from_folder\n"
        "from toolkit.data.model_images import images_from_folder\n"
        "from toolkit.target import target_from_name\n"
        "card = card_from_folder(find_in_room('models', DEFAULT_MODEL))\n"
        "images = images_from_folder(find_in_room('calibration', DEFAULT_MODEL))\n"
        "import pathlib, toolkit.reporting\n"
        "parts = {path.name for path in pathlib.Path(toolkit.reporting.__file__).parent.iterdir()}\n"
        "assert {'style.css', 'page.js'} <= parts, parts\n"
        "print(card.name, len(images.calibration), len(images.evaluation), target_from_name('rtx').name)\n"
    )
    done = subprocess.run([bare, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == ["resnet32x32-fashion", "512", "2000", "rtx"], done.stderr


@pytest.mark.parametrize("words", ["export --int8", "train net --data fashion-mnist"])
def test_what_is_missing_is_named_with_the_pip_command(bare: Path, tmp_path: Path, words: str) -> None:
    done = toolkit(bare, tmp_path, *words.split())
    assert done.returncode == 1
    assert re.search(r"pip install '\S+\.whl\[host\]'", done.stderr), "from the wheel: the name may be in no index"
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


PROGRAM = """
from pathlib import Path

import numpy as np
import toolkit
from toolkit import BuildOptions, CalibrateOptions, ExportOptions, TrainOptions, UserModel


def at(what: str, done: int, total: int) -> None:
    print(what, done, total)


def walk(folder: Path) -> bool:
    trained: toolkit.TrainingResult = toolkit.train("net", folder / "set.npz", TrainOptions(epochs=2), on_step=at)
    ranges = toolkit.calibrate("net", np.zeros((64, 32, 32, 3), np.uint8), CalibrateOptions(method="mse"))
    options = ExportOptions(int8=True, record=ranges.record, batch=(1, 8, 64))
    made: toolkit.Exported = toolkit.export(trained.model, folder / "bundle", options, on_step=at)
    user = UserModel(checkpoint=folder / "weights.pth", mean=[0.5], labels=["a", "b"])
    toolkit.export("package.module:build", options=ExportOptions(data="photos/"), user=user)
    built = toolkit.build(made.bundle, ["int8"], "rtx", BuildOptions(check=True, repeats=3))
    judged, timed = toolkit.verify(built.bundle, gate=99.9), toolkit.bench(built.bundle, batches=(1,))
    page = toolkit.report(built.bundle, folder / "page.html", verify=judged, bench=timed, markdown="CARD.md")
    print(page.verdict, timed.latency[0].p50_ms, judged.as_dict())
    return toolkit.selftest(built.bundle, backends=("ort", "trt"), save=True).ok


with toolkit.load("bundle", wait="spin") as net:
    net.warm_up((1, 8), streams=2)
    labels, probabilities = net.classify(np.zeros((1, 32, 32, 3), np.uint8))
    first: str = labels[0]
    print(net.backend, first, float(probabilities[0, 0]), net.passed_over)
try:
    print(walk(Path("here")), dir(toolkit), toolkit.__version__)
except toolkit.ToolkitError as error:
    print(error.what, error.fix)
"""
WRONG = {
    "misspelled.py": ("net.classify", "net.clasify", "has no attribute"),
    "mistyped.py": ('wait="spin"', "wait=3", "arg-type"),
    "option.py": ("ExportOptions(int8=True", "ExportOptions(int7=True", "call-arg"),
    "result.py": ("page.verdict", "page.verdikt", "has no attribute"),
}


def test_a_users_program_is_type_checked_against_the_wheel(bare: Path, tmp_path: Path) -> None:
    (tmp_path / "right.py").write_text(PROGRAM)
    for name, (right, wrong, _) in WRONG.items():
        (tmp_path / name).write_text(PROGRAM.replace(right, wrong, 1))
    files = sorted(path.name for path in tmp_path.glob("*.py"))
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(bare), *files]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"MYPYPATH": ""})
    said = {file: "".join(line for line in done.stdout.splitlines() if line.startswith(file)) for file in files}
    assert {name: words for name, (_, _, words) in WRONG.items() if words not in said[name]} == {}
    assert not said["right.py"], done.stdout


@pytest.fixture(scope="session")
def with_onnxruntime(bare: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a device that has ONNX Runtime as well, installed beside the venv: that stays bare.

    Of what it asks for, the venv has numpy, and it runs without the rest.
    """
    folder = tmp_path_factory.mktemp("device")
    command = [*_pip_of(bare), *INSTALL, "--no-deps", "--target", str(folder / "site"), "onnxruntime"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {
        "PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(folder / "site"),
        "TOOLKIT_CACHE": str(folder / "cache"), "TOOLKIT_WORKSPACE": str(folder),
    }  # fmt: skip


def test_a_packed_bundle_is_loaded_tested_verified_and_benched_with_onnxruntime_alone(
    bare: Path, with_onnxruntime: dict[str, str], tmp_path: Path
) -> None:
    bundle = ROOT / "tests/bundle/format-1"
    for words in (
        f"bundle pack {bundle} -o tiny.tar",
        "selftest tiny.tar --backend ort --seconds 0.02",
        "verify tiny.tar --backend ort",
        "bench tiny.tar --backend ort --batch 1,8 --seconds 0.05",
        "bundle show tiny.tar",
        "triton tiny.tar",
    ):
        command = [str(bare.parent / "toolkit"), *words.split()]
        done = subprocess.run(command, cwd=tmp_path, env=with_onnxruntime, capture_output=True, text=True)
        assert done.returncode == 0, f"{words}\n{done.stderr}"
        assert json.loads(done.stdout.splitlines()[-1])["ok"] is True
    code = (
        "import sys, numpy, toolkit\n"
        "with toolkit.load('tiny.tar') as net: print(net.classify(numpy.zeros((16, 16, 3), numpy.uint8)).labels)\n"
        "assert not {'torch', 'onnx', 'PIL', 'typer'} & {name.partition('.')[0] for name in sys.modules}\n"
    )
    done = subprocess.run([bare, "-c", code], cwd=tmp_path, env=with_onnxruntime, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.replace("'", '"'))[0] in ("rows", "columns", "diagonals")


NO_INDEX = (
    "Connection",
    "resolution",
    "unreachable",
    "Max retries",
    "timed out",
)


@pytest.mark.skipif(
    not os.environ.get("TOOLKIT_RELEASE"),
    reason="what a package index has is no matter of this clone: make release-check",
)
@pytest.mark.parametrize(("python", "cuda"), [("3.10", "cuda-python>=12.9.1,<13"), ("3.12", "cuda-python>=13")])
def test_every_runtime_wheel_exists_for_a_jetson(python: str, cuda: str, tmp_path: Path) -> None:
    project = read_toml(ROOT / "pyproject.toml", ToolkitError)["project"]
    # pip asks the running Python for markers, not the one of --python-version: tomli is for 3.10 alone.
    needed = [text.partition(";")[0].strip() for text in project["dependencies"]]
    needed = [text for text in needed if python == "3.10" or not text.startswith("tomli")]
    assert {text.partition(">")[0] for text in needed} >= {"numpy", "typer"}
    command = [
        sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--report", str(tmp_path / "report.json"),
        "--target", str(tmp_path / "site"), "--only-binary=:all:", "--python-version", python, "--implementation", "cp",
        "--platform", "manylinux_2_28_aarch64", "--platform", "manylinux2014_aarch64",
        *needed, *project["optional-dependencies"]["sign"], "onnxruntime", cuda,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and any(word in done.stderr for word in NO_INDEX):
        pytest.skip("no package index can be reached from here")
    assert done.returncode == 0, done.stderr
    installed = json.loads((tmp_path / "report.json").read_text())["install"]
    wheels = {entry["metadata"]["name"].lower(): entry["download_info"]["url"] for entry in installed}
    assert {"numpy", "typer", "onnxruntime", "cryptography", "cuda-python"} <= wheels.keys()
    assert all(url.endswith(("any.whl", "aarch64.whl")) for url in wheels.values()), wheels
