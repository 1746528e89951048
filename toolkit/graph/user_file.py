"""An ONNX file from any exporter, read whole; what cannot be a classifier of images is refused in words."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.bundle.onnx_bytes import has_external_data
from toolkit.errors import ModelError
from toolkit.graph.answer_end import drop_dead
from toolkit.graph.edit import arrays_of, attributes
from toolkit.graph.normal.folding import STANDARD
from toolkit.graph.user.bounds import require_bounded
from toolkit.graph.user.ends import (
    choose_output,
    complete_for_checker,
    drop_unread_inputs,
    require_one_input,
    require_one_tensor,
    require_type,
)
from toolkit.graph.user.floats import OwnTypes, in_float32
from toolkit.lazy import needs
from toolkit.storage.external_data import take_in
from toolkit.storage.files import content_of
from toolkit.storage.limits import FILE_BYTES

if TYPE_CHECKING:
    import onnx

OLDEST_OPSET = 6
QUANTIZED = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger"}
    | {"MatMulInteger"}
)
DETECTION = frozenset({"NonMaxSuppression", "RoiAlign", "MaxRoiPool"})


@dataclass(frozen=True)
class OnnxFile:
    """A file and everything that lies beside it, in memory.

    Attributes:
        model: weights inside, initializers no longer listed as inputs, functions inlined.
        sha256: of the file and of its external data, in the order of their names.
        opset, exporter: as the file says.
        own: what it was, where it was of another type than float32.
    """

    path: Path
    model: onnx.ModelProto
    sha256: str
    opset: int
    exporter: str
    own: OwnTypes | None = None


def onnx_from_file(path: Path, output: str | None = None) -> OnnxFile:
    """Reads an fp32 classifier with one input and one output.

    Args:
        output: which of several outputs holds the logits.

    Raises:
        ModelError: not a whole ONNX file, external data missing, an opset or operator that is not known, quantized
            already, written by the toolkit, or with inputs and outputs that no classifier has.
    """
    with needs("read ONNX files"):
        import onnx
    read = content_of(path, FILE_BYTES, ModelError)
    has_external_data(read, ModelError)
    content = read.data
    try:
        model = onnx.load_from_string(content)
        if not model.graph.node:
            raise ValueError("no nodes")
    except Exception as error:  # protobuf raises types of its own
        raise ModelError(f"{path} is not a whole ONNX file", found=str(error).splitlines()[0][:200]) from error
    require_bounded(path, model)
    digest = hashlib.sha256(content)
    for beside in take_in(path, model):
        digest.update(beside.data)
    opset = _require_opset(path, model)
    if any(entry.key == "toolkit.preprocessing" for entry in model.metadata_props):
        raise ModelError(
            f"{path} was written by the toolkit",
            found="preprocessing inside",
            fix="export the model that it came from, or use its bundle",
        )
    model = _in_order(path, model)
    _require_known_operators(path, model, opset)
    drop_unread_inputs(model.graph)
    require_one_input(path, model)
    _require_whole_weights(path, model)
    model, own = in_float32(model)
    _require_evaluation(path, model)
    choose_output(path, model, output)
    require_one_tensor(path, "output", model)
    require_type(path, "output", model.graph.output[0])
    drop_dead(model.graph)  # what only other outputs need would read what is called otherwise later
    _require_numbers(path, model)
    complete_for_checker(model)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise ModelError(f"{path} is not a whole ONNX file", found=_first_line(error)) from error
    exporter = f"{model.producer_name} {model.producer_version}".strip()
    if own is not None:
        choose_output(path, own.model, model.graph.output[0].name)
    return OnnxFile(path, model, digest.hexdigest(), opset, exporter, own)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]


def _require_opset(path: Path, model: onnx.ModelProto) -> int:
    from onnx import defs

    newest = defs.onnx_opset_version()
    opset = max((entry.version for entry in model.opset_import if entry.domain in STANDARD), default=0)
    if not OLDEST_OPSET <= opset <= newest:
        raise ModelError(
            f"{path} has an opset that cannot be read",
            found=opset or "none",
            allowed=f"{OLDEST_OPSET} to {newest}",
            fix="export again with opset 17"
            if opset < OLDEST_OPSET
            else "pip install -U onnx, or export with opset 17",
        )
    return opset


def _in_order(path: Path, model: onnx.ModelProto) -> onnx.ModelProto:
    """Nodes sorted, each with a name of its own, functions taken apart, initializers no longer among the inputs.

    Before IR version 4 every initializer had to be an input too; such ones are no constants to anybody.
    """
    with needs("read ONNX files"):
        import onnx_ir
        from onnx_ir.passes import common
    passes = (
        common.InlinePass(),
        common.RemoveInitializersFromInputsPass(),
        common.TopologicalSortPass(),
        common.NameFixPass(),
    )
    try:
        result = onnx_ir.passes.Sequential(*passes)(onnx_ir.from_proto(model)).model
        ordered = onnx_ir.to_proto(result)
    except Exception as error:  # what a damaged graph makes it raise
        raise ModelError(f"{path} is not a whole ONNX file", found=_first_line(error)) from error
    ordered.ir_version = max(ordered.ir_version, 4)
    return ordered


def _require_known_operators(path: Path, model: onnx.ModelProto, opset: int) -> None:
    from onnx import defs

    found = sorted({node.op_type for node in model.graph.node if node.domain in STANDARD})
    custom = sorted({f"{node.domain}::{node.op_type}" for node in model.graph.node if node.domain not in STANDARD})
    quantized = [name for name in found if name in QUANTIZED] + [name for name in custom if "QLinear" in name]
    if quantized:
        raise ModelError(
            f"{path} is quantized already", found=", ".join(quantized), allowed="the fp32 file it was made from"
        )
    if custom:
        raise ModelError(
            f"{path} has operators that are not in the ONNX standard",
            found=", ".join(custom[:8]),
            allowed="the domain ai.onnx: TensorRT reads no other without a plug-in",
            fix="export with standard operators, and before any engine's own optimizer",
        )
    unknown = [name for name in found if not defs.has(name, max_inclusive_version=opset)]
    if unknown:
        raise ModelError(f"{path} has operators that opset {opset} lacks", found=", ".join(unknown[:8]))
    detection = [name for name in found if name in DETECTION]
    if detection:
        raise ModelError(
            f"{path} is a detection model",
            found=", ".join(detection),
            allowed="a classifier: one image in, one row of logits out",
        )


def _require_evaluation(path: Path, model: onnx.ModelProto) -> None:
    """Refuses a file whose BatchNorm would take its means from the batch, or whose Dropout would drop."""
    constants = arrays_of(model.graph) | {
        node.output[0]: attributes(node).get("value") for node in model.graph.node if node.op_type == "Constant"
    }
    for node in model.graph.node:
        facts, switch = attributes(node), constants.get(node.input[2]) if len(node.input) > 2 else None
        norm = node.op_type == "BatchNormalization" and (facts.get("training_mode") or facts.get("is_test") == 0)
        several = node.op_type == "BatchNormalization" and len([name for name in node.output if name]) > 1
        if norm or several or (node.op_type == "Dropout" and switch is not None and _true(switch)):
            raise ModelError(
                f"{path} was exported in training mode",
                found=f"'{node.name or node.op_type}' does something else in training",
                allowed="a network in evaluation mode",
                fix="call model.eval() before torch.onnx.export, and leave out training=",
            )


def _require_whole_weights(path: Path, model: onnx.ModelProto) -> None:
    try:
        arrays_of(model.graph)
    except (ValueError, TypeError) as error:  # as numpy says it
        raise ModelError(f"{path} has a weight whose shape is not that of its numbers", found=error) from error


def _require_numbers(path: Path, model: onnx.ModelProto) -> None:
    """Refuses NaN in a weight; infinity is what masks are made of."""
    for name, values in arrays_of(model.graph).items():
        if np.issubdtype(values.dtype, np.floating) and np.isnan(values).any():
            raise ModelError(
                f"weight '{name}' of {path} holds NaN",
                found=f"{int(np.isnan(values).sum()):,} of {values.size:,} numbers",
                fix="train again with a smaller learning rate, or take an earlier checkpoint",
            )


def _true(constant: Any) -> bool:
    from onnx import numpy_helper

    try:
        return bool(np.any(constant if isinstance(constant, np.ndarray) else numpy_helper.to_array(constant)))
    except (ValueError, TypeError):  # damaged, which the checker says
        return False
