"""What exporters write in a roundabout way, said plainly: constants, pools, swishes, padding that is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.graph.edit import (
    Names,
    arrays_of,
    attributes,
    dims_of,
    drop_attribute,
    drop_unread_initializers,
    set_nodes,
)

if TYPE_CHECKING:
    import onnx

MASK = -30_000.0
LOWEST = np.iinfo(np.int64).min
RESHAPES = ("Reshape", "Transpose", "Squeeze", "Unsqueeze")
PADDED = ("Conv", "MaxPool", "AveragePool", "LpPool")


def inline_parameters(model: onnx.ModelProto) -> None:
    """Constant nodes become initializers and equal parameters get a copy each: whoever looks for a weight finds it.

    An input that is not given is left out where nothing follows it: ONNX Runtime takes it for one that is computed.
    """
    _inline_constants(model.graph)
    _inline_shared_initializers(model.graph)
    for node in model.graph.node:
        while node.input and not node.input[-1]:
            del node.input[-1]


def tidy(model: onnx.ModelProto) -> None:
    """Rewrites a folded graph in place; the function it computes stays the same.

    A mean over height and width becomes GlobalAveragePool, which every TensorRT reads alike and fuses. HardSwish
    becomes x * HardSigmoid(x), because it is not among TensorRT 8's operators (onnx-tensorrt, docs/operators.md).
    An average that counts its padding has it as a Pad, where windows reach beyond that. What a mask takes away from a
    softmax is a number that half precision has. What exporters merely word otherwise, such as the ends of a slice and
    the order of a sum, is worded in one way, so that the same network is the same file.
    """
    graph, names, dims = model.graph, Names(model.graph), dims_of(model)  # what is added is read by what is added alone
    _pools_for_means(graph, names, dims)
    _sigmoids_for_swishes(graph, names)
    _pads_that_averages_count(graph, names)
    _finite_masks(graph, names)
    _plain_slices(graph, names, dims)
    _plain_inputs(graph, names, dims)
    drop_unread_initializers(graph)


def _inline_constants(graph: Any) -> None:
    kept = []
    for node in graph.node:
        value = attributes(node).get("value") if node.op_type == "Constant" else None
        if value is None:
            kept.append(node)
            continue
        tensor = graph.initializer.add()
        tensor.CopyFrom(value)
        tensor.name = node.output[0]
    set_nodes(graph, kept)


def _inline_shared_initializers(graph: Any) -> None:
    """Equal initializers come out as Identity nodes on one of them; a copy each keeps every parameter a constant."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    kept = []
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in constants:
            copy = graph.initializer.add()
            copy.CopyFrom(constants[node.input[0]])
            copy.name = node.output[0]
            constants[copy.name] = copy
        else:
            kept.append(node)
    set_nodes(graph, kept)


def _pools_for_means(graph: Any, names: Names, dims: dict[str, list[Any]]) -> None:
    from onnx import helper

    nodes = []
    for node in graph.node:
        facts = attributes(node)
        axes = {axis % 4 for axis in facts.get("axes", ())}
        if node.op_type != "ReduceMean" or len(dims.get(node.input[0], ())) != 4 or axes != {2, 3}:
            nodes.append(node)
            continue
        kept, scope = facts.get("keepdims", 1), node.name.rpartition("/")[0]
        pooled = node.output[0] if kept else names.fresh(f"{node.output[0]}_pooled")
        name = f"{scope}/GlobalAveragePool"
        nodes.append(helper.make_node("GlobalAveragePool", [node.input[0]], [pooled], name))
        if not kept:
            nodes.append(helper.make_node("Flatten", [pooled], list(node.output), f"{scope}/Flatten", axis=1))
    set_nodes(graph, nodes)


def _sigmoids_for_swishes(graph: Any, names: Names) -> None:
    from onnx import helper

    nodes = []
    for node in graph.node:
        if node.op_type != "HardSwish":
            nodes.append(node)
            continue
        scope, gate = node.name.rpartition("/")[0], names.fresh(f"{node.output[0]}_gate")
        name = f"{scope}/HardSigmoid"
        nodes.append(helper.make_node("HardSigmoid", [node.input[0]], [gate], name, alpha=1 / 6, beta=0.5))
        nodes.append(helper.make_node("Mul", [node.input[0], gate], list(node.output), f"{scope}/Mul"))
    set_nodes(graph, nodes)


def _finite_masks(graph: Any, names: Names) -> None:
    """A softmax makes 0 of -30000 as of -inf, -1e9 and the lowest float, which half precision cannot hold."""
    from onnx import numpy_helper

    makers = {name: node for node in graph.node for name in node.output}
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for softmax in graph.node:
        node = makers.get(softmax.input[0]) if softmax.op_type == "Softmax" else None
        while node is not None and node.op_type in RESHAPES:
            node = makers.get(node.input[0])
        while node is not None and node.op_type in ("Add", "Where"):
            for place, name in enumerate(node.input):
                values = numpy_helper.to_array(weights[name]) if name in weights else np.zeros(1)
                if values.dtype == np.float32 and values.size and values.min() < MASK:
                    least = np.maximum(values, np.float32(MASK))
                    node.input[place] = names.constant(f"{node.output[0]}_mask_{place}", least)
            node = next((makers[name] for name in node.input if name in makers), None)


def _plain_slices(graph: Any, names: Names, dims: dict[str, list[Any]]) -> None:
    """Starts and ends within a tensor whose sizes are known; a slice of the whole is left out."""
    constants, nodes, same = arrays_of(graph), [], dict[str, str]()
    for node in graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]
        taken = _taken(node, constants, dims) if node.op_type == "Slice" else {}
        whole = all(part == range(dims[node.input[0]][axis]) for axis, part in taken.items())
        if taken and whole and node.output[0] != graph.output[0].name:
            same[node.output[0]] = node.input[0]
            continue
        if taken:
            ends = [part.stop if part.stop >= 0 else LOWEST for part in taken.values()]  # -1 would be the last
            rows = {"starts": [part.start for part in taken.values()], "ends": ends, "axes": list(taken)}
            rows["steps"] = [part.step for part in taken.values()]
            named = ((f"{node.output[0]}_{role}", np.array(row)) for role, row in rows.items())
            node.input[1:] = [names.constant(name, row) for name, row in named]
        nodes.append(node)
    set_nodes(graph, nodes)


def _taken(node: Any, constants: dict[str, Any], dims: dict[str, list[Any]]) -> dict[int, range]:
    """What a Slice takes of each axis; {} where that, or the size of an axis, is not known."""
    sizes = dims.get(node.input[0], [])
    given = [constants[name] for name in node.input[1:] if name in constants]
    if not sizes or len(given) < len(node.input) - 1:
        return {}
    count = len(given[0])
    starts, ends, axes, steps = given + [np.arange(count), np.ones(count, np.int64)][len(given) - 2 :]
    if not all(isinstance(sizes[axis], int) and sizes[axis] for axis in axes):
        return {}
    cuts = zip(axes, starts, ends, steps, strict=True)
    taken = {int(axis) % len(sizes): range(sizes[axis])[start:end:step] for axis, start, end, step in cuts}
    return taken if all(taken.values()) else {}  # nothing at all is something else in ONNX Runtime, going backward


def _plain_inputs(graph: Any, names: Names, dims: dict[str, list[Any]]) -> None:
    """A constant is the second of a sum or product, and axes that come or go count from the front."""
    constants = arrays_of(graph)
    for node in graph.node:
        if node.op_type in ("Add", "Mul") and node.input[0] in constants:
            node.input[:] = reversed(node.input)
        if node.op_type in ("Squeeze", "Unsqueeze") and len(node.input) > 1 and node.input[1] in constants:
            longer = node.input[0] if node.op_type == "Squeeze" else node.output[0]
            if rank := len(dims.get(longer, [])):
                axes = constants[node.input[1]] % rank
                name = f"{node.output[0]}_axes_from_front"  # "_axes" is a name that ONNX Runtime gives
                node.input[1] = names.constant(name, axes)


def _pads_that_averages_count(graph: Any, names: Names) -> None:
    """Of windows that reach beyond the padding (`ceil_mode`) only what is there counts: PyTorch and ONNX say so.

    ONNX Runtime 1.32's INT8 kernel divides by the whole window where `count_include_pad` is set too. With the padding
    as a node of its own nothing else is left to count.
    """
    from onnx import helper

    nodes = []
    for node in graph.node:
        facts = attributes(node)
        if node.op_type == "AveragePool" and facts.get("ceil_mode") and facts.get("count_include_pad"):
            pads = list(facts.get("pads", []))
            drop_attribute(node, "count_include_pad", "pads")
            if any(pads):
                sides, padded = len(pads) // 2, names.fresh(f"{node.output[0]}_padded")
                whole = np.array([0, 0, *pads[:sides], 0, 0, *pads[sides:]], np.int64)
                name, scope = names.constant(f"{padded}_pads", whole), node.name.rpartition("/")[0]
                nodes.append(helper.make_node("Pad", [node.input[0], name], [padded], f"{scope}/Pad"))
                node.input[0] = padded
        nodes.append(node)
    set_nodes(graph, nodes)


def write_pads(model: onnx.ModelProto) -> int:
    """Writes SAME_UPPER, SAME_LOWER and VALID as numbers where the size of the input is known.

    Returns:
        How many nodes had to be written.
    """
    from onnx import helper, shape_inference

    inferred = shape_inference.infer_shapes(model).graph
    sizes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim][2:]
        for value in [*inferred.input, *inferred.value_info]
    }
    weights = {tensor.name: list(tensor.dims)[2:] for tensor in model.graph.initializer}
    written = 0
    for node in model.graph.node:
        facts = attributes(node)
        mode = facts.get("auto_pad", b"NOTSET").decode()
        if node.op_type not in PADDED or mode == "NOTSET":
            continue
        kernel = facts.get("kernel_shape") or weights.get(node.input[1] if len(node.input) > 1 else "")
        size = sizes.get(node.input[0])
        if not kernel or not size or not all(size):
            continue
        axes = range(len(kernel))
        strides, dilations = (facts.get(key, [1] * len(kernel)) for key in ("strides", "dilations"))
        pads = [_padding(mode, size[i], kernel[i], strides[i], dilations[i]) for i in axes]
        drop_attribute(node, "auto_pad", "pads")
        node.attribute.append(helper.make_attribute("pads", [p[0] for p in pads] + [p[1] for p in pads]))
        written += 1
    return written


def _padding(mode: str, size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Before and behind, along one axis. Source: ONNX, operator Conv, auto_pad: ceil(size / stride) outputs."""
    if mode == "VALID":
        return 0, 0
    total = max((int(np.ceil(size / stride)) - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
    less, more = total // 2, total - total // 2
    return (less, more) if mode == "SAME_UPPER" else (more, less)
