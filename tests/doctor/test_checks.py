"""Claims about the doctor: it computes, it never raises, and whatever fails has a reason and a cure."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from toolkit.doctor import checks as doctor
from toolkit.doctor import gpu, machine, packages
from toolkit.doctor.checks import Check, answered, check, in_own_process
from toolkit.doctor.machine import Absent, Answer, l4t_version
from toolkit.errors import BackendUnavailable, ToolkitError
from toolkit.lazy import needs, requirement
from toolkit.runtime.driver import Device, Driver
from toolkit.runtime.trt.module import MODULES, CudaDoesNotStart, TensorRT


def _with(monkeypatch: pytest.MonkeyPatch, function: Callable[[], Answer], name: str = "numpy") -> Check:
    monkeypatch.setitem(doctor.CHECKS, name, (False, function))
    return check(name)


def _raising(error: BaseException) -> Callable[[], NoReturn]:
    def function() -> NoReturn:
        raise error

    return function


def test_a_missing_package_is_absent_with_its_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> Answer:
        with needs("test"):
            raise ModuleNotFoundError("No module named 'safetensors'", name="safetensors")

    finding = _with(monkeypatch, absent, "safetensors")
    assert (finding.ok, finding.fix) == (None, f"pip install {requirement('host')}")


def test_a_package_whose_library_is_missing_is_broken_not_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Answer:
        with needs("test"):
            raise ImportError("libcudart.so.13: cannot open shared object file", name="torch")

    finding = _with(monkeypatch, broken, "torch cpu")
    assert (finding.ok, finding.fix) == (False, "pip install --force-reinstall torch")


def test_numpy_is_not_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> Answer:
        with needs("test"):
            raise ModuleNotFoundError("No module named 'numpy'", name="numpy")

    assert _with(monkeypatch, absent).ok is False


@pytest.mark.parametrize(
    ("error", "ok"),
    [
        (BackendUnavailable("no TensorRT", found="not installed: tensorrt"), None),
        (BackendUnavailable("no TensorRT", found="tensorrt is installed but does not load: OSError"), False),
        (ToolkitError("the build failed"), False),
        (Absent("nothing here"), None),
        (ValueError("odd\nlines"), False),
    ],
)
def test_a_check_that_raises_is_a_finding(monkeypatch: pytest.MonkeyPatch, error: Exception, ok: bool | None) -> None:
    finding = _with(monkeypatch, _raising(error), "tensorrt")
    assert finding.ok is ok
    assert "\n" not in finding.detail
    assert finding.detail


def _child(monkeypatch: pytest.MonkeyPatch, program: str, timeout_s: float = 20) -> Check:
    """`in_own_process` with another program as its child."""
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda command, **how: run([sys.executable, "-c", program], **how))
    return in_own_process("pycuda", timeout_s)


def test_a_library_that_crashes_ends_only_its_own_check(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = _child(monkeypatch, f"import os; os.kill(os.getpid(), {int(signal.SIGSEGV)})")
    assert (finding.ok, finding.detail) == (False, "the library ended its process with SIGSEGV")
    assert finding.fix == doctor.FIXES["pycuda"]


def test_a_library_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    started = time.monotonic()
    finding = _child(monkeypatch, "import time; time.sleep(60)", timeout_s=0.3)
    assert (finding.ok, finding.detail) == (False, "no answer within 0.3 s")
    assert time.monotonic() - started < 10


def test_a_library_that_exits_is_reported_with_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = _child(monkeypatch, "import sys; sys.exit('license expired')")
    assert (finding.ok, finding.detail) == (False, "license expired")


def test_what_a_library_prints_does_not_hide_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    program = "from toolkit.doctor import checks; print('hello'); checks.answer_to_parent('python')"
    finding = _child(monkeypatch, program)
    assert (finding.ok, finding.name) == (True, "python")


def test_a_child_finds_the_toolkit_and_none_of_its_modules_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = _child(monkeypatch, "import sys, importlib.util as u; sys.exit(str(u.find_spec('contracts')))")
    assert finding.detail == "None"


def test_torch_is_not_imported_for_a_gpu_that_has_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    _driver(monkeypatch, Driver(False, "there is no NVIDIA driver"))
    monkeypatch.setitem(sys.modules, "torch", None)
    assert answered("torch cuda") == Check("torch cuda", None, None, "there is no NVIDIA driver")


def test_a_wrong_answer_is_not_ok(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong() -> Answer:
        machine.expect(False, "Relu gave -1")
        return None, ""

    finding = _with(monkeypatch, wrong)
    assert (finding.ok, finding.detail) == (False, "RuntimeError: wrong answer: Relu gave -1")


def test_importing_the_doctor_imports_no_backend() -> None:
    heavy = " ".join(["torch onnx onnxruntime PIL safetensors pycuda", *MODULES])
    program = f"import sys, toolkit.doctor.checks; sys.exit(' '.join(set({heavy!r}.split()) & set(sys.modules)))"
    environment = os.environ | {"PYTHONPATH": str(Path(doctor.__file__).parents[2])}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert run.stderr.strip() == ""


def test_onnxruntime_is_found_to_work_where_there_is_no_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="runs the built-in model")
    monkeypatch.setitem(sys.modules, "onnx", None)
    finding = answered("onnxruntime cpu")
    assert (finding.ok, finding.version) == (True, onnxruntime.__version__)
    assert finding.detail == "Relu with CPUExecutionProvider is right"
    assert answered("onnx").ok is None


def test_the_built_in_convolution_is_the_model_that_it_says_it_is() -> None:
    onnx = pytest.importorskip("onnx", reason="reads the model back")
    model = onnx.load_from_string(packages.TINY_CONV)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Conv"]
    assert onnx.numpy_helper.to_array(model.graph.initializer[0]).tolist() == [[[[2.0]]]]
    assert model.opset_import[0].version == 17


@pytest.mark.parametrize(
    ("release", "version"),
    [
        ("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64", "36.4.3"),
        ("# R35 (release), REVISION: 4.1, GCID: 33958178", "35.4.1"),
        ("# R36 (release), REVISION:", None),
        ("", None),
    ],
)
def test_l4t_is_read_off_the_release_file(release: str, version: str | None) -> None:
    assert l4t_version(release) == version


def _files(monkeypatch: pytest.MonkeyPatch, **texts: str) -> None:
    monkeypatch.setattr(machine, "_text", lambda path: texts.get(Path(path).name, ""))


def test_a_jetson_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _files(monkeypatch, nv_tegra_release="# R36 (release), REVISION: 4.3, x\n", model="NVIDIA Jetson Orin Nano\0")
    finding = answered("jetson")
    assert (finding.ok, finding.version, finding.detail) == (True, "36.4.3", "NVIDIA Jetson Orin Nano")


def test_another_machine_is_no_jetson(monkeypatch: pytest.MonkeyPatch) -> None:
    _files(monkeypatch)
    assert answered("jetson") == Check("jetson", None, None, "this is not a Jetson")


def test_cpu_features_are_named_on_x86_and_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    _files(monkeypatch, cpuinfo="model name\t: Xeon\nflags\t\t: fpu avx512f avx512_vnni avx512_bf16\n")
    assert answered("cpu").detail.startswith("Xeon, ")
    assert answered("cpu").detail.endswith("avx512, avx512-vnni, avx512-bf16")
    _files(monkeypatch, cpuinfo="Features\t: fp asimd asimddp fphp\n")
    assert answered("cpu").detail.endswith("int8 dot product, fp16")


def test_a_full_disk_is_not_ok(monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 100 << 20

    monkeypatch.setattr("toolkit.doctor.machine.shutil.disk_usage", lambda path: Usage)
    finding = answered("disk space")
    assert (finding.ok, finding.fix) == (False, doctor.FIXES["disk space"])
    assert "0.1 GiB free" in finding.detail


def _driver(monkeypatch: pytest.MonkeyPatch, driver: Driver) -> None:
    monkeypatch.setattr(gpu, "probe_driver", lambda: driver)


def test_gpus_are_listed_with_capability_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    _driver(monkeypatch, Driver(True, "", "12.6", (Device("Orin", "SM87", 7620),)))
    finding = answered("cuda driver")
    assert (finding.ok, finding.version, finding.detail) == (True, "CUDA 12.6", "Orin (SM87, 7,620 MiB)")


def test_a_missing_driver_is_absent_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    _driver(monkeypatch, Driver(False, "there is no NVIDIA driver"))
    finding = answered("cuda driver")
    assert (finding.ok, finding.detail) == (None, "there is no NVIDIA driver")


def test_a_tensorrt_that_only_runs_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    found: Any = TensorRT(None, "lean", "11.4", can_build=False, strongly_typed_only=True)
    monkeypatch.setattr(gpu, "find_tensorrt", lambda: found)
    assert answered("tensorrt").detail == "lean: runs engines, cannot build them"


def _installed(monkeypatch: pytest.MonkeyPatch, **modules: Any) -> None:
    """These modules of TensorRT and no others, beside a driver that answers."""
    for name in MODULES:
        monkeypatch.setitem(sys.modules, name, modules.get(name))
    monkeypatch.setattr(gpu, "probe_driver", lambda: Driver(True, "", "12.4", ()))


def test_each_tensorrt_is_asked_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    flags = type("BuilderFlag", (), {"FP16": 0})
    modules = {
        "tensorrt_bindings": SimpleNamespace(__version__="10.6.0", BuilderFlag=flags),
        "tensorrt_lean": SimpleNamespace(__version__="11.4.0", BuilderFlag=flags),
    }
    _installed(monkeypatch, **modules)
    monkeypatch.setattr(gpu, "require_cuda_starts", lambda found, driver: asked.append(found.name))
    findings = {kind: answered(f"cuda with {kind}") for kind in dict.fromkeys(MODULES.values())}
    assert {kind: finding.ok for kind, finding in findings.items()} == {
        "tensorrt": True, "tensorrt-rtx": None, "lean": True, "dispatch": None,
    }  # fmt: skip
    assert asked == ["tensorrt 10.6.0", "lean 11.4.0"]
    assert "CUDA 12.4" in findings["lean"].detail


def test_a_tensorrt_that_cannot_start_cuda_is_broken_and_wants_a_driver_not_another_tensorrt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = SimpleNamespace(__version__="10.6.0", BuilderFlag=type("BuilderFlag", (), {"FP16": 0}))
    _installed(monkeypatch, tensorrt=module)

    def refuse(found: TensorRT, driver: Driver) -> None:
        raise CudaDoesNotStart(f"{found.name} cannot start CUDA here", found="error: 35", fix="update the driver")

    monkeypatch.setattr(gpu, "require_cuda_starts", refuse)
    finding = answered("cuda with tensorrt")
    assert (finding.ok, finding.fix) == (False, "update the driver")
    assert finding.detail == "tensorrt 10.6.0 cannot start CUDA here: error: 35"


def test_a_tensorrt_that_does_not_import_is_named_though_another_one_works(tmp_path: Path) -> None:
    (tmp_path / "tensorrt_lean").mkdir()
    (tmp_path / "tensorrt_lean/__init__.py").write_text("raise ImportError('libnvinfer_lean.so.11: cannot open')")
    program = "import sys; from toolkit.doctor import checks; checks.answer_to_parent('cuda with lean')"
    paths = f"{tmp_path}{os.pathsep}{Path(doctor.__file__).parents[2]}"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths}
    )
    finding = Check(**json.loads(done.stdout.splitlines()[-1]))
    assert (finding.ok, finding.fix) == (False, doctor.FIXES["cuda with lean"])
    assert "libnvinfer_lean.so.11" in finding.detail


@pytest.mark.slow
def test_a_driver_that_answers_and_is_no_use_to_a_real_rtx_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("no gcc to make a libcuda of")
    source = Path(__file__).parents[1] / "runtime/cuda/stub/libcuda.c"
    words = f"-shared -fPIC -w -Wl,-soname,libcuda.so.1 -o {tmp_path}/libcuda.so.1 {source} -lpthread -ldl"
    subprocess.run([gcc, *words.split()], check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    assert check("cuda driver").ok is True
    finding = check("cuda with tensorrt-rtx")
    assert finding.ok is False
    assert "loads no engine here: the driver is older than the CUDA" in finding.detail
    assert "update the NVIDIA driver" in str(finding.fix)


def test_a_provider_that_leaves_the_work_to_the_cpu_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="asks real providers")
    pytest.importorskip("onnx", reason="makes a model")
    if "AzureExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has no provider that takes no node")
    finding = _with(monkeypatch, partial(packages.relu_with, "AzureExecutionProvider"), "onnxruntime cuda")
    assert (finding.ok, finding.fix) == (False, doctor.FIXES["onnxruntime cuda"])
    assert "fallback to CPU EP has been explicitly disabled" in finding.detail


@pytest.mark.parametrize(("name", "provider"), [("cuda", "CUDA"), ("tensorrt", "Tensorrt")])
def test_gpu_providers_that_are_not_installed_are_absent_with_the_command(name: str, provider: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="asks real providers")
    if f"{provider}ExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip(f"this onnxruntime has {provider}")
    finding = answered(f"onnxruntime {name}")
    assert finding.ok is None
    assert f"has no {provider}ExecutionProvider" in finding.detail
    assert requirement("gpu") in str(finding.fix)
