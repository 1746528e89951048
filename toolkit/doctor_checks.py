"""What `toolkit doctor` computes: each check returns a version and what it showed, or raises what went wrong."""

from __future__ import annotations

import base64
import importlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from toolkit.errors import MissingPackage
from toolkit.lazy import needs
from toolkit.runtime.driver import probe_driver
from toolkit.runtime.ort.quirks import OPTIMIZER, SWITCH, breaks_half_biases
from toolkit.runtime.ort.saturation import saturates

NEEDED_FREE_GIB = 1.0
CPU_FEATURES = {
    "avx2": "avx2",
    "avx512f": "avx512",
    "avx512_vnni": "avx512-vnni",
    "avx_vnni": "avx-vnni",
    "avx512_bf16": "avx512-bf16",
    "amx_bf16": "amx-bf16",
    "amx_int8": "amx-int8",
    "asimddp": "int8 dot product",
    "i8mm": "int8 matmul",
    "bf16": "bf16",
    "fphp": "fp16",
}

# As bytes, because a device has TensorRT and ONNX Runtime but no onnx; both as onnx.helper writes them, opset 17.
# Relu over float32 "x" (4,) to "y".
TINY_RELU = base64.b64decode("CAg6NgoMCgF4EgF5IgRSZWx1EgRyZWx1Wg8KAXgSCgoICAESBAoCCARiDwoBeRIKCggIARIECgIIBEIECgAQEQ==")
# A 1x1 convolution with one weight, 2.0, over float32 "x" (1, 1, 4, 4) to "y".
TINY_CONV = base64.b64decode(
    "CAg6ZgoPCgF4CgF3EgF5IgRDb252EgRjb252KhMIAQgBCAEIARABIgQAAABAQgF3WhsKAXgSFgoUCAESEAoCCAEKAggBCgIIBAoC"
    "CARiGwoBeRIWChQIARIQCgIIAQoCCAEKAggECgIIBEIECgAQEQ=="
)


class Absent(Exception):
    """Something optional is not here: what, and the command that brings it."""

    def __init__(self, detail: str, fix: str | None = None) -> None:
        super().__init__(detail)
        self.fix = fix


Answer = tuple[str | None, str]  # version, detail


@contextmanager
def temporary(data: bytes, name: str) -> Iterator[Path]:
    """A file with these bytes, for as long as it is looked at."""
    with tempfile.TemporaryDirectory(prefix="toolkit-doctor-") as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        yield path


def _expect(right: bool, wrong: str) -> None:
    """An `assert` that python -O keeps."""
    if not right:
        raise RuntimeError(f"wrong answer: {wrong}")


def python_version() -> Answer:
    """At least 3.10, which a checkout may not have: pip never saw it."""
    if tuple(sys.version_info) < (3, 10):
        raise RuntimeError(f"Python {platform.python_version()} is too old, 3.10 is needed")
    return platform.python_version(), sys.executable


def disk_space() -> Answer:
    """Room for a model in the current folder."""
    free_gib = shutil.disk_usage(".").free / 2**30
    if free_gib < NEEDED_FREE_GIB:
        raise RuntimeError(f"{free_gib:.1f} GiB free in {Path.cwd()}, {NEEDED_FREE_GIB:g} GiB are needed")
    return None, f"{free_gib:.1f} GiB free in {Path.cwd()}"


def cpu_features() -> Answer:
    """The CPU with those of its features that make networks faster."""
    lines = _text("/proc/cpuinfo").splitlines()
    if not lines:
        raise Absent("/proc/cpuinfo cannot be read, so the CPU's features are unknown")
    words = {word for line in lines if line.lower().startswith(("flags", "features")) for word in line.split()}
    names = [name for flag, name in CPU_FEATURES.items() if flag in words]
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return None, f"{model}, {os.cpu_count()} cores, {', '.join(names) or 'none of the features that help'}"


def jetson_release() -> Answer:
    """The board and its L4T."""
    release = _text("/etc/nv_tegra_release").partition("\n")[0]
    model = _text("/proc/device-tree/model").strip("\0\n")
    if not release and "jetson" not in model.lower():
        raise Absent("this is not a Jetson")
    return l4t_version(release), model or "unknown model"


def l4t_version(release: str) -> str | None:
    """L4T's version from the first line of /etc/nv_tegra_release: "# R36 (release), REVISION: 4.3, ..." is 36.4.3."""
    words = release.replace(",", " ").split()
    if "REVISION:" not in words[:-1]:
        return None
    major = next((word[1:] for word in words if word[0] == "R" and word[1:].isdigit()), None)
    return f"{major}.{words[words.index('REVISION:') + 1]}" if major else None


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def numpy_product() -> Answer:
    """A product of two matrices."""
    with needs("compute anything"):
        import numpy as np
    product = np.arange(6.0).reshape(2, 3) @ np.ones((3, 2))
    _expect(product.tolist() == [[3.0, 3.0], [12.0, 12.0]], f"a matmul gave {product.tolist()}")
    return np.__version__, "matmul is right"


def weights_round_trip() -> Answer:
    """Weights to safetensors and back."""
    with needs("read and write weights"):
        import numpy as np
        import safetensors
        from safetensors.numpy import load, save
    weights = np.arange(4, dtype=np.float32)
    _expect((load(save({"w": weights}))["w"] == weights).all(), "weights came back changed")
    return safetensors.__version__, "round trip is right"


def png_round_trip() -> Answer:
    """A pixel to PNG and back."""
    with needs("read PNG and JPEG files"):
        import io

        import PIL
        from PIL import Image
    stream = io.BytesIO()
    Image.new("RGB", (2, 2), (1, 2, 3)).save(stream, "PNG")
    _expect(Image.open(stream).getpixel((1, 1)) == (1, 2, 3), "a pixel came back changed")
    return PIL.__version__, "PNG round trip is right"


def _torch_conv(device: str) -> str:
    """Convolves ones on a device, checks the sum and returns torch's version."""
    import torch

    answer = torch.nn.functional.conv2d(torch.ones(1, 2, 4, 4, device=device), torch.ones(3, 2, 3, 3, device=device))
    _expect(abs(float(answer.sum()) - 216) < 1e-3, f"a convolution gave {float(answer.sum())} instead of 216")
    return str(torch.__version__)


def torch_on_cpu() -> Answer:
    """A convolution of PyTorch."""
    with needs("train and export models"):
        version = _torch_conv("cpu")
    return version, "convolution on the CPU is right"


def torch_on_cuda() -> Answer:
    """The same on the GPU."""
    with needs("train on a GPU"):
        import torch
    if torch.version.cuda is None:
        raise Absent("this torch is built without CUDA", "pip install --force-reinstall torch (its CUDA build)")
    _require_driver()
    version = _torch_conv("cuda")
    return version, f"convolution on {torch.cuda.get_device_name(0)} is right"


def _require_driver() -> None:
    driver = probe_driver()
    if not driver.available:
        raise Absent(driver.reason)


def onnx_model() -> Answer:
    """The built-in Relu as a file of ONNX, read and checked."""
    with needs("write ONNX files"):
        import onnx
    model = onnx.load_from_string(TINY_RELU)
    onnx.checker.check_model(model, full_check=True)
    operators = [node.op_type for node in model.graph.node]
    _expect(operators == ["Relu"], f"a model with one Relu holds {operators}")
    return onnx.__version__, "a model is read and checked right"


def relu_with(provider: str) -> Answer:
    """Runs a Relu with one provider of ONNX Runtime, which leaves nothing to the CPU."""
    from toolkit.runtime.ort.runner import require_provider

    with needs("run ONNX files"):
        import numpy as np
        import onnxruntime
    require_provider(onnxruntime, provider)
    options = onnxruntime.SessionOptions()
    if provider != "CPUExecutionProvider":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    session = onnxruntime.InferenceSession(TINY_RELU, options, providers=[provider], enable_fallback=0)
    if session.get_providers()[0] != provider:
        raise RuntimeError(f"{provider} did not start, onnxruntime fell back to {session.get_providers()[0]}")
    (answer,) = session.run(None, {"x": np.array([-1, 0, 1, 2], np.float32)})
    _expect(answer.tolist() == [0, 0, 1, 2], f"Relu gave {answer.tolist()}")
    return str(onnxruntime.__version__), f"Relu with {provider} is right"


def ort_on_cpu() -> Answer:
    """A Relu, and, where onnx can write such files, what goes wrong here outside the toolkit."""
    version, detail = relu_with("CPUExecutionProvider")
    with suppress(MissingPackage):
        if breaks_half_biases():
            detail += f"; outside the toolkit it computes FP16 with Q/DQ wrongly unless {SWITCH} is {OPTIMIZER}"
        if saturates():
            detail += "; uint8 times int8 saturates on this processor: INT8 files of others lose accuracy here"
    return version, detail


def cuda_driver() -> Answer:
    """The driver and its GPUs."""
    driver = probe_driver()
    if not driver.available:
        raise Absent(driver.reason, "install the NVIDIA driver (on a Jetson it comes with JetPack)")
    devices = (f"{d.name} ({d.compute_capability}, {d.memory_mib:,} MiB)" for d in driver.devices)
    return f"CUDA {driver.driver_version}", ", ".join(devices)


def pycuda_devices() -> Answer:
    """The GPUs that pycuda counts."""
    with needs("drive the GPU with pycuda"):
        import pycuda
    _require_driver()
    driver = importlib.import_module("pycuda.driver")
    driver.init()
    return str(pycuda.VERSION_TEXT), f"{driver.Device.count()} GPUs"


def cuda_python_devices() -> Answer:
    """The GPUs that cuda-python counts, through the driver's interface, as runners use it."""
    from toolkit.runtime.cuda.cuda_python import HOLDS, bindings, lets_go

    with needs("drive the GPU with cuda-python"):
        driver, version = bindings()
    _require_driver()
    count = 0
    for call, answer in (("cuInit", driver.cuInit(0)), ("cuDeviceGetCount", driver.cuDeviceGetCount())):
        if int(answer[0]) != 0:
            raise RuntimeError(f"{call} returned {answer[0].name}")
        count = answer[-1]
    return version, f"{count} GPUs" + ("" if lets_go(version) else f"; {HOLDS}")
