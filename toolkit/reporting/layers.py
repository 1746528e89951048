"""Layer by layer: what INT8 costs in each, how much of it a budget allows, and where two runners part."""

from __future__ import annotations

import math
import shlex

from toolkit.quantization.sensitivity import Point, Sensitivity
from toolkit.reporting.drawing import Frame, bottom_axis, chart, circle, figure, left_axis, line, lines, tip, words
from toolkit.reporting.evidence import Evidence
from toolkit.reporting.markup import Markup, element, joined, paragraph, table
from toolkit.reporting.scales import Scale, scale_of
from toolkit.reporting.words import chosen, exponent, percent, three_digits

MOST_LAYERS = 24
LONGEST_NAME = 44
ROW = 38.0  # pixels: the name, and the line below it


def layers_section(evidence: Evidence) -> Markup:
    """Each convolution quantized alone, and the same answers against the share of convolutions in INT8."""
    measured = evidence.sensitivity or evidence.budget
    parts = [_layers(measured.layers) if measured and measured.layers else _no_layers(evidence)]
    if evidence.budget and len(evidence.budget.curve) > 1:
        parts.append(_curve(evidence.budget.curve))
    kept = evidence.manifest.get("kept_in_float") or []
    if kept:
        parts.append(paragraph(f"Kept in floating point: {', '.join(map(str, kept))}."))
    elif evidence.record is not None:
        parts.append(paragraph("Every convolution is in INT8; none was kept in floating point."))
    return joined([*parts, _partings(evidence)])


def _partings(evidence: Evidence) -> Markup:
    """What toolkit verify --layers found: the first node where two files part, and how far the worst is off."""
    rows = []
    for pair in evidence.verify.layers if evidence.verify else ():
        off = [layer.output_l2 for layer in pair.layers if layer.output_l2 is not None]
        names = f"{pair.reference} \u2192 {pair.candidate}"
        rows.append((names, pair.parted or "nowhere", exponent(max(off, default=None)), f"{pair.images}"))
    columns = ("files", "part at<", "worst rel. L2 of a layer", "images")
    return table("Layer by layer on the same images", columns, rows) if rows else Markup("")


def _no_layers(evidence: Evidence) -> Markup:
    command = element("code", f"toolkit sensitivity {shlex.quote(evidence.network)}")
    return paragraph("What INT8 costs in each layer was not measured: ", command, " does.", class_="absent")


def _layers(layers: tuple[Sensitivity, ...]) -> Markup:
    known = [layer for layer in layers if math.isfinite(layer.parity.relative_l2)][:MOST_LAYERS]
    caption = (
        "One convolution in INT8, all others in floating point: how far the logits of held-out calibration images "
        "move, as ||INT8 - fp32|| / ||fp32||."
        + (f" The {len(known)} most sensitive of {len(layers)}." if len(known) < len(layers) else "")
    )
    return figure("What INT8 costs in each layer", caption, _dots(known))


def _dots(layers: list[Sensitivity]) -> Markup:
    frame = Frame(6, 6 + ROW * len(layers), left=6, right=66)
    most = max((100 * layer.parity.relative_l2 for layer in layers), default=0.0)
    x = Scale(0, most or 1.0, 0, 100)
    drawn = [_dot(layer, x, frame.top + ROW * (index + 1) - 9) for index, layer in enumerate(layers)]
    says = "Relative L2 of the logits by layer: " + "; ".join(
        f"{layer.node} {100 * layer.parity.relative_l2:.2f} %" for layer in layers[:8]
    )
    return chart(frame, frame.bottom + 42, says, bottom_axis(frame, x, "logits moved by, %"), *drawn)


def _dot(layer: Sensitivity, x: Scale, y: float) -> Markup:
    cost, name = 100 * layer.parity.relative_l2, layer.node
    short = name if len(name) <= LONGEST_NAME else "\u2026" + name[1 - LONGEST_NAME :]
    says = f"{name}: {three_digits(cost)} %, {layer.parity.flips} flips of {layer.parity.images}"
    return element(
        "g",
        line(0, y, x(cost), y, "stem"),
        circle(x(cost), y, 4.5, tip(says)),
        words(0, y - 11, short, class_="label halo"),
        words(x(cost), y + 4, f"{three_digits(cost)}\u202f%", dx=9, class_="value"),
        class_="is-ort",
    )


def _curve(curve: tuple[Point, ...]) -> Markup:
    images = chosen(curve[0].parity.images, "held-out calibration image", "held-out calibration images")
    caption = f"Convolutions are taken into INT8 from the least sensitive to the most. Judged on {images}."
    points = sorted((point.int8_percent, point.agreement_percent) for point in curve)
    return figure("Agreement with fp32 against the share of INT8", caption, _curve_chart(points))


def _curve_chart(points: list[tuple[float, float]]) -> Markup:
    frame = Frame(30, 240, left=52, right=20)
    x, y = Scale(0, 100, 0, 100), scale_of([v for _, v in points], frame.bottom, frame.top, spare=0.1)
    y = Scale(y.low, max(min(y.high, 100.0), max(v for _, v in points) + 1e-9), y.start, y.end)
    dots = [
        circle(x(share), y(value), 4.5, tip(f"{percent(share, 0)} INT8: {percent(value)}")) for share, value in points
    ]
    says = "Agreement in percent by share of INT8: " + "; ".join(f"{s:.0f} %: {v:.2f}" for s, v in points)
    line_of = lines([(x(share), y(value)) for share, value in points], "curve")
    return chart(
        frame, 284, says,
        left_axis(frame, y, "answers as fp32 does, %"), bottom_axis(frame, x, "convolutions in INT8, %"),
        element("g", line_of, *dots, class_="is-ort"),
    )  # fmt: skip
