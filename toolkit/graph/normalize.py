"""What other exporters write, brought into the one form that every TensorRT and our own calibration read alike.

The work is done by others where they have a tool for it: onnx-ir's passes sort nodes, name them and take functions
apart, onnx's version converter raises opsets, ONNX Runtime's basic optimizations fold constants and BatchNorm, and drop
what does nothing. What is left is small: an open batch, a stripped Softmax, padding as numbers, the way down to opset
17. Whether the result still is the same model nobody here believes: `require_same_answers` compares it with the file as
it came.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from toolkit.contracts import Float32
from toolkit.errors import ModelError
from toolkit.graph.answer_end import Cut, cut_to_logits
from toolkit.graph.edit import sanitize_names
from toolkit.graph.normal.folding import folded_at_batch
from toolkit.graph.normal.one_batch import guess_open_batch
from toolkit.graph.normal.open_batch import BATCHES, with_open_batch
from toolkit.graph.normal.opset import OPSET, lower, raised
from toolkit.graph.normal.rewrites import inline_parameters, tidy, write_pads
from toolkit.graph.user.runner import Form
from toolkit.graph.user_file import OnnxFile

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class NormalizedGraph:
    """A graph from `input` (batch, C, H, W) or (batch, H, W, C) to `logits` (batch, classes), and what was done.

    Attributes:
        reference: the file's own graph, with the tensor that `logits` must equal as its output.
        notes: a phrase for each thing that is not as it was, for people.
        cut: the softmax that `reference` lacks.
    """

    graph: onnx.ModelProto
    reference: onnx.ModelProto
    notes: tuple[str, ...]
    cut: Cut = field(default_factory=Cut)


def normalized_from_file(file: OnnxFile, form: Form, classes: int) -> NormalizedGraph:
    """Rewrites a copy.

    Raises:
        ModelError: the file has what opset 17 cannot say, or control flow that no constant decides.
    """
    import onnx

    notes: list[str] = []
    reference = onnx.ModelProto()
    reference.CopyFrom(file.model)
    cut = cut_to_logits(reference, _calls(form))
    notes += [cut.note] if cut.operators else []
    model = onnx.ModelProto()
    model.CopyFrom(reference)
    inline_parameters(model)
    model = raised(model, str(file.path))
    if file.opset != OPSET:
        notes.append(f"opset {file.opset} written as {OPSET}")
    _set_shapes(model, form)
    if form.batch:
        guess_open_batch(model, form.batch)
        notes.append(f"batch of {form.batch} made open")
    norms = _count(model, "BatchNormalization")
    folded = [folded_at_batch(model, batch, str(file.path)) for batch in BATCHES]
    model = with_open_batch(folded, str(file.path))
    lower(model, str(file.path))
    tidy(model)
    if norms > _count(model, "BatchNormalization"):
        notes.append(f"{norms - _count(model, 'BatchNormalization')} BatchNorms folded")
    if write_pads(model):
        notes.append("auto_pad written as numbers")
    _flatten(model, classes)
    _require_no_control_flow(file, model)
    sanitize_names(model)
    onnx.checker.check_model(model, full_check=True)
    return NormalizedGraph(model, reference, tuple(notes), cut)


def _count(model: onnx.ModelProto, operator: str) -> int:
    return sum(node.op_type == operator for node in model.graph.node)


def _calls(form: Form) -> list[Float32]:
    """Inputs of the scales that networks take: normalized, from 0 to 1, from 0 to 255."""
    rng, shape = np.random.default_rng(0), form.shape(form.batch or 4)
    noise = [rng.normal(size=shape), rng.uniform(size=shape), rng.uniform(0, 255, size=shape)]
    return [call.astype(np.float32) for call in noise]


def _set_shapes(model: onnx.ModelProto, form: Form) -> None:
    """An open batch at both ends; shapes in between are inferred anew."""
    from onnx import TensorProto, helper

    graph = model.graph
    (old,), (out,) = ([value.name for value in side] for side in (graph.input, graph.output))
    del graph.input[:], graph.output[:], graph.value_info[:]
    graph.input.append(helper.make_tensor_value_info(old, TensorProto.FLOAT, form.shape("batch")))
    graph.output.append(helper.make_tensor_value_info(out, TensorProto.FLOAT, None))


def _flatten(model: onnx.ModelProto, classes: int) -> None:
    """`logits` of shape (batch, classes): one that ends in a 1x1 convolution has two axes more."""
    from onnx import TensorProto, helper, shape_inference

    graph = model.graph
    graph.output[0].type.Clear()
    inferred = shape_inference.infer_shapes(model).graph
    name = graph.output[0].name
    rank = next((len(v.type.tensor_type.shape.dim) for v in inferred.output if v.name == name), 0)
    if rank > 2:
        graph.node.append(helper.make_node("Flatten", [name], [f"{name}_flat"], "Flatten", axis=1))
        name = f"{name}_flat"
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", classes]))


def _require_no_control_flow(file: OnnxFile, model: onnx.ModelProto) -> None:
    from onnx import AttributeProto

    branching = sorted(
        {n.op_type for n in model.graph.node if any(a.type == AttributeProto.GRAPH for a in n.attribute)}
    )
    sequences = sorted({n.op_type for n in model.graph.node if "Sequence" in n.op_type})
    if branching or sequences:
        raise ModelError(
            f"{file.path} branches or loops as it runs",
            found=", ".join(branching + sequences),
            allowed="a graph of fixed layers",
            fix="export with torch.onnx.export in evaluation mode, without torch.jit.script",
        )
