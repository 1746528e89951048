"""The packages that train, export and run on the CPU: each check computes, and returns a version and what it showed."""

from __future__ import annotations

import base64
from contextlib import suppress

from toolkit.doctor.machine import Answer, expect
from toolkit.errors import MissingPackage
from toolkit.lazy import needs
from toolkit.runtime.ort.quirks import OPTIMIZER, SWITCH, breaks_half_biases, saturates
from toolkit.runtime.ort.session_options import session_options

# As bytes, because a device has TensorRT and ONNX Runtime but no onnx; both as onnx.helper writes them, opset 17.
# Relu over float32 "x" (4,) to "y".
TINY_RELU = base64.b64decode("CAg6NgoMCgF4EgF5IgRSZWx1EgRyZWx1Wg8KAXgSCgoICAESBAoCCARiDwoBeRIKCggIARIECgIIBEIECgAQEQ==")
# A 1x1 convolution with one weight, 2.0, over float32 "x" (1, 1, 4, 4) to "y".
TINY_CONV = base64.b64decode(
    "CAg6ZgoPCgF4CgF3EgF5IgRDb252EgRjb252KhMIAQgBCAEIARABIgQAAABAQgF3WhsKAXgSFgoUCAESEAoCCAEKAggBCgIIBAoC"
    "CARiGwoBeRIWChQIARIQCgIIAQoCCAEKAggECgIIBEIECgAQEQ=="
)


def numpy_product() -> Answer:
    """A product of two matrices."""
    with needs("compute anything"):
        import numpy as np
    product = np.arange(6.0).reshape(2, 3) @ np.ones((3, 2))
    expect(product.tolist() == [[3.0, 3.0], [12.0, 12.0]], f"a matmul gave {product.tolist()}")
    return np.__version__, "matmul is right"


def weights_round_trip() -> Answer:
    """Weights to safetensors and back."""
    with needs("read and write weights"):
        import numpy as np
        import safetensors
        from safetensors.numpy import load, save
    weights = np.arange(4, dtype=np.float32)
    expect((load(save({"w": weights}))["w"] == weights).all(), "weights came back changed")
    return safetensors.__version__, "round trip is right"


def png_round_trip() -> Answer:
    """A pixel to PNG and back."""
    with needs("read PNG and JPEG files"):
        import io

        import PIL
        from PIL import Image
    stream = io.BytesIO()
    Image.new("RGB", (2, 2), (1, 2, 3)).save(stream, "PNG")
    expect(Image.open(stream).getpixel((1, 1)) == (1, 2, 3), "a pixel came back changed")
    return PIL.__version__, "PNG round trip is right"


def torch_conv(device: str) -> str:
    """Convolves ones on a device, checks the sum and returns torch's version."""
    import torch

    answer = torch.nn.functional.conv2d(torch.ones(1, 2, 4, 4, device=device), torch.ones(3, 2, 3, 3, device=device))
    expect(abs(float(answer.sum()) - 216) < 1e-3, f"a convolution gave {float(answer.sum())} instead of 216")
    return str(torch.__version__)


def torch_on_cpu() -> Answer:
    """A convolution of PyTorch."""
    with needs("train and export models"):
        version = torch_conv("cpu")
    return version, "convolution on the CPU is right"


def onnx_model() -> Answer:
    """The built-in Relu as a file of ONNX, read and checked."""
    with needs("write ONNX files"):
        import onnx
    model = onnx.load_from_string(TINY_RELU)
    onnx.checker.check_model(model, full_check=True)
    operators = [node.op_type for node in model.graph.node]
    expect(operators == ["Relu"], f"a model with one Relu holds {operators}")
    return onnx.__version__, "a model is read and checked right"


def relu_with(provider: str) -> Answer:
    """Runs a Relu with one provider of ONNX Runtime, which leaves nothing to the CPU."""
    from toolkit.runtime.ort.runner import require_provider

    with needs("run ONNX files"):
        import numpy as np
        import onnxruntime
    require_provider(onnxruntime, provider)
    options = session_options()
    if provider != "CPUExecutionProvider":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    session = onnxruntime.InferenceSession(TINY_RELU, options, providers=[provider], enable_fallback=0)
    if session.get_providers()[0] != provider:
        raise RuntimeError(f"{provider} did not start, onnxruntime fell back to {session.get_providers()[0]}")
    (answer,) = session.run(None, {"x": np.array([-1, 0, 1, 2], np.float32)})
    expect(answer.tolist() == [0, 0, 1, 2], f"Relu gave {answer.tolist()}")
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
