"""What a classifier's file takes and gives: one tensor each, of floats; which of several outputs holds the logits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import ModelError
from toolkit.graph.edit import tensors_behind

if TYPE_CHECKING:
    import onnx

CHOOSES = frozenset({"ArgMax", "TopK"})
FLOATS = frozenset({"FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE"})


def choose_output(path: Path, model: onnx.ModelProto, output: str | None) -> None:
    """Leaves the output that was asked for."""
    if output is None:
        return
    kept = [type(v).FromString(v.SerializeToString()) for v in model.graph.output if v.name == output]
    if not kept:
        names = ", ".join(value.name for value in model.graph.output)
        raise ModelError(f"{path} has no output of that name", found=output, allowed=names)
    del model.graph.output[:]
    model.graph.output.extend(kept)


def _which_output(model: onnx.ModelProto) -> str:
    """What to do about several: take the float32 one that is made last; features and auxiliary heads come before."""
    from onnx import TensorProto

    made = {name: (at, node.op_type) for at, node in enumerate(model.graph.node) for name in node.output}
    floats = [v.name for v in model.graph.output if v.type.tensor_type.elem_type == TensorProto.FLOAT]
    rows = [name for name in floats if name in made and made[name][1] not in CHOOSES]
    if not rows:
        return f"export the network without what chooses an answer at its end ({', '.join(sorted(CHOOSES))})"
    return f"`output_name={max(rows, key=lambda name: made[name][0])!r}`"


def require_one_tensor(path: Path, side: str, model: onnx.ModelProto) -> None:
    """Refuses a file with several inputs or outputs, or with one that is no tensor.

    Args:
        side: "input" or "output".
    """
    values: list[Any] = list(getattr(model.graph, side))
    if len(values) != 1:
        raise ModelError(
            f"{path} has {len(values)} {side}s",
            found=", ".join(value.name for value in values[:8]) or "none",
            allowed="one: images" if side == "input" else "one: the logits of a classifier",
            fix=_which_output(model) if side == "output" else "export again with the images alone",
        )
    kind = values[0].type
    if side == "input" and kind.HasField("tensor_type") and not kind.tensor_type.HasField("shape"):
        raise ModelError(
            f"the input '{values[0].name}' of {path} has no shape",
            found="a tensor of any rank",
            allowed="(batch, C, H, W) or (batch, H, W, C); sizes may be open",
            fix="export again with the shape of the images",
        )
    if not kind.HasField("tensor_type"):
        raise ModelError(
            f"the {side} '{values[0].name}' of {path} is not a tensor",
            found=f"a {(kind.WhichOneof('value') or 'thing of no type').removesuffix('_type')}",
            allowed="float32",
        )


def require_one_input(path: Path, model: onnx.ModelProto) -> None:
    """Refuses what takes anything but images: floats, or pixels of uint8."""
    from onnx import TensorProto

    require_one_tensor(path, "input", model)
    if model.graph.input[0].type.tensor_type.elem_type != TensorProto.UINT8:
        require_type(path, "input", model.graph.input[0])


def require_type(path: Path, side: str, value: Any) -> None:
    """Refuses whole numbers: of images that were quantized, or of an answer that was chosen."""
    from onnx import TensorProto

    kind = TensorProto.DataType.Name(value.type.tensor_type.elem_type)
    if kind in FLOATS:
        return
    raise ModelError(
        f"the {side} '{value.name}' of {path} holds no floats",
        found=kind.lower(),
        allowed="float32, float16 or double"
        + (" images, normalized, or uint8 pixels from 0 to 255" if side == "input" else " logits"),
        fix="export the fp32 network itself, "
        + ("before it is quantized" if side == "input" else "without the ArgMax or TopK at its end"),
    )


def drop_unread_inputs(graph: Any) -> None:
    """Takes away inputs that nothing reads, as a switch for training whose layers are gone."""
    read = {name for node in graph.node for name in (*node.input, *tensors_behind(node))}
    kept = [type(value).FromString(value.SerializeToString()) for value in graph.input if value.name in read]
    if kept:
        del graph.input[:]
        graph.input.extend(kept)


def complete_for_checker(model: onnx.ModelProto) -> None:
    """What ONNX's checker asks for and no engine reads: a name for the graph, a shape for the answer."""
    from onnx import shape_inference

    graph = model.graph
    graph.name = graph.name or "classifier"
    answer = graph.output[0]
    if not answer.type.tensor_type.HasField("shape"):
        inferred = shape_inference.infer_shapes(model).graph.output
        answer.CopyFrom(next((value for value in inferred if value.name == answer.name), answer))
