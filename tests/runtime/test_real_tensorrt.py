"""Claims about NVIDIA's real TensorRT over a driver that answers while its CUDA cannot start: an error, never a crash.

They run where $TOOLKIT_TENSORRT names a folder with the libraries in `lib/` and the bindings for this Python in `site/`
(or in `trt10/` or `trt8/` of it). The stand-in libcuda is the driver: the CUDA runtime inside of TensorRT does not take
it for NVIDIA's, so nothing starts, and what TensorRT gives then ends the process at a touch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.cuda.test_on_standin import libcuda

__all__ = ["libcuda"]  # the fixture
ROOT = Path(__file__).parents[2]
PROGRAM = """
import json, shutil, sys
from pathlib import Path
try:
    import tensorrt as trt
except ImportError:
    import tensorrt_bindings as trt
import toolkit
from tests.runtime.cuda.inside.conftest import TINY, sidecar
from toolkit.bundle.manifest import VARIANTS
from toolkit.errors import ToolkitError
from toolkit.engine.engine_from_onnx import engine_from_onnx
import hashlib
folder, found = Path(sys.argv[1]) / "bundle", {"version": trt.__version__}
shutil.copytree(TINY, folder)
(folder / "engines").mkdir()
plan = b"never read"
facts = json.dumps(sidecar(plan, trt.__version__)).encode()
manifest = json.loads((folder / "manifest.json").read_text())
for name, data in (("engines/model.engine", plan), ("engines/model.engine.json", facts)):
    (folder / name).write_bytes(data)
    manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
manifest["engines"] = [{"file": "engines/model.engine", "precision": "fp32"}]
(folder / "manifest.json").write_text(json.dumps(manifest))
with toolkit.load(folder) as net:
    found |= {"backend": net.backend, "passed_over": net.passed_over}
for name, work in {
    "load": lambda: toolkit.load(folder, backend="trt"),
    "build": lambda: engine_from_onnx(folder / VARIANTS["fp32"].file, folder / "new.engine", batch=(1, 1, 1)),
    "verify": lambda: toolkit.verify(folder, backends="trt"),
    "bench": lambda: toolkit.bench(folder, backends="trt", seconds=0.05),
}.items():
    try:
        found[name] = f"no error: {work()}"
    except ToolkitError as error:
        found[name] = error.in_one_line()
print(json.dumps(found))
"""


@pytest.fixture
def tensorrt() -> Path:
    """The folder that has `lib` and `site`."""
    told = os.environ.get("TOOLKIT_TENSORRT")
    if not told:
        pytest.skip("TOOLKIT_TENSORRT names no folder with a TensorRT (lib/ and site/)")
    for folder in (Path(told), Path(told) / "trt10", Path(told) / "trt8"):
        if (folder / "lib").is_dir() and (folder / "site").is_dir():
            return folder
    pytest.fail(f"{told} has no lib/ and site/, nor has trt10/ or trt8/ in it")


@pytest.mark.slow
def test_a_driver_that_answers_while_tensorrt_cannot_start_cuda_is_an_error_in_words(
    tensorrt: Path, libcuda: Path, tmp_path: Path
) -> None:
    libraries = os.pathsep.join([str(libcuda), str(tensorrt / "lib"), os.environ.get("LD_LIBRARY_PATH", "")])
    variables = {"LD_LIBRARY_PATH": libraries, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tensorrt / "site")])}
    asked = [sys.executable, "-c", "import importlib.util as u; print(u.find_spec('tensorrt') is None)"]
    without = subprocess.run(asked, capture_output=True, text=True, env=os.environ | variables).stdout.strip() == "True"
    module = "tensorrt_bindings" if without else "tensorrt"
    command = [sys.executable, "-c", f"import {module}"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | variables)
    if done.returncode != 0:
        pytest.skip(f"{tensorrt / 'site'} is not for this Python: {done.stderr.strip().splitlines()[-1]}")
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | variables, cwd=ROOT, timeout=300)
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stderr[-3000:]}"
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["backend"] == "ort"
    for said in (found["passed_over"]["trt"], found["load"], found["build"], found["verify"], found["bench"]):
        assert f"{found['version']} cannot start CUDA here" in said
        assert "update the NVIDIA driver" in said
