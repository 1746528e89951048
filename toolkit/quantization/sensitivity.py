"""Which layers INT8 costs most, by ONNX node name, and the fewest to keep in floating point for a budget.

Works on graphs: a TensorRT of any version computes what the file says. Images are calibration images held out of the
choice of method, never evaluation images, and no label is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from toolkit.calibration.record import Record
from toolkit.compare.parity import UnlabeledParity, parity_without_labels
from toolkit.contracts import Float32, UInt8
from toolkit.errors import CalibrationError
from toolkit.graph.qdq_placement import layers_in_graph
from toolkit.quantization.held_out import logits_of
from toolkit.quantization.qdq import qdq_from_ranges
from toolkit.storage.documents import Document
from toolkit.storage.hints import Apart, Count, Flat, Maybe, Percent, Sha256

if TYPE_CHECKING:
    import onnx

Progress = Callable[[int, int], None]
CURVE_POINTS = 5  # shares of INT8 measured for the curve beside those that the search needs


@dataclass(frozen=True)
class Sensitivity(Document):
    """What the model loses when this convolution alone is quantized."""

    node: str
    parity: Flat[UnlabeledParity]


@dataclass(frozen=True)
class Sensitivities(Document):
    """What toolkit sensitivity prints, and keeps in sensitivity.json: each convolution in INT8 alone.

    Attributes:
        model: its name.
        method: how the ranges were measured.
        key: of the calibration record that they stand in.
        images: held out of those that calibrate; they judge.
        layers: the one that costs most first.
        folder: where sensitivity.json lies; not in that file itself.
    """

    SCHEMA = "toolkit/sensitivity/1"
    ok: Literal[True]
    model: str
    method: str
    key: Sha256
    images: Count
    layers: tuple[Sensitivity, ...]
    folder: Maybe[Path] = None


@dataclass(frozen=True)
class Point(Document):
    """A graph with the most sensitive of all convolutions in floating point.

    Attributes:
        kept_in_float: so many.
        int8_percent: of the convolutions are in INT8.
        agreement_percent: of the images have fp32's top answer.
    """

    kept_in_float: Count
    int8_percent: Percent
    agreement_percent: Percent
    parity: Flat[UnlabeledParity]


@dataclass(frozen=True)
class Budget(Document):
    """The fewest convolutions to keep out of INT8, and what was measured to find them; an entry of the manifest.

    Attributes:
        layers: each convolution alone in INT8.
        curve: every share of INT8 that was measured, all INT8 last.
        keep_float: names of the convolutions; in memory only.
    """

    layers: tuple[Sensitivity, ...]
    curve: tuple[Point, ...]
    keep_float: Apart[frozenset[str]] = frozenset()


def sensitivities_of_layers(
    model: onnx.ModelProto, record: Record, images_nhwc: UInt8, on_progress: Progress = lambda done, total: None
) -> tuple[Sensitivity, ...]:
    """Quantizes each convolution alone; the one that costs most first, equals in the order of the graph.

    Args:
        model: the fp32 graph that the record belongs to.
        images_nhwc: uint8 (N, H, W, C).

    Raises:
        CalibrationError: the record was measured on another graph.
    """
    convolutions = layers_in_graph(model)
    expected = logits_of(model, images_nhwc)
    found = []
    for index, name in enumerate(convolutions):
        on_progress(index, len(convolutions))
        others = frozenset(convolutions) - {name}
        got = logits_of(qdq_from_ranges(model, record, keep_float=others), images_nhwc)
        found.append(Sensitivity(name, parity_without_labels(expected, got)))
    on_progress(len(convolutions), len(convolutions))
    return tuple(sorted(found, key=lambda layer: layer.parity.order, reverse=True))


def keep_float_within(
    model: onnx.ModelProto,
    record: Record,
    images_nhwc: UInt8,
    layers: tuple[Sensitivity, ...],
    max_drop: float,
) -> Budget:
    """The shortest beginning of `layers` that brings agreement with fp32 to at least 100 - `max_drop` percent.

    The length is found by bisection, which takes for granted that a longer beginning never agrees less.

    Raises:
        CalibrationError: not even with a single convolution in INT8.
    """
    names = [layer.node for layer in layers]
    expected = logits_of(model, images_nhwc)
    points: dict[int, Point] = {}

    def point(kept: int) -> Point:
        if kept not in points:
            points[kept] = _point(model, record, images_nhwc, expected, names, kept)
        return points[kept]

    def good(kept: int) -> bool:
        return 100 - point(kept).parity.percent <= max_drop + 1e-9

    low, high = 0, len(names) - 1  # at least one convolution must be INT8
    if not good(high):
        raise _cannot(point(high), max_drop)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if good(middle) else (middle + 1, high)
    for step in range(CURVE_POINTS):
        point(round(step * (len(names) - 1) / (CURVE_POINTS - 1)))
    curve = tuple(points[kept] for kept in sorted(points, reverse=True))
    return Budget(layers, curve, frozenset(names[:low]))


def _point(
    model: onnx.ModelProto, record: Record, images_nhwc: UInt8, expected: Float32, names: list[str], kept: int
) -> Point:
    got = logits_of(qdq_from_ranges(model, record, keep_float=frozenset(names[:kept])), images_nhwc)
    share = 100 * (len(names) - kept) / len(names)
    parity = parity_without_labels(expected, got)
    return Point(kept, share, parity.percent, parity)


def _cannot(last: Point, max_drop: float) -> CalibrationError:
    return CalibrationError(
        "INT8 cannot meet `max_drop=` on this model",
        found=f"with one convolution left in INT8 {100 - last.parity.percent:.2f} points of agreement are lost "
        f"({last.parity.flips} of {last.parity.images} held-out images flip)",
        allowed=f"{max_drop:g} points",
        fix="a larger `max_drop=`, more `images=`, or `fp16=True`",
    )
