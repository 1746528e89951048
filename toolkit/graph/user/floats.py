"""A file of halves or doubles, or one that takes bytes, as the same file in float32: the precision is chosen later."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.compare.parity import relative_l2
from toolkit.contracts import Float32
from toolkit.errors import ModelError
from toolkit.runtime.ort.session_options import session_options

if TYPE_CHECKING:
    import onnx

WORDS = {"FLOAT16": "half precision", "BFLOAT16": "bfloat16", "DOUBLE": "double precision"}
# Relative L2 between a file in its own type and in float32: what the rounding of its own type may be worth.
TOLERANCES = {"FLOAT16": 0.02, "BFLOAT16": 0.1, "DOUBLE": 1e-4, "UINT8": 1e-4}
TYPES_AS_NUMBERS = ("to", "dtype", "output_datatype")


@dataclass(frozen=True)
class OwnTypes:
    """What a file was before it was written in float32.

    Attributes:
        model: as it came.
        floats: the type of its numbers, as ONNX calls it; "" for float32.
        takes_bytes: pixels as they are, uint8 from 0 to 255.
    """

    model: onnx.ModelProto
    floats: str
    takes_bytes: bool

    @property
    def note(self) -> str:
        """For people."""
        said = [f"{WORDS[self.floats]} written as float32"] if self.floats else []
        return "; ".join([*said, *(["bytes taken as the same numbers in float32"] if self.takes_bytes else [])])


def in_float32(model: onnx.ModelProto) -> tuple[onnx.ModelProto, OwnTypes | None]:
    """The same graph with float32 for halves and doubles, and for the bytes that it takes; None where it has neither.

    Half precision and doubles that are a layer's own affair, between two casts, stay.
    """
    import onnx
    from onnx import TensorProto

    kinds = [value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)]
    kinds += [tensor.data_type for graph in _graphs(model.graph) for tensor in _tensors(graph) if len(tensor.dims) > 1]
    floats = next((name for name in WORDS if TensorProto.DataType.Value(name) in kinds), "")
    takes_bytes = len(model.graph.input) == 1 and kinds[0] == TensorProto.UINT8
    if not floats and not takes_bytes:
        return model, None
    result = onnx.ModelProto()
    result.CopyFrom(model)
    others = {TensorProto.DataType.Value(name) for name in WORDS} if floats else set()
    for graph in _graphs(result.graph):
        _retype(graph, others)
    if takes_bytes:
        result.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT
    return result, OwnTypes(model, floats, takes_bytes)


def _graphs(graph: Any) -> Iterator[Any]:
    """A graph, and the branches in it."""
    from onnx import AttributeProto

    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _graphs(attribute.g)


def _tensors(graph: Any) -> Iterator[Any]:
    """Initializers, and what nodes hold."""
    yield from graph.initializer
    for node in graph.node:
        yield from (attribute.t for attribute in node.attribute if attribute.HasField("t"))


def _retype(graph: Any, others: set[int]) -> None:
    from onnx import TensorProto, numpy_helper

    for tensor in _tensors(graph):
        if tensor.data_type in others:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type in others:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in TYPES_AS_NUMBERS and attribute.i in others:
                attribute.i = TensorProto.FLOAT
    del graph.value_info[:]


def require_same_in_own_types(path: Any, own: OwnTypes, model: onnx.ModelProto, values: Float32) -> dict[str, Any]:
    """Compares the file as it came with the same in float32.

    Args:
        values: the input, as the file in float32 takes it.

    Raises:
        ModelError: they answer differently: the file computes with what its type alone has.
    """
    there = _answers(own.model, values)
    here = _answers(model, values)
    if there is None or here is None or not np.isfinite(there).all():
        return {}
    far = relative_l2(there, here)
    most = TOLERANCES[own.floats or "UINT8"]
    if far > most:
        what = WORDS.get(own.floats, "bytes")
        raise ModelError(
            f"{path} answers otherwise in float32 than in its own {what}",
            found=f"relative L2 {far:.2g} on {len(values)} images",
            allowed=f"{most:g}",
            fix="export the fp32 network itself",
        )
    return {"relative_l2": far, "images": len(values), "type": (own.floats or "UINT8").lower()}


def _answers(model: onnx.ModelProto, values: Float32) -> Float32 | None:
    """None where ONNX Runtime has no kernels for the file's types on a CPU."""
    import onnxruntime
    from onnx import helper

    kind = helper.tensor_dtype_to_np_dtype(model.graph.input[0].type.tensor_type.elem_type)
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), session_options(), providers=["CPUExecutionProvider"]
        )
        given = np.round(values) if kind == np.uint8 else values
        answer: Float32 = np.asarray(session.run(None, {session.get_inputs()[0].name: given.astype(kind)})[0])
    except Exception:  # onnxruntime raises types of its own
        return None
    return answer.astype(np.float32)
