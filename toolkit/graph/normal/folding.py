"""Constants computed, shapes written down, BatchNorm folded: ONNX Runtime's own optimizations at a batch that is known.

At a known batch every size in a graph is a number, so that whatever is computed from sizes alone is a constant. With an
open batch neither ONNX Runtime, nor onnxscript's optimizer, nor onnxslim fold all of it, and the symbolic arithmetic of
onnxslim 0.1.98 gets the padding of TensorFlow's SAME wrong. `toolkit.graph.normal.open_batch` opens the batch again.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.errors import ModelError
from toolkit.lazy import needs
from toolkit.runtime.ort.session_options import session_options

if TYPE_CHECKING:
    import onnx

STANDARD = ("", "ai.onnx")
# They would make two tensors one, which get ranges of their own; turn a product of a row into one of a matrix between
# two Reshapes; or find a Gelu, which opset 17 has no word for, in a graph of 20.
LEFT_OUT = ("CommonSubexpressionElimination", "ConstantSharing", "MatMulAddFusion", "GeluFusionL1")
LAYOUT = ("TransposeOptimizer",)


class BatchError(ModelError):
    """A graph that fails at another batch than the one that it was written for, or computes something else there."""


def folded_at_batch(model: onnx.ModelProto, batch: int, what: str, *, keep_layout: bool = False) -> onnx.ModelProto:
    """A copy for one batch, after ONNX Runtime's basic optimizations: those that stay within the ONNX standard.

    Args:
        what: the model, for errors.
        keep_layout: move no Transpose.

    Raises:
        BatchError: ONNX Runtime cannot run it at this batch.
    """
    with needs("fold ONNX graphs"):
        import onnx
        import onnxruntime
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
    copy.graph.output[0].type.tensor_type.ClearField("shape")
    del copy.graph.value_info[:]
    options = session_options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    disabled = [*LEFT_OUT, *(LAYOUT if keep_layout else ())]
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "model.onnx"
        options.optimized_model_filepath = str(written)
        try:
            onnxruntime.InferenceSession(
                copy.SerializeToString(), options, ["CPUExecutionProvider"], disabled_optimizers=disabled
            )
        except Exception as error:  # onnxruntime raises types of its own
            raise BatchError(
                f"{what} cannot be run in ONNX Runtime", found=f"batch {batch}: {' '.join(str(error).split())[:300]}"
            ) from error
        result = onnx.load(written)
    _leave_standard(result, what)
    return result


def _leave_standard(model: onnx.ModelProto, what: str) -> None:
    """Drops what ONNX Runtime says of itself; nothing of its own may be left."""
    others = sorted({f"{node.domain}::{node.op_type}" for node in model.graph.node if node.domain not in STANDARD})
    if others:
        raise ModelError(f"ONNX Runtime writes {what} with operators of its own", found=", ".join(others))
    standard = max(entry.version for entry in model.opset_import if entry.domain in STANDARD)
    del model.opset_import[:], model.graph.value_info[:], model.metadata_props[:]
    model.opset_import.add(version=standard)
