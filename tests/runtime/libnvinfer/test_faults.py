"""Claims about what ends a process with NVIDIA's real bindings, and that the toolkit's programs do not.

Each in a child. The library does what the real ones were seen to do where CUDA cannot be started (STANDIN_CUDA_ERROR)
and where a profile is taken (STANDIN_PROFILE_TAKEN); that the bindings then crash is their own doing, and the first
claims hold them to it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.libnvinfer.standin import KINDS

ROOT = Path(__file__).resolve().parents[3]
TINY = ROOT / "tests" / "bundle" / "format-1"
WITHOUT_LOCK = ("8.6", "10.3", "10.6")  # bindings up to 10.12 raise without Python's lock
SAYS = """
import ctypes, sys
import {module} as trt

class Logger(trt.ILogger):
    def __init__(self):
        trt.ILogger.__init__(self)
    def log(self, severity, message):
        print(severity.name, message, flush=True)

logger = Logger()
"""


def child(variables: dict[str, str], *words: str, **told: object) -> subprocess.CompletedProcess[str]:
    """Runs this Python with the toolkit first in its path, in a group of its own."""
    paths = os.pathsep.join([str(ROOT), variables["PYTHONPATH"]])
    settings = {name: str(value) for name, value in told.items()}
    return subprocess.run(
        [sys.executable, *words], env={**variables, "PYTHONPATH": paths, **settings}, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip


def script(version: str, variables: dict[str, str], text: str, **told: object) -> subprocess.CompletedProcess[str]:
    """Runs a few lines after `import tensorrt as trt`, with a logger that prints."""
    return child(variables, "-c", SAYS.format(module=KINDS[version].module) + text, **told)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, str]], Path]:
    """Builds the engine of the tiny bundle's best file where CUDA starts, once for each version."""
    folders: dict[str, Path] = {}

    def of(variables: dict[str, str]) -> Path:
        version = variables["STANDIN_VERSION"]
        if version not in folders:
            folder = tmp_path_factory.mktemp("built") / "bundle"
            shutil.copytree(TINY, folder)
            done = child(variables, "-m", "toolkit", "build", str(folder))
            assert done.returncode == 0, done.stderr
            folders[version] = folder
        return folders[version]

    return of


@pytest.fixture
def bundle(tmp_path: Path, variables: dict[str, str], built: Callable[[dict[str, str]], Path]) -> Path:
    """The tiny bundle with an engine of its best file, for a test to change."""
    return Path(shutil.copytree(built(variables), tmp_path / "bundle"))


def _document(done: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(done.stdout.splitlines()[-1])


def test_a_runtime_that_cannot_start_cuda_ends_the_process_later(version: str, variables: dict[str, str]) -> None:
    done = script(version, variables, "made = trt.Runtime(logger)\nprint('made')\ndel made", STANDIN_CUDA_ERROR=35)
    assert done.returncode == -signal.SIGSEGV
    assert "CUDA initialization failure with error: 35" in done.stdout
    assert ("made" in done.stdout.splitlines()) == (version != "8.6"), "8.6 does not get that far"


def test_a_builder_that_cannot_start_cuda_is_a_type_error_or_the_end(version: str, variables: dict[str, str]) -> None:
    text = "try:\n    trt.Builder(logger)\nexcept TypeError as error:\n    print(error)"
    done = script(version, variables, text, STANDIN_CUDA_ERROR=35)
    if version in ("10.3", "10.6"):
        assert done.returncode == -signal.SIGABRT
    elif version != "1.7":  # TensorRT-RTX builds without CUDA
        assert done.returncode == 0, done.stderr
        assert "factory function returned nullptr" in done.stdout
        assert ("WARNING" if version == "8.6" else "ERROR") + " " in done.stdout


@pytest.mark.slow
def test_a_taken_profile_raises_or_ends_the_process(version: str, variables: dict[str, str], bundle: Path) -> None:
    plan = next((bundle / "engines").glob("*.engine"))
    text = f"""
engine = trt.Runtime(logger).deserialize_cuda_engine(open({str(plan)!r}, "rb").read())
first, second = engine.create_execution_context(), engine.create_execution_context()
print(second.active_optimization_profile)
try:
    print("answered", second.set_optimization_profile_async(0, 0))
except RuntimeError as error:
    print("raised", error)
"""
    done = script(version, variables, text, STANDIN_PROFILE_TAKEN=1)
    assert "Profile 0 has been chosen by another IExecutionContext" in done.stdout
    assert "answered" not in done.stdout
    assert done.returncode == (-signal.SIGSEGV if version in WITHOUT_LOCK else 0)
    assert ("raised" in done.stdout) == (version not in WITHOUT_LOCK)


@pytest.mark.slow
def test_a_net_falls_back_to_onnx_runtime_where_tensorrt_cannot_start_cuda(
    variables: dict[str, str], bundle: Path
) -> None:
    text = f"""
import json, numpy, toolkit
with toolkit.load({str(bundle)!r}) as net:
    label, = net.classify(numpy.zeros((16, 16, 3), numpy.uint8)).labels
    print(json.dumps([net.backend, net.passed_over]))
"""
    done = child(variables, "-c", text, STANDIN_CUDA_ERROR=35)
    assert done.returncode == 0, done.stderr
    backend, passed_over = _document(done)
    assert backend == "ort"
    assert "cannot start CUDA" in passed_over["trt"]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["verify", "bench"])
def test_a_command_says_that_tensorrt_cannot_start_cuda_and_what_to_do(
    command: str, variables: dict[str, str], bundle: Path
) -> None:
    done = child(variables, "-m", "toolkit", command, str(bundle), "--backend", "trt", STANDIN_CUDA_ERROR=35)
    assert done.returncode in (1, 2), done.stderr
    assert "Traceback" not in done.stderr
    said = " ".join(done.stderr.split())
    assert "error: 35" in said
    assert "update the NVIDIA driver" in said


@pytest.mark.slow
def test_a_build_says_that_tensorrt_cannot_start_cuda(version: str, variables: dict[str, str], tmp_path: Path) -> None:
    if version == "1.7":
        pytest.skip("TensorRT-RTX builds without CUDA")
    folder = tmp_path / "bundle"
    shutil.copytree(TINY, folder)
    done = child(variables, "-m", "toolkit", "build", str(folder), STANDIN_CUDA_ERROR=2)
    assert done.returncode in (1, 2), done.stderr
    assert "Traceback" not in done.stderr
    said = " ".join(done.stderr.split())
    assert "error: 2" in said
    assert "free memory of the GPU" in said


CAMERAS = """
import threading, time, numpy, toolkit, toolkit.deployment.net, toolkit.runtime.trt.runner
from tests.runtime.again import again
again(4)
net = toolkit.load({bundle!r}, backend="trt")
runner = net._runner if {graph} else net._runner.without_graph()
images = numpy.zeros((4, 16, 16, 3), numpy.uint8)
calls = [0, 0, 0]

def camera(number):
    while True:
        runner.logits(images)
        calls[number] += 1

for number in range(len(calls)):
    threading.Thread(target=camera, args=(number,), daemon=True).start()
while min(calls) < 20:
    time.sleep(0.01)
"""


@pytest.mark.slow
def test_daemon_threads_may_call_on_until_the_very_end(version: str, variables: dict[str, str], bundle: Path) -> None:
    if version == "1.7":
        pytest.skip("TensorRT-RTX replays its own graphs: a call goes through the bindings, and not through CUDA alone")
    text = CAMERAS.format(bundle=str(bundle), graph=True)
    done = child(variables, "-c", text, STUB_GUARD=1, STANDIN_COMPUTE="sum", MALLOC_PERTURB_=165)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_daemon_threads_that_are_inside_of_tensorrt_do_not_abort_the_end(
    variables: dict[str, str], bundle: Path
) -> None:
    """The bindings take Python's lock in a destructor: a thread that ends there ends the process with SIGABRT."""
    text = CAMERAS.format(bundle=str(bundle), graph=False)
    done = child(variables, "-c", text, STUB_GUARD=1, STANDIN_COMPUTE="sum", MALLOC_PERTURB_=165)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_a_program_that_forgets_to_close_ends_well(variables: dict[str, str], bundle: Path) -> None:
    text = f"""
import numpy, toolkit
net = toolkit.load({str(bundle)!r}, backend="trt")
print(net.logits(numpy.zeros((4, 16, 16, 3), numpy.uint8)).shape)
"""
    done = child(variables, "-c", text, STUB_GUARD=1)
    assert (done.returncode, done.stdout, done.stderr) == (0, "(4, 3)\n", "")
