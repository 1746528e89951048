"""A graph for any batch out of two for a known one each: what differs between the two is what depends on the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from toolkit.graph.edit import (
    Names,
    arrays_of,
    dims_of,
    drop_attribute,
    drop_unread_initializers,
    set_nodes,
)
from toolkit.graph.normal.folding import BatchError

if TYPE_CHECKING:
    import onnx

BATCHES = (3, 5)  # two numbers that no network has for another reason at the same place
BATCH = "batch/size"
RECURRENT = ("GRU", "LSTM", "RNN")
# They stretch a size of 1 to whatever their other input has.
STRETCHING = frozenset(
    {"Add", "Sub", "Mul", "Div", "Pow", "Mod", "Min", "Max", "Where", "Equal", "Less", "Greater", "And", "Or", "Xor"}
    | {"LessOrEqual", "GreaterOrEqual", "PRelu", "MatMul"}
)


@dataclass
class _Opening:
    """The two graphs while they become one.

    Attributes:
        dims: sizes of the tensors of each.
        names: of the tensors of the one that stays.
        batch: the tensor that holds it.
        added: nodes that compute sizes from the batch.
        constants: what was added.
    """

    graph: Any
    what: str
    dims: tuple[dict[str, list[Any]], dict[str, list[Any]]]
    names: Names
    batch: str
    added: list[Any] = field(default_factory=list)
    constants: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, value: Any) -> str:
        """A constant of this name or one like it: which."""
        found = self.names.constant(name, value)
        self.constants[found] = value
        return found


def with_open_batch(folded: Sequence[onnx.ModelProto], what: str) -> onnx.ModelProto:
    """The network that two graphs are at a batch of `BATCHES` each, at any batch; the first becomes it.

    Args:
        what: the model, for errors.

    Raises:
        BatchError: the two do not differ in sizes alone.
    """
    one, other = folded
    graph, twin = one.graph, other.graph
    if [_kind(node) for node in graph.node] != [_kind(node) for node in twin.node]:
        raise _depends(what, "another number or kind of operators")
    names = Names(graph)
    opening = _Opening(graph, what, (dims_of(one), dims_of(other)), names, names.fresh(BATCH))
    here, there = arrays_of(graph), arrays_of(twin)
    for node, same in zip(list(graph.node), list(twin.node), strict=True):
        if node.op_type == "Reshape" and node.input[1] in here and same.input[1] in there:
            _say_sizes(opening, node, same)
        for place, (name, name_there) in enumerate(zip(node.input, same.input, strict=True)):
            if name in here and not _equal(here[name], there.get(name_there)):
                _open_input(opening, node, same, place, here[name], there[name_there])
        if node.op_type == "Squeeze" and len(node.input) == 1:
            _say_axes(opening, node)
    nodes = [_plain_flatten(node, opening) for node in graph.node]
    first = _first_reader(nodes, opening.added)
    set_nodes(graph, [*nodes[:first], *_batch(opening, nodes[:first]), *opening.added, *nodes[first:]])
    drop_unread_initializers(graph)
    _name_batch(graph, opening.dims[0].get(graph.output[0].name, []))
    return one


def _name_batch(graph: Any, answer: list[Any]) -> None:
    """Says of both ends that their first size is the batch."""
    graph.output[0].type.tensor_type.ClearField("shape")
    for size in answer:
        graph.output[0].type.tensor_type.shape.dim.add(dim_value=size)
    for end in (graph.input[0], *(graph.output if answer else ())):
        first = end.type.tensor_type.shape.dim[0]
        first.Clear()
        first.dim_param = "batch"
    del graph.value_info[:]


def _kind(node: Any) -> tuple[Any, ...]:
    facts = sorted(attribute.SerializeToString(deterministic=True) for attribute in node.attribute)
    return node.op_type, len(node.input), len(node.output), facts


def _equal(one: Any, other: Any) -> bool:
    return other is not None and one.shape == other.shape and bool(np.array_equal(one, other))


def _depends(what: str, found: str) -> BatchError:
    return BatchError(
        f"{what} computes something else for another batch than for {BATCHES[0]} images",
        found=found,
        allowed="layers that do the same whatever the batch",
        fix="write x.shape[0] where the batch is meant, not len(x), int(...) or a number",
    )


def _say_sizes(opening: _Opening, node: Any, twin: Any) -> None:
    """Gives a Reshape its sizes in one form, however they were written: numbers, 0 where the batch stays, else -1."""
    before, after = (
        list(zip(*(dims.get(name, [0]) for dims, name in zip(opening.dims, names, strict=True)), strict=False))
        for names in ((node.input[0], twin.input[0]), (node.output[0], twin.output[0]))
    )
    if not all(isinstance(size, int) and size for pair in (*before, *after) for size in pair):
        return
    sizes = [
        here if here == there else 0 if before[at : at + 1] == [(here, there)] else -1
        for at, (here, there) in enumerate(after)
    ]
    if sizes.count(-1) < 2:
        node.input[1] = opening.add(f"{node.output[0]}_open", np.array(sizes, np.int64))
        drop_attribute(node, "allowzero")


def _say_axes(opening: _Opening, node: Any) -> None:
    """Gives a Squeeze its axes: without them it takes the batch, too, where that is one image."""
    ones = [at for at, size in enumerate(opening.dims[0].get(node.input[0], [])) if size == 1]
    if ones:
        node.input.append(opening.add(f"{node.output[0]}_open", np.array(ones)))


def _open_input(opening: _Opening, node: Any, twin: Any, place: int, here: Any, there: Any) -> None:
    """Gives a node another input than a constant that belongs to one batch."""
    name = f"{node.output[0]}_open" if place == 1 else f"{node.output[0]}_open_{place}"
    if here.shape == there.shape and here.dtype == np.int64 and here.ndim <= 1:
        sizes = _expanding_sizes(opening, node, twin, here, there) if place == 1 else None
        node.input[place] = _computed_sizes(opening, name, here, there) if sizes is None else opening.add(name, sizes)
        return
    if node.op_type in RECURRENT and place >= 5 and not here.any():
        node.input[place] = ""  # ONNX: states are zeros where none are given
        return
    small = _without_repeats(opening, here, there)
    if node.op_type in STRETCHING:
        node.input[place] = opening.add(name, small)
        return
    node.input[place] = _stretched(opening, name, small, here, there)


def _expanding_sizes(opening: _Opening, node: Any, twin: Any, here: Any, there: Any) -> NDArray[np.int64] | None:
    """Sizes of an Expand as constants, 1 where the batch stays; None where that cannot say it."""
    before = opening.dims[0].get(node.input[0], []), opening.dims[1].get(twin.input[0], [])
    if node.op_type != "Expand" or [] in before:
        return None
    sizes: NDArray[np.int64] = here.copy()
    for at in np.flatnonzero(here != there):
        back = at - len(here)
        if not all(-len(d) <= back and d[back] == s[at] for d, s in zip(before, (here, there), strict=True)):
            return None
        sizes[at] = 1
    return sizes


def _computed_sizes(opening: _Opening, name: str, here: Any, there: Any) -> str:
    """Numbers that grow with the batch, computed from it: whole factors times the batch, plus the rest."""
    from onnx import helper

    factor, left = np.divmod(there - here, BATCHES[1] - BATCHES[0])
    if left.any():
        raise _depends(opening.what, f"{here.tolist()} and {there.tolist()}, for {BATCHES[0]} and {BATCHES[1]} images")
    name, scaled, number = (opening.names.fresh(f"{name}{end}") for end in ("", "_scaled", "_number"))
    factors, rest = opening.add(f"{name}_factor", factor), opening.add(f"{name}_rest", here - factor * BATCHES[0])
    opening.added += [
        helper.make_node("Mul", [opening.batch, factors], [scaled], f"{name}/Mul"),
        helper.make_node("Add", [scaled, rest], [name], f"{name}/Add"),
    ]
    if here.ndim == 0:
        opening.added.append(helper.make_node("Squeeze", [name], [number], f"{name}/Squeeze"))
        return number
    return name


def _first_reader(nodes: list[Any], added: list[Any]) -> int:
    made = {name for node in added for name in node.output}
    return next((at for at, node in enumerate(nodes) if made.intersection(node.input)), len(nodes))


def _batch(opening: _Opening, before: list[Any]) -> list[Any]:
    """Nodes that make `BATCH`, one number: the first size of what the first layer makes, or of the images.

    Images are read by the preprocessing alone, so that INT8 files may do without its floats.
    """
    from onnx import helper

    if not opening.added:
        return []
    here, there = opening.dims
    makers = (name for node in before if node.op_type in ("Conv", "Gemm", "MatMul") for name in node.output)
    usual = (name for name in makers if here.get(name, [0])[0] == BATCHES[0] and there.get(name, [5])[0] == BATCHES[1])
    source = next(usual, opening.graph.input[0].name)
    first, end = (opening.add(f"batch.{role}", np.array([at])) for at, role in enumerate(("first", "end")))
    shape = opening.names.fresh("batch/shape")
    return [
        helper.make_node("Shape", [source], [shape], "batch/Shape"),
        helper.make_node("Slice", [shape, first, end], [opening.batch], "batch/Slice"),
    ]


def _without_repeats(opening: _Opening, here: Any, there: Any) -> Any:
    """A constant that was repeated for each image, with a size of 1 there."""
    small = here
    if here.ndim != there.ndim:
        raise _depends(opening.what, f"a constant of shape {here.shape}, and one of {there.shape}")
    for axis in range(here.ndim):
        if here.shape[axis] != there.shape[axis]:
            small = small.take([0], axis)
    for whole in (here, there):
        if small.shape != there.shape and not np.array_equal(np.broadcast_to(small, whole.shape), whole):
            raise _depends(opening.what, f"a constant of shape {here.shape} that is another for each image")
    if small.shape == here.shape:
        raise _depends(opening.what, f"a constant of shape {here.shape} with other values")
    return small


def _stretched(opening: _Opening, name: str, small: Any, here: Any, there: Any) -> str:
    from onnx import helper

    sizes = [np.where(np.array(w.shape) == np.array(small.shape), 1, w.shape).astype(np.int64) for w in (here, there)]
    shape = _computed_sizes(opening, f"{name}_shape", *sizes)
    name = opening.names.fresh(name)
    one = opening.add(f"{name}_one", small)
    opening.added.append(helper.make_node("Expand", [one, shape], [name], f"{name}/Expand"))
    return name


def _plain_flatten(node: Any, opening: _Opening) -> Any:
    """A Reshape that keeps the batch and makes one axis of the rest is a Flatten: no shape to read."""
    from onnx import helper

    sizes = opening.constants.get(node.input[1]) if node.op_type == "Reshape" else None
    if sizes is None or len(sizes) != 2 or sizes[0] != 0:
        return node
    scope = node.name.rpartition("/")[0]
    return helper.make_node("Flatten", [node.input[0]], list(node.output), f"{scope}/Flatten", axis=1)
