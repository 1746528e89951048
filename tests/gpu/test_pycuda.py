"""A claim about pycuda on a GPU, where it is installed: it answers as cuda-python does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.gpu.conftest import PRECISIONS, Engine, Inputs, child

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]  # foreign libraries warn as they like
LOGITS_OF = """
import sys
from pathlib import Path
import numpy as np
from toolkit.errors import BackendUnavailable
from toolkit.runtime.trt.runner import TrtRunner
engine, images, out, cuda = sys.argv[1:]
try:
    runner = TrtRunner(Path(engine), graph=False, cuda=cuda)
except BackendUnavailable as error:
    sys.exit(f"not here: {error.what} {error.found}")
pixels = np.load(images)
np.save(out, np.concatenate([runner.logits(pixels[:n]) for n in (1, 8, 64)]))
runner.close()
"""


@pytest.mark.parametrize("precision", PRECISIONS)
def test_pycuda_and_cuda_python_answer_alike_bit_for_bit(
    precision: str, model: str, engine: Callable[..., Engine], inputs: Inputs, tmp_path: Path
) -> None:
    plan = engine(model, precision).path
    np.save(tmp_path / "images.npy", inputs.images[:64])
    for cuda in ("cuda-python", "pycuda"):  # each in its own process, as a program would use one of them
        out = tmp_path / f"{cuda}.npy"
        done = child("-c", LOGITS_OF, str(plan), str(tmp_path / "images.npy"), str(out), cuda)
        if "not here: " in done.stderr:
            pytest.skip(f"{cuda} {done.stderr.strip().splitlines()[-1]}")
        assert done.returncode == 0, done.stderr
    assert np.array_equal(np.load(tmp_path / "cuda-python.npy"), np.load(tmp_path / "pycuda.npy"))
