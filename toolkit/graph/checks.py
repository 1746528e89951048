"""Before a file is written: is the graph one that every TensorRT reads rightly, and is it still the same model?"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.contracts import Float32, UInt8
from toolkit.errors import ExportError, ToolkitError
from toolkit.runtime.runner import Runner

if TYPE_CHECKING:
    import onnx

BATCHES = (1, 7, 64)
# Float32 sums in another order; measured on the shipped model: 3e-6 of the largest logit.
RELATIVE_TOLERANCE = 1e-4
HALF_TOLERANCE = 5e-3  # of a network that computes in half precision somewhere: 11 bits, rounded several times


def require_portable(model: onnx.ModelProto) -> None:
    """Refuses what some TensorRT reads wrongly or not at all.

    Raises:
        ExportError: opset above 17 (TensorRT 8), a reduction whose axes are an input (TensorRT 8 ignores it and
            reduces over all axes), a BatchNorm that was not folded, a Transpose on uint8, or a weight that is not
            finite.
    """
    from onnx import numpy_helper

    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset > 17:
        raise ExportError("the portable file must be read by TensorRT 8", found=f"opset {opset}", allowed="17 or less")
    _require_plain_reductions(model.graph)
    _require_folded_norms(model.graph)
    for node in model.graph.node:
        if node.op_type == "Transpose" and "images" in node.input:
            raise ExportError(f"'{node.name}' transposes uint8, which TensorRT refuses", allowed="Cast first")
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ExportError(f"weight '{tensor.name}' holds NaN or infinity", found="after folding BatchNorm")


def _require_plain_reductions(graph: Any) -> None:
    """Axes stand in an attribute; only ReduceSum has them as an input before opset 18, and TensorRT 8 reads that one.

    Source: onnx-tensorrt, builtin_op_importers.cpp, release/8.5-GA: ReduceSum passes its second input on, the
    others do not.
    """
    constants = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if not node.op_type.startswith("Reduce") or len(node.input) < 2:
            continue
        if node.op_type != "ReduceSum" or node.input[1] not in constants:
            raise ExportError(
                f"'{node.name}' is a {node.op_type} that has its axes as an input; TensorRT 8 may reduce over all axes",
                allowed="GlobalAveragePool, or axes that are written down",
                fix="use torch.nn.AdaptiveAvgPool2d(1) instead of x.mean((2, 3))",
            )


def _require_folded_norms(graph: Any) -> None:
    """A BatchNorm whose input comes from a convolution that nobody else reads could have been folded.

    Elsewhere, as in pre-activation nets, it stays: TensorRT reads it as a scale of each channel.
    """
    constants = {tensor.name for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    read = Counter(name for node in graph.node for name in node.input)
    for node in graph.node:
        if node.op_type != "BatchNormalization":
            continue
        maker = makers.get(node.input[0])
        foldable = maker is not None and maker.op_type == "Conv" and maker.input[1] in constants
        if len(node.output) > 1 or (foldable and read[node.input[0]] == 1):
            raise ExportError(f"'{node.name}' was not folded into its convolution", fix="call model.eval() first")


def computes_in_half(model: onnx.ModelProto) -> bool:
    """Whether a layer of an fp32 graph was written in half precision."""
    from onnx import TensorProto

    half = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
    return any(a.name == "to" and a.i in half for node in model.graph.node for a in node.attribute)


def require_same_answers(
    reference: Runner, candidate: Runner, images_nhwc: UInt8, tolerance: float = RELATIVE_TOLERANCE
) -> dict[str, Any]:
    """Compares two runners at batch 1, 7 and 64 on real images; returns the largest difference of each.

    Args:
        images_nhwc: uint8 (N, H, W, C); repeated where there are fewer than 64.

    Raises:
        ExportError: logits differ by more than `tolerance` of the largest logit, or are not finite.
    """
    worst = {}
    for batch in BATCHES:
        images = np.resize(images_nhwc, (batch, *images_nhwc.shape[1:]))
        expected, got = _answers(reference, images), _answers(candidate, images)
        if not np.isfinite(expected).all():
            raise ExportError(
                f"{reference.description} answers with NaN or infinity",
                found=f"{int((~np.isfinite(expected)).sum())} of {expected.size} logits at batch {batch}",
                fix="look for weights of 1e30 and more, and for divisions by zero",
            )
        worst[str(batch)] = relative_difference(expected, got)
        if np.array_equal(expected, expected.astype(np.float16).astype(np.float32)):
            tolerance = max(tolerance, HALF_TOLERANCE)  # it rounds its answers to half precision
        if not worst[str(batch)] <= tolerance:
            raise ExportError(
                f"{candidate.description} does not compute what {reference.description} does",
                found=f"at batch {batch} logits differ by {worst[str(batch)]:.2g} of the largest",
                allowed=f"{tolerance:g}",
                fix="this is a bug in an exporter or engine: nothing was written, please report it with the model",
            )
    return {"relative_difference_by_batch": worst, "tolerance": tolerance}


def _answers(runner: Runner, images: UInt8) -> Float32:
    """Logits; what an engine or a module raises of a batch becomes an error that names it."""
    try:
        return runner.logits(images)
    except ToolkitError:
        raise
    except Exception as error:  # onnxruntime raises types of its own, PyTorch RuntimeError
        raise ExportError(
            f"{runner.description} cannot answer a batch of {len(images)}",
            found=" ".join(str(error).split())[:200],
            allowed="any batch",
            fix="write x.shape[0] where the batch is meant, not a number",
        ) from error


def relative_difference(expected: Float32, got: Float32) -> float:
    """max|expected - got| / max|expected|; infinite where shapes differ or a value is not finite."""
    if expected.shape != got.shape or not np.isfinite(got).all() or not np.isfinite(expected).all():
        return float("inf")
    return float(np.abs(expected - got).max() / max(float(np.abs(expected).max()), 1e-30))
