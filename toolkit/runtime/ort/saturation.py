"""Whether ONNX Runtime's products of uint8 and int8 saturate on this processor, as they do on x86 without VNNI.

There VPMADDUBSW adds two products in 16 bits: 255 x 127 + 255 x 127 becomes 32,767. ONNX Runtime's own advice is to
quantize weights to 7 bits for such processors (docs/performance/model-optimizations/quantization.md, "reduce_range").
"""

from __future__ import annotations

from toolkit.lazy import needs

WIDTH = 16  # of the weights: kernels work on blocks of that many columns


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
    """Whether 4 x 255 x 127 comes out as anything else."""
    with needs("run ONNX files"):
        import numpy as np
        import onnxruntime
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(smallest_product(), options, providers=["CPUExecutionProvider"])
    answers = session.run(None, {"x": np.full((4, 4), 255, np.uint8)})[0]
    return bool((answers != 4 * 255 * 127).any())
