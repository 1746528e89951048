"""Runs the claims of `inside/` in processes of their own, with the libcuda.so.1 that gcc makes of `stub/`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


@pytest.fixture(scope="session")
def libcuda(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with libcuda.so.1 on host memory."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc to make a libcuda of")
    library = tmp_path_factory.mktemp("stub") / "libcuda.so.1"
    options = ["-shared", "-fPIC", "-O2", "-w", "-Wl,-soname,libcuda.so.1"]
    command = [compiler, *options, "-o", str(library), str(HERE / "stub" / "libcuda.c"), "-lpthread", "-ldl"]
    subprocess.run(command, check=True)
    return library.parent


CLAIMS = sorted(str(path) for path in (HERE / "inside").glob("test_*.py"))
LONG = str(HERE / "inside" / "test_runner.py")


@pytest.mark.slow
@pytest.mark.parametrize(
    "claims", [pytest.param([LONG], id="runner"), pytest.param([name for name in CLAIMS if name != LONG], id="others")]
)
@pytest.mark.usefixtures("every_core")
def test_claims_hold_on_a_libcuda_on_host_memory(libcuda: Path, claims: list[str]) -> None:
    environment = {**os.environ, "TOOLKIT_STANDIN": str(libcuda), "PYTHONPATH": str(ROOT)}
    environment["LD_LIBRARY_PATH"] = f"{libcuda}:{os.environ.get('LD_LIBRARY_PATH', '')}"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *claims]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    sys.stdout.write(done.stdout)
