"""Layer by layer: every tensor of two ONNX files of one net, and the first node where they part.

ONNX Runtime runs both with their tensors exposed as outputs. Files of a bundle keep the fp32 file's tensor names, so a
node's output can be held against the same node's in another precision, as can what the node read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from toolkit.bundle.manifest import VARIANTS
from toolkit.compare.parity import relative_l2
from toolkit.contracts import Float32, UInt8
from toolkit.runtime.ort.runner import OrtRunner
from toolkit.storage.documents import Document
from toolkit.storage.files import Content, read_onnx
from toolkit.storage.hints import Count

if TYPE_CHECKING:
    import onnx

IMAGES = 32  # relative L2 over a layer's whole output settles on far fewer
JUMP = 4.0  # times what its inputs differed by: a healthy layer hands on what it got, give or take 2
SUFFIXES = ("_dequantized", "_fp16")  # what a reduced file calls the copy of a tensor that a node reads
Progress = Callable[[int, int], None]
Tensors = dict[str, Float32]


@dataclass(frozen=True)
class Layer(Document):
    """One node of the reference's graph, and how far its tensors are apart in relative L2.

    Attributes:
        input_l2: the largest of its inputs'; null where one is not finite, or is in one of the files only.
        output_l2: null where it is not finite.
        nonfinite: numbers in the candidate's output that are NaN or infinite.
    """

    node: str
    operator: str
    input_l2: float | None
    output_l2: float | None
    nonfinite: Count


@dataclass(frozen=True)
class Layers(Document):
    """Two runs of one net.

    Attributes:
        rule: in words, what "part" means here.
        parted: the first node that the rule names; null where no node is named.
    """

    reference: str
    candidate: str
    images: Count
    rule: str
    parted: str | None
    layers: tuple[Layer, ...]


def layers_of_files(
    reference: Path | Content,
    candidate: Path | Content,
    images_nhwc: UInt8,
    precision: str,
    on_progress: Progress = lambda done, total: None,
) -> Layers:
    """Two files of one net, neither optimized: what stands in the files is what is compared.

    Args:
        precision: the candidate's; it decides what is still healthy.
    """
    model, other = read_onnx(reference, "compare layers"), read_onnx(candidate, "compare layers")
    names = [name for node in model.graph.node for name in node.output]
    there = {name for node in other.graph.node for name in node.output}
    shared = [name for name in names if name in there]
    images = images_nhwc[:IMAGES]
    on_progress(0, 2)
    expected = _exposed(model, shared, images)
    on_progress(1, 2)
    got = _exposed(other, shared, images)
    on_progress(2, 2)
    return _compared(model, expected, got, reference.name, candidate.name, len(images), _floor(precision))


def layers_of_optimized(
    path: Path | Content, images_nhwc: UInt8, precision: str, on_progress: Progress = lambda done, total: None
) -> Layers:
    """One file as it stands, against itself with ONNX Runtime's optimizations.

    A tensor that is exposed cannot be fused away, so each is exposed alone, in a session of its own: all that comes
    before it is fused as in use.
    """
    model = read_onnx(path, "compare layers")
    images = images_nhwc[:IMAGES]
    names = [
        name
        for node in model.graph.node
        for name in node.output
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear")
    ]
    expected = _exposed(model, names, images)
    got: Tensors = {}
    for index, name in enumerate(names):
        on_progress(index, len(names))
        got |= _exposed(model, [name], images, optimize=True, alone=True)
    on_progress(len(names), len(names))
    # Optimized INT8 may round the other way at every step; fused or not, it must stay within what INT8 itself costs.
    words = (path.name, f"{path.name}, optimized")
    return _compared(model, expected, got, *words, len(images), _floor(precision))


def first_nonfinite(path: Path | Content, images_nhwc: UInt8) -> tuple[str, float] | None:
    """The first node of a file whose output holds NaN or infinity, with the largest finite |value| just before it."""
    model = read_onnx(path, "compare layers")
    names = [name for node in model.graph.node for name in node.output]
    tensors = _exposed(model, names, images_nhwc[:IMAGES])
    for node in model.graph.node:
        values = tensors[node.output[0]]
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            inputs = [np.abs(tensors[name].astype(np.float64)).max() for name in node.input if name in tensors]
            return str(node.name), float(max(inputs, default=0.0))
    return None


def _floor(precision: str) -> float:
    return VARIANTS[precision].layer_floor


def _exposed(
    model: onnx.ModelProto, names: list[str], images_nhwc: UInt8, optimize: bool = False, alone: bool = False
) -> Tensors:
    """The tensors `names` of a graph, in ONNX Runtime; `alone`: nothing that comes after them is computed."""
    from onnx import helper

    copy = type(model).FromString(model.SerializeToString())
    if alone:
        del copy.graph.output[:]
    outputs = {output.name for output in copy.graph.output}
    copy.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names if name not in outputs)
    with OrtRunner(copy.SerializeToString(), label="a graph with its tensors exposed", optimize=optimize) as runner:
        tensors = runner.tensors(images_nhwc)
    return {name: tensors[name] for name in names}


def _compared(
    model: onnx.ModelProto, expected: Tensors, got: Tensors, reference: str, candidate: str, images: int, floor: float
) -> Layers:
    differ = {
        name: relative_l2(expected[name], got[name])
        for name in expected
        if np.issubdtype(expected[name].dtype, np.floating) and expected[name].shape == got[name].shape
    }
    made = {name for node in model.graph.node for name in node.output}
    rows = []
    for node in model.graph.node:
        name = node.output[0]
        if name in differ:
            # A tensor that a user's file has under another name is unknown, and so is what came of it.
            read = [differ.get(tensor, np.inf) for tensor in map(_plain, node.input) if tensor in made]
            bad = int((~np.isfinite(got[name])).sum())
            rows.append(Layer(node.name, node.op_type, _json(max(read, default=0.0)), _json(differ[name]), bad))
    rule = f"an output off by more than {floor:g} (relative L2) and by more than {JUMP:g} times its inputs"
    parted = next((row.node for row in rows if _parts(row, floor)), None)
    return Layers(reference, candidate, images, rule, parted, tuple(rows))


def _parts(row: Layer, floor: float) -> bool:
    if row.input_l2 is None:  # not finite: whoever made it parted; unknown: nothing can be said
        return False
    return row.output_l2 is None or (row.output_l2 > floor and row.output_l2 > JUMP * row.input_l2)


def _plain(tensor: str) -> str:
    for suffix in SUFFIXES:
        tensor = tensor.removesuffix(suffix)
    return tensor


def _json(value: float) -> float | None:
    return value if np.isfinite(value) else None
