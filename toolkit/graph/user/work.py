"""What an ONNX file declares to do for one image more: multiplications, numbers and its largest tensor, from shapes.

The shapes are those of onnx's own inference, at some batches; what the file says of them is not asked. Work that does
not grow with the batch (constants, or an image made into gigabytes once) counts for nothing: no network has much of it.
Where a shape is not known before the run, the weights and the size of the image say how much it can be.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from toolkit.storage.limits import GUESSED_MULTIPLICATIONS

FEW, TWICE, MANY = 2, 4, 64  # images: of the trial, and of the largest call that comes after it
SMALL = 1024  # numbers of a constant that may be a shape
KERNELS = frozenset({"MaxPool", "AveragePool", "LpPool"})
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Work:
    """Of one image, or of a whole call.

    Attributes:
        numbers: that nodes read and write.
        largest: bytes of the largest tensor that a node makes, four a number.
        unknown: some tensor has a shape that only a run can tell.
    """

    multiplications: float = 0
    numbers: float = 0
    largest: float = 0
    unknown: bool = False


@dataclass(frozen=True)
class Declared:
    """Of one image.

    Attributes:
        bends: many images take more than twice as much each as few do.
        fixed: bytes of the largest tensor, where two images make it no smaller than four do.
    """

    image: Work
    bends: bool = False
    fixed: float = 0


def declared_by(model: Any, shape: list[int]) -> Declared:
    """Counts an onnx.ModelProto that takes such images; a file whose batch is fixed at its own.

    Args:
        shape: of the input, the batch first.
    """
    bare = _without_weights(model)
    own = _dims(bare.graph.input[0].type)
    if own and own[0] > 0:
        return Declared(_shared(_counted(bare, [own[0], *shape[1:]]), own[0]))
    few, twice, many = (_counted(bare, [batch, *shape[1:]]) for batch in (FEW, TWICE, MANY))
    near, far = _between(few, twice, TWICE - FEW), _between(few, many, MANY - FEW)
    bends = far.numbers > 2 * near.numbers + SMALL or far.multiplications > 2 * near.multiplications + SMALL
    return Declared(near, bends, few.largest if few.largest == twice.largest else 0)


def _shared(call: Work, images: int) -> Work:
    return Work(call.multiplications / images, call.numbers / images, call.largest / images, call.unknown)


def _between(few: Work, more: Work, images: int) -> Work:
    """What each of the images between two calls adds; the largest tensor's share of the smaller call."""
    multiplications = max(0.0, more.multiplications - few.multiplications) / images
    return Work(multiplications, max(0.0, more.numbers - few.numbers) / images, few.largest / FEW, few.unknown)


def _without_weights(model: Any) -> Any:
    """A copy in which large constants have their shapes alone, and nothing says what shapes come out."""
    import onnx

    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for tensor in bare.graph.initializer:
        if math.prod(tensor.dims) > SMALL:
            tensor.CopyFrom(onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims))
    del bare.graph.value_info[:]
    for output in bare.graph.output:
        output.type.tensor_type.ClearField("shape")
    return bare


def _counted(bare: Any, shape: list[int]) -> Work:
    from onnx import shape_inference

    entry = bare.graph.input[0].type.tensor_type.shape
    if len(entry.dim) == len(shape):
        for dim, size in zip(entry.dim, shape, strict=True):
            dim.dim_value = dim.dim_value if dim.dim_value > 0 and dim is not entry.dim[0] else size
    graph = shape_inference.infer_shapes(bare, data_prop=True).graph
    weights: dict[str, Shape] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    works = list(_works(graph, {}, weights, math.prod(shape)))
    return Work(
        sum(work.multiplications for work in works if not work.unknown)
        + min(sum(work.multiplications for work in works if work.unknown), GUESSED_MULTIPLICATIONS),
        sum(work.numbers for work in works),
        max((work.largest for work in works), default=0),
        any(work.unknown for work in works),
    )


def _works(graph: Any, known: dict[str, Shape], weights: dict[str, Shape], pixels: int) -> Iterator[Work]:
    """Of every node, in branches too."""
    values = [value for side in (graph.input, graph.value_info, graph.output) for value in side]
    known = known | weights | {value.name: dims for value in values if (dims := _dims(value.type)) is not None}
    for node in graph.node:
        ins, outs = ([known.get(name) for name in names if name] for names in (node.input, node.output))
        made = [math.prod(shape) for shape in outs if shape is not None]
        numbers = sum(made) + sum(math.prod(shape) for shape in ins if shape is not None)
        if made and len(made) == len(outs):
            yield Work(_multiplications(node, ins, made[0]), numbers, 4 * max(made))
        else:
            own = sum(math.prod(weights[name]) for name in node.input if name in weights)
            yield Work(pixels * own, numbers, 4 * max(made, default=0), True)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _works(attribute.g, known, weights, pixels)


def _multiplications(node: Any, ins: list[Shape | None], made: int) -> float:
    """Of a node whose output has so many numbers."""
    first, second = (*ins, None, None)[:2]
    if node.op_type == "Conv" and second is not None:
        return made * math.prod(second[1:])
    if node.op_type == "ConvTranspose" and first is not None and second is not None:
        return math.prod(first) * math.prod(second[1:])
    if node.op_type == "MatMul" and first and second:
        return made * first[-1]
    if node.op_type == "Gemm" and first and second:  # whichever of the three matrices is transposed
        return math.sqrt(math.prod(first) * math.prod(second) * made)
    if node.op_type in KERNELS:
        return made * math.prod(next((a.ints for a in node.attribute if a.name == "kernel_shape"), ()))
    if node.op_type in ("LSTM", "GRU", "RNN") and first and second:
        return math.prod(first[:2]) * math.prod(second) * 4
    if node.op_type == "Einsum":
        return _summed(node, ins, made)
    return 0


def _summed(node: Any, ins: list[Shape | None], made: int) -> float:
    """The product of the sizes of every letter; with dots, those of the first input's last letter alone."""
    terms = next((a.s.decode() for a in node.attribute if a.name == "equation"), "").replace(" ", "").partition("->")[0]
    if "." in terms or None in ins:
        return made * max((shape[-1] for shape in ins if shape), default=1)
    sizes = {letter: size for term, shape in zip(terms.split(","), ins, strict=False) if shape
             for letter, size in zip(term, shape, strict=False)}  # fmt: skip
    return math.prod(sizes.values())


def _dims(kind: Any) -> Shape | None:
    """None where a size is open."""
    shape = kind.tensor_type.shape
    if not kind.tensor_type.HasField("shape") or not all(dim.HasField("dim_value") for dim in shape.dim):
        return None
    return tuple(max(dim.dim_value, 0) for dim in shape.dim)
