"""A softmax at the end of a graph, in whatever form it is written: told by what it computes, and cut off.

Exporters and authors write it as Softmax, LogSoftmax, Softmax and Log, Exp over its sum, with a Flatten, Squeeze or
Clip behind it. No list of forms is ever whole. So the tensors before the output are asked: that one is the logits whose
softmax is the output, on every input that was tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from toolkit.compare.answers import LOGARITHMS, LOGITS, PROBABILITIES, SUM, kind_of_answers, log_softmax, sigmoid
from toolkit.contracts import Float32
from toolkit.graph.edit import drop_unread_initializers, set_nodes, tensors_behind
from toolkit.lazy import needs
from toolkit.runtime.ort.session_options import session_options

if TYPE_CHECKING:
    import onnx

REACH = 16  # nodes back from the output: a softmax that is written out has five, with a clip and a flatten behind it
SEEN = 1e-5  # probabilities below it may be clipped
EQUAL = 1e-3  # of logarithms of probabilities
SHIFTS = ("Identity", "Dropout", "Cast")


@dataclass(frozen=True)
class Cut:
    """What was cut off: the operators in their order, as "Softmax, Flatten"; "" where nothing was."""

    operators: str = ""

    @property
    def note(self) -> str:
        """For people."""
        return f"{self.operators} at the end stripped: the bundle answers with logits" if self.operators else ""


def cut_to_logits(model: onnx.ModelProto, calls: Sequence[NDArray[Any]]) -> Cut:
    """Makes the logits of a final softmax, or of its logarithm, the output; in place.

    Args:
        calls: what the input is given, a call each. Any numbers will do that the network takes: the logits are told by
            an identity, not by what they mean.
    """
    gone = _cut_once(model, calls, (PROBABILITIES, LOGARITHMS))
    more = _cut_once(model, calls, (LOGARITHMS,)) if gone else ""  # Exp of LogSoftmax; a softmax of a softmax stays
    return Cut(", ".join(part for part in (more, gone) if part))


def ends_in_sigmoids(model: onnx.ModelProto, calls: Sequence[NDArray[Any]]) -> bool:
    """Whether the answers are a sigmoid of some tensor before them, element by element, and no logits that are small.

    Args:
        calls: as of `cut_to_logits`.
    """
    before = _before(model.graph)
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    if makers.get(model.graph.output[0].name) == "HardSigmoid":
        return True
    answers, *others = _values(model, [model.graph.output[0].name, *before], calls)
    rows = _rows(answers, None)
    return rows is not None and any(
        found is not None and np.allclose(sigmoid(found), rows, atol=SEEN)
        for found in (_rows(value, rows.shape) for value in others)
    )


def _cut_once(model: onnx.ModelProto, calls: Sequence[NDArray[Any]], kinds: tuple[str, ...]) -> str:
    before = _before(model.graph)
    if not before or not calls:
        return ""
    answers, *others = _values(model, [model.graph.output[0].name, *before], calls)
    logarithms = _logarithms(_of_one(_rows(answers, None)), kinds)
    if logarithms is None:
        return ""
    fits = [name for name, value in zip(before, others, strict=True) if _is_logits(value, logarithms)]
    if not fits:
        return ""
    makers = {name: node for node in model.graph.node for name in node.output}
    name = fits[0]
    while (node := makers.get(name)) is not None and _shifts(node, makers) and node.input[0] in fits:
        name = node.input[0]
    return _cut(model, name, others[before.index(name)].ndim, logarithms.shape[1])


def _shifts(node: Any, makers: dict[str, Any]) -> bool:
    """Whether a node leaves every softmax as it is: what Sub takes away is the row's own largest, no constant."""
    if node.op_type != "Sub":
        return node.op_type in SHIFTS
    taken = makers.get(node.input[1])
    return taken is not None and taken.op_type == "ReduceMax"


def _before(graph: Any) -> list[str]:
    """Tensors that nodes make before the output, the nearest first."""
    makers = {name: node for node in graph.node for name in node.output}
    found: dict[str, None] = {}
    front = [graph.output[0].name]
    for _ in range(REACH):
        nodes = [makers[name] for name in front if name in makers]
        front = [name for node in nodes for name in node.input if name in makers and name not in found]
        found |= dict.fromkeys(front)
    return list(found)


def _values(model: onnx.ModelProto, names: list[str], calls: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """The tensors' values, the calls behind each other; ONNX Runtime runs the graph as it stands."""
    with needs("read ONNX files"):
        import onnx
        import onnxruntime
    looking = onnx.ModelProto()
    looking.CopyFrom(model)
    del looking.graph.output[:]
    looking.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = session_options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(looking.SerializeToString(), options, providers=["CPUExecutionProvider"])
        entry = session.get_inputs()[0].name
        parts = [session.run(names, {entry: call}) for call in calls]
        return [np.concatenate([np.atleast_1d(part[at]) for part in parts]) for at in range(len(names))]
    except Exception:  # a graph that ONNX Runtime does not run is refused where its answers are needed
        return [np.zeros((0, 0), np.float32) for _ in names]


def _rows(value: NDArray[Any], shape: tuple[int, ...] | None) -> Float32 | None:
    """A tensor as (N, classes); None where it cannot be that, or not of `shape`."""
    if value.dtype != np.float32 or value.ndim < 2 or len(value) == 0:
        return None
    rows: Float32 = value.reshape(len(value), -1)
    return rows if shape in (None, rows.shape) else None


def _of_one(answers: Float32 | None) -> Float32 | None:
    """Probabilities in percent, say, as parts of one; anything else as it is."""
    if answers is None or not (answers >= 0).all() or kind_of_answers(answers) != LOGITS:
        return answers
    sums = answers.astype(np.float64).sum(axis=1)
    if not np.isfinite(sums).all() or np.ptp(sums) > SUM * sums.mean():
        return answers
    shares: Float32 = (answers / sums.mean()).astype(np.float32)
    return shares


def _logarithms(answers: Float32 | None, kinds: tuple[str, ...]) -> NDArray[np.float64] | None:
    """Of the probabilities that a graph answers with; None where it answers with something else than `kinds`."""
    kind = "" if answers is None else kind_of_answers(answers)
    if answers is None or kind not in kinds:
        return None
    with np.errstate(divide="ignore"):
        values = np.log(np.maximum(answers.astype(np.float64), 0)) if kind == PROBABILITIES else answers
    return values.astype(np.float64)


def _is_logits(value: NDArray[Any], logarithms: NDArray[np.float64]) -> bool:
    rows = _rows(value, logarithms.shape)
    if rows is None:
        return False
    good = np.isfinite(rows).all(axis=1)
    if not good.any():
        return False
    found, wanted = log_softmax(rows[good]), logarithms[good]
    seen = np.maximum(found, wanted) > np.log(SEEN)
    with np.errstate(invalid="ignore"):
        return bool((np.abs(found - wanted)[seen] < EQUAL).all())


def _cut(model: onnx.ModelProto, name: str, rank: int, classes: int) -> str:
    """Makes a tensor the output, as (batch, classes); the operators that went."""
    from onnx import TensorProto, helper

    graph, old = model.graph, model.graph.output[0].name
    whole = [(node.op_type, node.output[0]) for node in graph.node]
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, classes]))
    drop_dead(graph)
    kept = {node.output[0] for node in graph.node}
    if rank > 2:
        graph.node.append(helper.make_node("Flatten", [name], [old], "Flatten", axis=1))
    else:
        for node in graph.node:
            for names in (node.input, node.output):
                names[:] = [old if given == name else given for given in names]
    graph.output[0].name = old
    return ", ".join(operator for operator, output in whole if output not in kept and operator != "Constant")


def drop_dead(graph: Any) -> None:
    """Nodes that the output does not depend on; the version converter would stumble over some."""
    makers = {name: node for node in graph.node for name in node.output}
    needed, open_names = set(), [value.name for value in graph.output]
    while open_names:
        node = makers.get(open_names.pop())
        if node is not None and id(node) not in needed:
            needed.add(id(node))
            open_names += [*node.input, *tensors_behind(node)]
    set_nodes(graph, (node for node in graph.node if id(node) in needed))
    drop_unread_initializers(graph)
