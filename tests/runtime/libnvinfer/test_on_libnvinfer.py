"""Runs the claims of `inside/` in processes whose `import tensorrt` is NVIDIA's bindings over our libnvinfer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
CLAIMS = sorted((HERE / "inside").glob("test_*.py"))


@pytest.mark.slow
@pytest.mark.usefixtures("every_core")
def test_claims_hold_on_the_real_bindings(version: str, variables: dict[str, str]) -> None:
    variables = {**variables, "PYTHONPATH": os.pathsep.join([str(ROOT), variables["PYTHONPATH"]])}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, CLAIMS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=variables, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    sys.stdout.write(done.stdout)
