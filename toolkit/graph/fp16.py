"""FP16 in the file, not in a flag: typed weights and activations, uint8 in, float32 logits out.

The preprocessing stays in float32 and one Cast stands before the first layer, one behind the last: pixels up to 255
times a scale lose bits in half precision for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.errors import ExportError
from toolkit.graph.edit import add_constants, arrays_of, attributes, drop_attribute, set_nodes

if TYPE_CHECKING:
    import onnx

LARGEST = 65504.0  # the largest finite IEEE 754 binary16 number
# Sixteen steps of its smallest numbers.
SMALLEST = 16 * float(np.finfo(np.float16).smallest_subnormal)
PREPROCESS = "preprocess/"
OPSET_OF_HALF_SCALES = 19  # the first in which ONNX allows float16 scales


def require_fits_fp16(model: onnx.ModelProto, abs_max_of_tensor: dict[str, float]) -> None:
    """Refuses a net whose weights or activations leave the range of half precision.

    Args:
        abs_max_of_tensor: the largest |value| of each activation, measured on real images.

    Raises:
        ExportError: names the tensor; a factor of 2 is kept for images nobody has measured. Or FP16 would make zeros of
            the logits.
    """
    bounds = _bounds(model.graph.node)
    for name, array in arrays_of(model.graph).items():
        values = np.abs(array.astype(np.float64)) if array.dtype == np.float32 and name not in bounds else np.zeros(0)
        if values.size and not values.max() <= LARGEST:  # NaN too
            raise ExportError(
                f"weight '{name}' overflows FP16",
                found=f"{values.max():.4g}",
                allowed=f"{LARGEST:g}",
                fix="export without `fp16=True`",
            )
    logits = abs_max_of_tensor.get(model.graph.output[0].name, 1.0)
    if 0 < logits < SMALLEST:  # a layer inside may be as small: weight decay makes whole blocks so, and they do nothing
        raise ExportError(
            "the logits are so small that FP16 has no digits for them",
            found=f"largest {logits:.4g}",
            allowed=f"{SMALLEST:.2g} and more",
            fix="export without `fp16=True`",
        )
    for name, largest in abs_max_of_tensor.items():
        if not largest <= LARGEST / 2:  # NaN too
            raise ExportError(
                f"activation '{name}' comes too close to the end of FP16",
                found=f"{largest:.4g} on the calibration images",
                allowed=f"{LARGEST / 2:g}, half of the largest FP16 number",
                fix="export without `fp16=True`",
            )


def fp16_from_onnx(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of an fp32 graph with float16 weights and activations between preprocessing and logits.

    A Q/DQ graph gets float16 scales too, and the opset that allows them.

    Raises:
        ExportError: the net has an operator that cannot be written in half precision, or a scale that float16 does
            not hold exactly: the files would no longer have the same ones.
    """
    import onnx
    from onnx import TensorProto, helper

    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    if _quantized(graph):
        _require_half_scales(graph)
        next(entry for entry in result.opset_import if entry.domain == "").version = OPSET_OF_HALF_SCALES
        _say_in_opset_of_half_scales(graph)
    quantized = {node.name for node in _quantized(graph)}  # of the last preprocessed tensor; they come behind the Cast
    first = [node.name.startswith(PREPROCESS) and node.name not in quantized for node in graph.node]
    before = [node for node, is_first in zip(graph.node, first, strict=True) if is_first]
    after = [node for node, is_first in zip(graph.node, first, strict=True) if not is_first]
    _halve_weights(graph, after)
    _halve_casts(after)
    entry, logits = before[-1].output[0], graph.output[0].name
    for node in after:
        node.input[:] = [f"{entry}_fp16" if name == entry else name for name in node.input]
        node.output[:] = [f"{logits}_fp16" if name == logits else name for name in node.output]
    into = helper.make_node("Cast", [entry], [f"{entry}_fp16"], "preprocess/CastToHalf", to=TensorProto.FLOAT16)
    out = helper.make_node("Cast", [f"{logits}_fp16"], [logits], "head/CastToFloat", to=TensorProto.FLOAT)
    del graph.value_info[:]
    set_nodes(graph, [*before, into, *after, out])
    _require_typed(result)
    return result


def _quantized(graph: Any) -> list[Any]:
    return [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]


def _require_half_scales(graph: Any) -> None:
    from onnx import numpy_helper

    scales = {node.input[1] for node in _quantized(graph)}
    for tensor in graph.initializer:
        if tensor.name in scales:
            values = numpy_helper.to_array(tensor)
            with np.errstate(over="ignore"):
                same = values.astype(np.float16).astype(np.float32) == values
            if not same.all():
                raise ExportError(
                    f"the scale '{tensor.name}' is no FP16 number",
                    found=f"{float(values[~same].reshape(-1)[0]):.4g}",
                    allowed=f"{float(np.finfo(np.float16).tiny):.4g} to {LARGEST:g}, rounded to FP16",
                    fix="use model.int8.onnx, whose scales are float32",
                )


def _halve_weights(graph: Any, nodes: list[Any]) -> None:
    """Float initializers of the net to float16; those of the preprocessing, and scales of Resize, stay float32."""
    from onnx import TensorProto, numpy_helper

    bounds = _bounds(nodes)
    # ONNX: roi and scales of Resize have types of their own, and scales has float32 only.
    fixed = {name for node in nodes if node.op_type == "Resize" for name in node.input[1:]}
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and not (
            tensor.name.startswith("preprocess.") or tensor.name in fixed
        ):
            values = numpy_helper.to_array(tensor)
            values = values.clip(-LARGEST, LARGEST) if tensor.name in bounds else values
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), tensor.name))


def _bounds(nodes: Iterable[Any]) -> set[str]:
    """What a Clip clips to: "no bound" is often written as the largest float32."""
    return {name for node in nodes if node.op_type == "Clip" for name in node.input[1:]}


def _say_in_opset_of_half_scales(graph: Any) -> None:
    """What another opset than 17 wants said otherwise: axes of Reduce* as an input, the number of parts of a Split."""
    from onnx import helper

    for node in graph.node:
        facts = attributes(node)
        if node.op_type.startswith("Reduce") and "axes" in facts:
            node.input.append(f"{node.output[0]}_axes")
            add_constants(graph, {node.input[1]: np.array(facts["axes"], np.int64)})
            drop_attribute(node, "axes")
        elif node.op_type == "Split" and len(node.input) < 2:
            node.attribute.append(helper.make_attribute("num_outputs", len(node.output)))


def _halve_casts(nodes: list[Any]) -> None:
    """`x.float()` inside the net would bring float32 back, where the next operator wants two tensors of one type."""
    from onnx import TensorProto

    for node in nodes:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16


def _require_typed(model: onnx.ModelProto) -> None:
    """Refuses a graph whose types do not agree."""
    import onnx

    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(
            "this network cannot be written in FP16",
            found=" ".join(str(error).split())[:300],
            fix="export without `fp16=True`",
        ) from error
