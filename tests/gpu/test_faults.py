"""Claims about errors on a GPU: each ends in words and by itself, never in a crash, a hang or a traceback.

What may take a process down runs in a child of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.gpu.conftest import STANDIN, Engine, child, keep
from toolkit.errors import EngineError
from toolkit.runtime.trt.preflight import sidecar_path

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]  # foreign libraries warn as they like
LONGEST_S = 25.0  # of a child
Asked = Callable[[str], "subprocess.CompletedProcess[str]"]

BEGIN = """
import faulthandler, os, signal, sys, threading, time
faulthandler.dump_traceback_later(20, exit=True)
from pathlib import Path
import numpy as np
from toolkit.errors import ToolkitError
from toolkit.runtime.trt.runner import TrtRunner
plan, shape = Path(sys.argv[1]), eval(sys.argv[2])
images = np.random.default_rng(0).integers(0, 256, (8, *shape), np.uint8)
"""
OPEN = """
try:
    TrtRunner(plan)
    print("no error")
except ToolkitError as error:
    print(type(error).__name__, error)
"""
NO_CLOSE = (
    BEGIN
    + """
one = TrtRunner(plan)
for _ in range(3):
    one.logits(images)
print("answered")
"""
)
DAEMONS = (
    BEGIN
    + """
one = TrtRunner(plan)
def forever():
    while True:
        one.logits(images)
for _ in range(3):
    threading.Thread(target=forever, daemon=True).start()
time.sleep(0.7)
print("answered")
"""
)
FORK = (
    BEGIN
    + """
one = TrtRunner(plan)
expected = one.logits(images)
faulthandler.cancel_dump_traceback_later()
child = os.fork()
if child == 0:
    signal.alarm(10)
    try:
        one.logits(images)
        print("the child was answered", flush=True)
    except ToolkitError as error:
        print(f"child: {type(error).__name__}: {error.what}", flush=True)
    # A fork with ONNX Runtime in it, with which the stand-ins compute, cannot end by itself.
    (os._exit if os.environ.get("TOOLKIT_GPU_STANDIN") else sys.exit)(0)
_, status = os.waitpid(child, 0)
print(f"status {status}")
assert np.array_equal(one.logits(images), expected)
one.close()
print("the parent goes on")
"""
)
DEVICE = """
from toolkit.runtime.cuda import open_cuda
cuda = open_cuda()
cuda.enter()
stream, size = cuda.stream(), 64 << 20
class There:
    pass
there = There()
there.address = cuda.allocate(size)
there.pinned = cuda.allocate_pinned(images.nbytes)
there.pinned.bytes[: images.nbytes] = images.reshape(-1)
cuda.copy_in(there.address, there.pinned, images.nbytes, stream)
cuda.synchronize(stream)
there.__cuda_array_interface__ = {
    "shape": images.shape, "typestr": "|u1", "data": (there.address, False), "version": 3, "strides": None}
"""
AFTER_FAULT = """
def tell(what):
    try:
        what()
        print("no error")
    except ToolkitError as error:
        print(f"{type(error).__name__}: {error}")
tell(lambda: one.logits(images))
tell(one.close)
print("went on to the end", flush=True)
"""
FREED = (
    BEGIN
    + DEVICE
    + """
one = TrtRunner(plan)
for _ in range(3):
    one.logits(there)
cuda.release(there.address)
try:
    one.logits(there)
    print("no error: the memory is still mapped")
except ToolkitError as error:
    print(f"{type(error).__name__}: {error}")
"""
    + AFTER_FAULT
)
KERNEL = (
    BEGIN
    + """
import cupy
one = TrtRunner(plan)
for _ in range(3):
    one.logits(images)
cupy.RawKernel('extern "C" __global__ void bad(int *p) { p[threadIdx.x] = 1; }', "bad")((1,), (32,), (np.uint64(16),))
time.sleep(0.2)
"""
    + AFTER_FAULT
)
# The driver is said to answer, and CUDA cannot start: what a driver older than TensorRT's CUDA looks like.
BLIND = """
import os, sys
standin = os.environ.get("TOOLKIT_GPU_STANDIN")  # its CUDA does not start by STANDIN_CUDA_ERROR
os.environ |= {{}} if standin else {{"CUDA_VISIBLE_DEVICES": ""}}
from pathlib import Path
from toolkit.runtime import driver
answer = driver.Driver(True, "", "12.8", (driver.Device(sys.argv[3], sys.argv[4], 80000),))
driver._remembered = driver._remembered if standin else lambda: answer
from toolkit.errors import ToolkitError
try:
    {what}
    print("no error")
except ToolkitError as error:
    print(f"{{type(error).__name__}}: {{error}}")
"""
BLIND_RUN = BLIND.format(what="from toolkit.runtime.trt.runner import TrtRunner; TrtRunner(Path(sys.argv[1]))")
BLIND_BUILD = BLIND.format(
    what="from toolkit.engine.engine_from_onnx import engine_from_onnx; "
    "engine_from_onnx(Path(sys.argv[1]), Path(sys.argv[2]))"
)
FULL = """
from toolkit.runtime.cuda import CudaOutOfMemory, open_cuda
cuda = open_cuda()
cuda.enter()
size, taken = 64 << 30, 0
while size >= 1 << 20:
    try:
        cuda.allocate(size)
        taken += size
    except CudaOutOfMemory:
        size //= 2
print(f"{taken >> 20} MiB taken")
def use():
    with TrtRunner(plan) as one:
        print(one.logits(np.ascontiguousarray(np.resize(images, (256, *images.shape[1:])))).shape)
try:
    use()
    print("no error: there was memory left for it")
except ToolkitError as error:
    print(f"{type(error).__name__}: {error}")
"""


AT_ONCE = {"no close": NO_CLOSE, "fork": FORK, **{f"daemons {run}": DAEMONS for run in range(5)}}
ON_A_GPU = {"kernel": KERNEL, "freed": FREED}  # the stand-ins run no kernels, and their memory stays mapped


@pytest.fixture(scope="module")
def at_once(model: str, engine: Callable[..., Engine]) -> Iterator[Callable[[str], subprocess.CompletedProcess[str]]]:
    """The children that do not disturb each other, begun together: each takes seconds to load TensorRT."""
    path = engine(model, "fp32").path
    scripts = AT_ONCE if STANDIN else AT_ONCE | ON_A_GPU
    pool = ThreadPoolExecutor(max(1, min(5, (os.cpu_count() or 1) // 2)))
    begun: dict[str, Future[subprocess.CompletedProcess[str]]] = {}
    form = shape_of(path)
    for name, script in scripts.items():
        begun[name] = pool.submit(child, "-c", script, str(path), form, timeout=LONGEST_S)
    yield lambda name: begun[name].result()
    pool.shutdown(wait=False, cancel_futures=True)


def shape_of(plan: Path) -> str:
    """(H, W, C) of an engine's images, as a child reads it."""
    from toolkit.bundle.reading import bundle_from_folder

    return repr(tuple(bundle_from_folder(plan.parents[1]).preprocessing.shape))


def ended(done: subprocess.CompletedProcess[str], traces: bool = False) -> str:
    """What a child said; it must have ended by itself, with 0 and, unless they are let through, without tracebacks."""
    code, said = done.returncode, f"{done.stdout[-1000:]}\n--- stderr ---\n{done.stderr[-1800:]}"
    if code != 0:
        pytest.fail(f"{signal.Signals(-code).name if code < 0 else f'exit code {code}'}\n{said}", pytrace=False)
    if "Traceback" in done.stderr and not traces:
        pytest.fail(f"a traceback\n{said}", pytrace=False)
    return done.stdout


@pytest.fixture
def plan(model: str, engine: Callable[..., Engine]) -> Path:
    """The engine that everything is tried on."""
    return engine(model, "fp32").path


@pytest.fixture
def shape(model: str, engine: Callable[..., Engine]) -> str:
    """(H, W, C) of its images, as a child reads it."""
    return shape_of(engine(model, "fp32").path)


@pytest.fixture
def copied(plan: Path, tmp_path: Path) -> Callable[[bytes | None, dict[str, Any]], Path]:
    """A copy of the plan, with other bytes or another sidecar."""

    def copy(data: bytes | None, changed: dict[str, Any]) -> Path:
        path = tmp_path / plan.name
        path.write_bytes(plan.read_bytes() if data is None else data)
        facts = json.loads(sidecar_path(plan).read_text())
        sidecar_path(path).write_text(json.dumps(facts | changed))
        return path

    return copy


@pytest.mark.parametrize("place", [0.0, 0.25, 0.5, 0.75, 0.999])
def test_an_engine_with_one_flipped_byte_is_refused(place: float, plan: Path, copied: Callable[..., Path]) -> None:
    from toolkit.runtime.trt.runner import TrtRunner

    TrtRunner(plan).close()  # whole, it opens
    data = bytearray(plan.read_bytes())
    data[int(place * len(data))] ^= 1
    with pytest.raises(EngineError, match="changed since it was built"):
        TrtRunner(copied(bytes(data), {}))


def test_an_engine_of_another_gpu_is_refused_before_tensorrt_sees_it(plan: Path, copied: Callable[..., Path]) -> None:
    from toolkit.runtime.trt.runner import TrtRunner

    facts = json.loads(sidecar_path(plan).read_text())
    other = {"builder": facts["builder"] | {"compute_capability": "SM53", "device": "Nano"}}
    other["compute_capabilities"] = ["SM75" if facts["tensorrt"]["kind"] == "tensorrt" else "SM53"]
    with pytest.raises(EngineError, match="not for this machine"):
        TrtRunner(copied(None, other))


def test_half_a_plan_whose_sidecar_agrees_is_refused_in_tensorrts_words(
    plan: Path, shape: str, copied: Callable[..., Path]
) -> None:
    size = 20 if STANDIN == "python" else plan.stat().st_size // 2  # the stand-in's plan is an ONNX file
    half = plan.read_bytes()[:size]
    path = copied(half, {"plan": {"sha256": hashlib.sha256(half).hexdigest(), "bytes": len(half)}})
    said = ended(child("-c", BEGIN + OPEN, str(path), shape, timeout=LONGEST_S))
    print(said)
    assert "EngineError" in said


def test_a_program_that_forgets_to_close_ends_well(at_once: Asked) -> None:
    assert "answered" in ended(at_once("no close"))


@pytest.mark.parametrize("run", range(5))
def test_daemon_threads_that_still_call_do_not_crash_the_end(run: int, at_once: Asked) -> None:
    if STANDIN == "python":
        pytest.skip("the stand-in computes in Python, which ends such threads inside of ONNX Runtime")
    assert "answered" in ended(at_once(f"daemons {run}"))


def test_a_fork_is_told_what_to_do_and_the_parent_goes_on(at_once: Asked) -> None:
    said = ended(at_once("fork"))
    print(said)
    assert "child: ToolkitError: this runner was opened before the process forked" in said
    assert "status 0" in said
    assert "the parent goes on" in said


def test_a_kernel_that_failed_is_a_named_fault_and_no_hang(at_once: Asked) -> None:
    if STANDIN:
        pytest.skip("the stand-in runs no kernels")
    pytest.importorskip("cupy", reason="this Python has no CuPy")
    said = ended(at_once("kernel"), traces=True)  # CuPy's own clearing up fails aloud
    print(said)
    keep("faults", {"what": "a kernel that failed", "said": said})
    assert "CudaFault" in said
    assert "went on to the end" in said


def test_images_that_were_given_back_are_a_named_fault_or_an_answer(at_once: Asked) -> None:
    if STANDIN:
        pytest.skip("the stand-in's memory stays mapped")
    said = ended(at_once("freed"))
    print(said)
    keep("faults", {"what": "images that were given back", "said": said})
    assert "CudaFault" in said or "still mapped" in said
    assert "went on to the end" in said


@pytest.mark.parametrize("words", [("build", "--precision", "fp32"), ("bench", "--backend", "trt")])
def test_without_a_visible_gpu_a_command_ends_in_words(words: tuple[str, ...], plan: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(plan.parents[1], bundle)
    command = ("-m", "toolkit", words[0], str(bundle), *words[1:])
    done = child(*command, timeout=LONGEST_S, CUDA_VISIBLE_DEVICES="", STUB_DEVICES="0")
    print(done.stderr[-800:])
    assert "Traceback" not in done.stderr
    assert done.returncode == 1 or "built with tensorrt-rtx" in done.stderr, done.stderr[
        -2000:
    ]  # RTX builds without a GPU


@pytest.mark.parametrize("what", ["run", "build"])
def test_a_driver_that_answers_while_cuda_cannot_start_is_an_error_in_words(
    what: str, plan: Path, tmp_path: Path
) -> None:
    if STANDIN == "python":
        pytest.skip("the stand-in for TensorRT has no CUDA of its own that could not start")
    builder = json.loads(sidecar_path(plan).read_text())["builder"]
    paths = (str(plan), "") if what == "run" else (str(plan.parents[1] / "model.onnx"), str(tmp_path / "x.engine"))
    script = BLIND_RUN if what == "run" else BLIND_BUILD
    of = (*paths, str(builder["device"]), str(builder["compute_capability"]))
    done = child("-c", script, *of, timeout=LONGEST_S, STANDIN_CUDA_ERROR="35")
    keep(
        "faults",
        {
            "what": f"CUDA cannot start: {what}",
            "code": done.returncode,
            "said": done.stdout,
            "err": done.stderr[-2000:],
        },
    )
    said = ended(done)
    print(said)
    assert "no error" not in said
    assert ": " in said  # the error's name and its words


def test_a_card_without_memory_is_an_error_in_words(plan: Path, shape: str) -> None:
    if STANDIN:
        pytest.skip("the stand-in's memory is the host's")
    said = ended(child("-c", BEGIN + FULL, str(plan), shape, timeout=LONGEST_S))
    print(said)
    keep("faults", {"what": "a card without memory", "said": said})
    assert "Error" in said or "Memory" in said or "Unavailable" in said or "no error" in said


def test_an_engine_without_its_sidecar_is_refused(plan: Path, tmp_path: Path) -> None:
    from toolkit.runtime.trt.runner import TrtRunner

    shutil.copy2(plan, tmp_path / plan.name)
    with pytest.raises(EngineError, match="sidecar"):
        TrtRunner(tmp_path / plan.name)
