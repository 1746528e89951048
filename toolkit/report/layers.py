"""Layer by layer: what INT8 costs in each, how much of it a budget allows, and where two runners part."""

from __future__ import annotations

from typing import Any

from toolkit.report.drawing import (
    LETTER,
    NARROW,
    Frame,
    bottom_axis,
    chart,
    figure,
    for_desk_and_phone,
    left_axis,
    line,
    path,
    tip,
    words,
)
from toolkit.report.evidence import Evidence
from toolkit.report.markup import Markup, element, joined, paragraph, table
from toolkit.report.scales import Scale, scale_of
from toolkit.report.words import chosen, exponent, percent, three_digits

MOST_LAYERS = 24
ROW = 22.0


def layers_section(evidence: Evidence) -> Markup:
    """Each convolution quantized alone, and the same answers against the share of convolutions in INT8."""
    budget = evidence.manifest.get("budget") or {}
    layers = (evidence.sensitivity or {}).get("layers") or budget.get("layers") or []
    parts = [_layers(layers) if layers else _no_layers(evidence)]
    curve = budget.get("curve") or []
    if len(curve) > 1:
        parts.append(_curve(curve))
    kept = evidence.manifest.get("kept_in_float") or []
    if kept:
        parts.append(paragraph(f"Kept in floating point: {', '.join(map(str, kept))}."))
    elif evidence.record is not None:
        parts.append(paragraph("Every convolution is in INT8; none was kept in floating point."))
    return joined([*parts, _partings(evidence)])


def _partings(evidence: Evidence) -> Markup:
    """What toolkit verify --layers found: the first node where two files part, and how far the worst is off."""
    rows = []
    for pair in (evidence.verify or {}).get("layers") or ():
        off = [layer["output_l2"] for layer in pair.get("layers") or () if layer.get("output_l2") is not None]
        names = f"{pair.get('reference')} \u2192 {pair.get('candidate')}"
        rows.append(
            (names, str(pair.get("parted") or "nowhere"), exponent(max(off, default=None)), f"{pair.get('images')}")
        )
    columns = ("files", "part at<", "worst rel. L2 of a layer", "images")
    return table("Layer by layer on the same images", columns, rows) if rows else Markup("")


def _no_layers(evidence: Evidence) -> Markup:
    command = element("code", f"toolkit sensitivity {evidence.model}")
    return paragraph("What INT8 costs in each layer was not measured: ", command, " does.", class_="absent")


def _layers(layers: list[dict[str, Any]]) -> Markup:
    known = [layer for layer in layers if layer.get("relative_l2") is not None][:MOST_LAYERS]
    caption = (
        "One convolution in INT8, all others in floating point: how far the logits of held-out calibration images "
        "move, as ||INT8 - fp32|| / ||fp32||."
        + (f" The {len(known)} most sensitive of {len(layers)}." if len(known) < len(layers) else "")
    )
    return figure("What INT8 costs in each layer", caption, for_desk_and_phone(lambda width: _dots(known, width)))


def _dots(layers: list[dict[str, Any]], width: float) -> Markup:
    wide = width > NARROW
    row = ROW if wide else ROW + 18
    names = min(38, max(len(str(layer["node"])) for layer in layers))
    frame = Frame(12 + names * LETTER if wide else 6, 6, width - 66, 6 + row * len(layers))
    most = max(100 * float(layer["relative_l2"]) for layer in layers)
    x = Scale(0, most or 1.0, frame.left, frame.right)
    drawn = [_dot(layer, x, frame.top + row * (index + 1) - ROW / 2 + 3, wide) for index, layer in enumerate(layers)]
    says = "Relative L2 of the logits by layer: " + "; ".join(
        f"{layer['node']} {100 * layer['relative_l2']:.2f} %" for layer in layers[:8]
    )
    axis = bottom_axis(frame, x, "logits moved by, %")
    return chart(width, frame.bottom + 42, says, axis, *drawn)


def _dot(layer: dict[str, Any], x: Scale, y: float, wide: bool) -> Markup:
    cost = 100 * float(layer["relative_l2"])
    name = str(layer["node"])
    short = name if len(name) <= 38 else "\u2026" + name[-37:]
    label = (
        words(x.start - 8, y + 4, short, anchor="end", class_="label")
        if wide
        else words(x.start, y - 11, short, class_="label halo")
    )
    flips = f", {layer['flips']} flips of {layer['images']}" if "flips" in layer and "images" in layer else ""
    return element(
        "g",
        line(x.start, y, x(cost), y, "stem"),
        element("circle", tip(f"{name}: {three_digits(cost)} %{flips}"), cx=x(cost), cy=y, r=4.5, class_="dot"),
        label,
        words(x(cost) + 9, y + 4, f"{three_digits(cost)}\u202f%", class_="value"),
        class_="is-ort",
    )


def _curve(curve: list[dict[str, Any]]) -> Markup:
    points = sorted((float(point["int8_percent"]), float(point["agreement_percent"])) for point in curve)
    images = curve[0].get("images")
    caption = "Convolutions are taken into INT8 from the least sensitive to the most." + (
        f" Judged on {chosen(int(images), 'held-out calibration image', 'held-out calibration images')}."
        if images
        else ""
    )
    drawn = for_desk_and_phone(lambda width: _curve_chart(points, width))
    return figure("Agreement with fp32 against the share of INT8", caption, drawn)


def _curve_chart(points: list[tuple[float, float]], width: float) -> Markup:
    frame = Frame(52, 30, width - 20, 240)
    x, y = Scale(0, 100, frame.left, frame.right), scale_of([v for _, v in points], frame.bottom, frame.top, spare=0.1)
    y = Scale(y.low, max(min(y.high, 100.0), max(v for _, v in points) + 1e-9), y.start, y.end)
    dots = [
        element(
            "circle", tip(f"{percent(share, 0)} INT8: {percent(value)}"), cx=x(share), cy=y(value), r=4.5, class_="dot"
        )
        for share, value in points
    ]
    says = "UnlabeledParity in percent by share of INT8: " + "; ".join(f"{s:.0f} %: {v:.2f}" for s, v in points)
    line_of = path([(x(share), y(value)) for share, value in points], class_="curve")
    return chart(
        width, 284, says,
        left_axis(frame, y, "answers as fp32 does, %"), bottom_axis(frame, x, "convolutions in INT8, %"),
        element("g", line_of, *dots, class_="is-ort"),
    )  # fmt: skip
