"""Any opset from 6 on written as 17: up by ONNX's converter, down by the few operators that it has no way back for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.errors import ModelError
from toolkit.graph.edit import (
    Names,
    add_constants,
    arrays_of,
    attributes,
    dims_of,
    drop_attribute,
    set_nodes,
)
from toolkit.graph.normal.folding import STANDARD

if TYPE_CHECKING:
    import onnx

# What a reduction over no axes still does.
UNREDUCED = {"ReduceMean": "Identity", "ReduceMax": "Identity", "ReduceMin": "Identity", "ReduceProd": "Identity",
             "ReduceSum": "Identity", "ReduceL1": "Abs", "ReduceL2": "Abs"}  # fmt: skip
OPSET = 17  # the newest that TensorRT 8.5 and 8.6 read
IR_VERSION = 8  # the one of opset 17; TensorRT 8 reads no newer


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard operators; 0 where none is named."""
    return max((entry.version for entry in model.opset_import if entry.domain in STANDARD), default=0)


_Step = tuple[str, list[str], str, dict[str, Any]]  # operator, inputs, output, attributes


@dataclass(frozen=True)
class _Known:
    """A graph, its constants, and the sizes and names of its tensors before anything was lowered."""

    graph: Any
    constants: dict[str, Any]
    dims: dict[str, list[Any]]
    names: Names


def raised(model: onnx.ModelProto, what: str) -> onnx.ModelProto:
    """In opset 17 at least, and without operators that 17 lacks: those are written as the standard defines them.

    Raises:
        ModelError: ONNX's converter cannot, in its own words.
    """
    from onnx import defs, inliner, version_converter

    opset = opset_of(model)
    _spell_out(model, opset)
    newer = {
        (node.domain, node.op_type)
        for node in model.graph.node
        if opset > OPSET and not defs.has(node.op_type, max_inclusive_version=OPSET)
    }
    try:
        if newer:
            model = inliner.inline_selected_functions(model, list(newer), inline_schema_functions=True)
        return version_converter.convert_version(model, OPSET) if opset < OPSET else model
    except Exception as error:  # RuntimeError, ConvertError and more, from C++
        raise ModelError(
            f"{what} cannot be written in opset {OPSET}, the newest that TensorRT 8 reads",
            found=" ".join(str(error).split())[:200],
        ) from error


def lower(model: onnx.ModelProto, what: str) -> None:
    """Writes a folded graph of opset 17 or more as 17, in place.

    Raises:
        ModelError: an operator says what 17 has no words for; names it.
    """
    from onnx import checker

    graph, opset = model.graph, opset_of(model)
    known = _Known(graph, arrays_of(graph), dims_of(model), Names(graph))
    for node in graph.node if opset > OPSET else ():
        rewrite = LOWER.get(node.op_type) or (_axes_as_attribute if node.op_type.startswith("Reduce") else None)
        if rewrite is not None:
            rewrite(node, known)
    del model.opset_import[:]
    model.opset_import.add(version=OPSET)
    model.ir_version = IR_VERSION
    context = checker.C.CheckerContext()
    context.ir_version, context.opset_imports = IR_VERSION, {"": OPSET}
    for node in graph.node:
        try:
            checker.check_node(node, context)
        except checker.ValidationError as error:
            raise ModelError(
                f"{what} has a {node.op_type} that opset {OPSET}, the newest that TensorRT 8 reads, cannot say",
                found=f"opset {opset}, '{node.name}': {str(error).splitlines()[0][:200]}",
            ) from error


def _constant(node: Any, place: int, known: _Known) -> Any:
    """A constant input as an array; None where there is none at this place, or it is computed."""
    return known.constants.get(node.input[place]) if len(node.input) > place and node.input[place] else None


def _axes_as_attribute(node: Any, known: _Known) -> None:
    """Reduce* have had their axes as an input since 18, ReduceSum since 13; `noop` without axes reduces nothing."""
    from onnx import helper

    given = len(node.input) > 1 and bool(node.input[1])
    axes = _constant(node, 1, known)
    some = axes.size > 0 if axes is not None else given
    if attributes(node).get("noop_with_empty_axes") and not some and node.op_type in UNREDUCED:
        node.op_type = UNREDUCED[node.op_type]
        del node.attribute[:], node.input[1:]
    if not node.op_type.startswith("Reduce") or node.op_type == "ReduceSum" or (given and axes is None):
        return
    if some:
        drop_attribute(node, "noop_with_empty_axes")
        node.attribute.append(helper.make_attribute("axes", axes.tolist()))
    elif not attributes(node).get("noop_with_empty_axes"):
        drop_attribute(node, "noop_with_empty_axes")
    del node.input[1:]


def _pads_of_every_axis(node: Any, known: _Known) -> None:
    """Pad has had axes since 18: before, pads are of every axis."""
    pads, axes = _constant(node, 1, known), _constant(node, 3, known)
    if len(node.input) < 4 or pads is None or axes is None:
        return
    rank = len(known.dims[node.output[0]])
    every = np.zeros(2 * rank, np.int64)
    for at, axis in enumerate(axes):
        every[axis % rank], every[axis % rank + rank] = pads[at], pads[at + len(axes)]
    node.input[1] = known.names.constant(f"{node.output[0]}_pads", every)
    del node.input[3:]
    if not node.input[-1]:
        del node.input[-1]


def _split_sizes(node: Any, known: _Known) -> None:
    """Split has had num_outputs since 18: equal parts, the last of them smaller. Before, sizes are given or equal."""
    facts = attributes(node)
    drop_attribute(node, "num_outputs")
    if "num_outputs" not in facts:
        return
    size, parts = known.dims[node.input[0]][facts.get("axis", 0)], facts["num_outputs"]
    if isinstance(size, int) and size % parts:
        each = -(-size // parts)
        sizes = np.array([each] * (parts - 1) + [size - each * (parts - 1)])
        node.input[1:] = [known.names.constant(f"{node.output[0]}_sizes", sizes)]


def _plain_attributes(**usual: Any) -> Callable[[Any, _Known], None]:
    """Drops attributes that came later, where they say what was always so; others stay and are refused."""

    def lower(node: Any, known: _Known) -> None:
        facts = attributes(node)
        drop_attribute(node, *(name for name, value in usual.items() if facts.get(name) == value))

    return lower


def _scales_of_every_axis(node: Any, known: _Known) -> None:
    """Resize has had axes and antialias since 18."""
    _plain_attributes(antialias=0, keep_aspect_ratio_policy=b"stretch")(node, known)
    axes = attributes(node).get("axes")
    if axes is None:
        return
    scales = _constant(node, 2, known)
    if scales is None or not scales.size:
        return
    every = np.ones(len(known.dims[node.output[0]]), np.float32)
    every[list(axes)] = scales
    node.input[2] = known.names.constant(f"{node.output[0]}_scales", every)
    drop_attribute(node, "axes")


def _samples_of_two_axes(node: Any, known: _Known) -> None:
    """GridSample has had "linear" and "cubic" for any number of axes since 20; before, they were of two."""
    from onnx import helper

    mode = attributes(node).get("mode", b"linear")
    drop_attribute(node, "mode")
    node.attribute.append(helper.make_attribute("mode", {b"linear": "bilinear", b"cubic": "bicubic"}.get(mode, mode)))


LOWER: dict[str, Callable[[Any, _Known], None]] = {
    "Pad": _pads_of_every_axis,
    "Split": _split_sizes,
    "Resize": _scales_of_every_axis,
    "AveragePool": _plain_attributes(dilations=[1, 1]),
    "GridSample": _samples_of_two_axes,
    "LpPool": _plain_attributes(dilations=[1, 1], ceil_mode=0),
    "Cast": _plain_attributes(saturate=1, round_mode=b"up"),
    "ScatterElements": _plain_attributes(reduction=b"none"),
    "ScatterND": _plain_attributes(reduction=b"none"),
}


def _spell_out(model: onnx.ModelProto, opset: int) -> None:
    """Writes functions in place, by the operators that PyTorch's own exporter for 17 writes them with.

    ONNX says what they are by operators that need types which its inliner does not know, and with a Cast for each
    number, which ONNX Runtime leaves there.
    """
    from onnx import helper

    known, nodes = _Known(model.graph, arrays_of(model.graph), dims_of(model), Names(model.graph)), []
    for node in model.graph.node:
        spell = SPELLED.get(node.op_type) if node.domain in STANDARD else None
        if spell is None:
            nodes.append(node)
            continue
        name, stem = node.name or node.output[0], node.output[0]
        while any(each.startswith(f"{stem}_") for each in known.names.taken):
            stem += "_"
        nodes += [helper.make_node(kind, into, [to], f"{name}/{kind}_{at}", **more)
                  for at, (kind, into, to, more) in enumerate(spell(node, stem, known, opset))]  # fmt: skip
    set_nodes(model.graph, nodes)


def _group_norm(node: Any, stem: str, known: _Known, opset: int) -> list[_Step]:
    """InstanceNormalization of groups, then scale and shift a channel. Up to 20 there is a scale a group."""
    facts, (data, scale, bias) = attributes(node), node.input
    groups, rank, whole = facts["num_groups"], len(known.dims.get(data, [0] * 4)), opset < 21
    constants = {"ones": np.ones(groups, np.float32), "zeros": np.zeros(groups, np.float32)}
    constants |= {"sizes": np.array([0, groups, -1]), "channels": np.array([-1, *[1] * (rank - 2)])}
    add_constants(known.graph, {f"{stem}_{role}": array for role, array in constants.items()})
    own = [scale, bias] if whole else [f"{stem}_ones", f"{stem}_zeros"]
    normed: list[_Step] = [
        ("Reshape", [data, f"{stem}_sizes"], f"{stem}_split", {}),
        ("InstanceNormalization", [f"{stem}_split", *own], f"{stem}_normed", {"epsilon": facts.get("epsilon", 1e-5)}),
        ("Shape", [data], f"{stem}_whole", {}),
        ("Reshape", [f"{stem}_normed", f"{stem}_whole"], node.output[0] if whole else f"{stem}_merged", {}),
    ]
    return normed if whole else [
        *normed,
        ("Reshape", [scale, f"{stem}_channels"], f"{stem}_scale", {}),
        ("Reshape", [bias, f"{stem}_channels"], f"{stem}_bias", {}),
        ("Mul", [f"{stem}_merged", f"{stem}_scale"], f"{stem}_scaled", {}),
        ("Add", [f"{stem}_scaled", f"{stem}_bias"], node.output[0], {}),
    ]  # fmt: skip


def _gelu(node: Any, stem: str, known: _Known, opset: int) -> list[_Step]:
    """Half of x (erf(x / sqrt 2) + 1), or x (tanh(sqrt(2 / pi) (x + 0.044715 x^3)) + 1). Source: arXiv 1606.08415."""
    (x,), exact = node.input, attributes(node).get("approximate", b"none") == b"none"
    numbers = {"one": 1, "half": 0.5, "root": 2**0.5 if exact else (2 / np.pi) ** 0.5, "cubic": 0.044715}
    add_constants(known.graph, {f"{stem}_{name}": np.array(value, np.float32) for name, value in numbers.items()})
    curve: list[_Step] = [
        ("Mul", [x, x], f"{stem}_square", {}),
        ("Mul", [x, f"{stem}_square"], f"{stem}_cube", {}),
        ("Mul", [f"{stem}_cubic", f"{stem}_cube"], f"{stem}_bend", {}),
        ("Add", [x, f"{stem}_bend"], f"{stem}_bent", {}),
        ("Mul", [f"{stem}_root", f"{stem}_bent"], f"{stem}_inner", {}),
        ("Tanh", [f"{stem}_inner"], f"{stem}_curve", {}),
    ]
    if exact:
        curve = [("Div", [x, f"{stem}_root"], f"{stem}_inner", {}), ("Erf", [f"{stem}_inner"], f"{stem}_curve", {})]
    return [
        *curve,
        ("Add", [f"{stem}_curve", f"{stem}_one"], f"{stem}_raised", {}),
        ("Mul", [x, f"{stem}_raised"], f"{stem}_doubled", {}),
        ("Mul", [f"{stem}_doubled", f"{stem}_half"], node.output[0], {}),
    ]


SPELLED: dict[str, Callable[[Any, str, _Known, int], list[_Step]]] = {"GroupNormalization": _group_norm, "Gelu": _gelu}
