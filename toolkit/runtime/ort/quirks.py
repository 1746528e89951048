"""Where ONNX Runtime computes INT8 files otherwise than they say: rounded biases, and products that saturate.

Biases: from 1.21 on (microsoft/onnxruntime pull request 22889; 1.32 is the newest tried) an optimizer of the basic
level, `WeightBiasQuantization`, replaces the float bias of a Conv or Gemm between Q/DQ by int32 numbers in steps of
(input's scale x weight's scale). It counts the steps in the type of the bias and does not look whether they fit: more
than 65,504 of them are infinity in FP16, and 2^31 of them overflow in FP32. Both become the most negative int32.
TensorRT keeps such biases as they are. So FP16 files lose channels that have small weights and a usual bias, and FP32
files those that have nearly no weights. On a GPU it also costs speed: the CUDA provider of 1.31 has no kernel for the
DequantizeLinear of an int32 bias, so that a node of each layer falls to the CPU.

Products of uint8 and int8 on x86 without VNNI: VPMADDUBSW adds two of them in 16 bits, and 255 x 127 + 255 x 127
becomes 32,767. ONNX Runtime's own advice is to quantize weights to 7 bits for such processors
(docs/performance/model-optimizations/quantization.md, "reduce_range").
"""

from __future__ import annotations

from typing import Any

from toolkit.lazy import needs
from toolkit.runtime.ort.session_options import session_options

OPTIMIZER = "WeightBiasQuantization"
CRASHES = "MatmulTransposeFusion"
SWITCH = "optimization.disable_specified_optimizers"  # a session config entry; names with semicolons
WIDTH = 16  # of the weights of `smallest_product`: kernels work on blocks of that many columns


def keep_float_biases(options: Any) -> None:
    """Tells an onnxruntime.SessionOptions to leave float biases alone; versions without the optimizer ignore it."""
    options.add_session_config_entry(SWITCH, f"{OPTIMIZER};{CRASHES}")


def smallest_graph(half: bool, largest_weight: float) -> bytes:
    """One 1x1 convolution with a bias of 1 over `x` (1, 1, 1, 1) to `y`, Q/DQ on everything but the bias.

    Args:
        half: FLOAT16 with its scales, else FLOAT.
        largest_weight: of the only channel, as int8 127. FP16 breaks below 0.038 and FP32 below 1.2e-6.
    """
    with needs("write ONNX files"):
        import numpy as np
        import onnx
        from onnx import helper, numpy_helper
    dtype = np.float16 if half else np.float32
    scales = {"x_scale": 0.05, "y_scale": 0.0625, "b": [1.0], "w_scale": [largest_weight / 127]}
    values = {name: np.array(value, dtype) for name, value in scales.items()}
    values |= {"zero": np.array(0, np.int8), "zeros": np.zeros(1, np.int8), "w": np.full((1, 1, 1, 1), 127, np.int8)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x_scale", "zero"], ["x_int8"]),
        helper.make_node("DequantizeLinear", ["x_int8", "x_scale", "zero"], ["x_back"]),
        helper.make_node("DequantizeLinear", ["w", "w_scale", "zeros"], ["w_back"], axis=0),
        helper.make_node("Conv", ["x_back", "w_back", "b"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "y_scale", "zero"], ["c_int8"]),
        helper.make_node("DequantizeLinear", ["c_int8", "y_scale", "zero"], ["y"]),
    ]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    ends = [helper.make_tensor_value_info(name, kind, [1, 1, 1, 1]) for name in ("x", "y")]
    tensors = [numpy_helper.from_array(value, name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "bias", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data


def answer_to_zero(model: bytes, *, as_its_users_run_it: bool = True) -> float:
    """What `smallest_graph` answers to a zero in ONNX Runtime; 1.0 is right.

    Args:
        as_its_users_run_it: with ONNX Runtime's defaults; else with `keep_float_biases`.
    """
    with needs("run ONNX files"):
        import numpy as np
        import onnxruntime
    options = session_options()
    if not as_its_users_run_it:
        keep_float_biases(options)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    dtype = np.float16 if session.get_inputs()[0].type == "tensor(float16)" else np.float32
    return float(session.run(None, {"x": np.zeros((1, 1, 1, 1), dtype)})[0].item())


def breaks_half_biases() -> bool:
    """Whether this ONNX Runtime, with its defaults, computes FP16 with Q/DQ wrongly."""
    return answer_to_zero(smallest_graph(True, 0.01)) != 1.0


def smallest_product() -> bytes:
    """`y` int32 (4, 16): uint8 `x` (4, 4) times int8 weights of 127."""
    with needs("write ONNX files"):
        import numpy as np
        import onnx
        from onnx import TensorProto, helper, numpy_helper
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [4, WIDTH])],
        [numpy_helper.from_array(np.full((4, WIDTH), 127, np.int8), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data


def saturates() -> bool:
    """Whether 4 x 255 x 127 comes out as anything else on this processor."""
    with needs("run ONNX files"):
        import numpy as np
        import onnxruntime
    session = onnxruntime.InferenceSession(smallest_product(), session_options(), providers=["CPUExecutionProvider"])
    answers = session.run(None, {"x": np.full((4, 4), 255, np.uint8)})[0]
    return bool((answers != 4 * 255 * 127).any())
