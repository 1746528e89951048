"""What INT8 is made of: what each layer costs, the share that the budget allowed, the record, and the engines."""

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
from toolkit.report.markup import Markup, definitions, element, joined, paragraph, table, unfolded
from toolkit.report.scales import Scale, scale_of
from toolkit.report.words import chosen, percent, three_digits
from toolkit.runtime.census import census_from_dict, warnings_of_census

MOST_LAYERS = 24
ROW = 22.0


def sensitivity_section(evidence: Evidence) -> Markup:
    """Each convolution quantised alone, and agreement against the share of convolutions in INT8."""
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
    return joined(parts)


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
    says = "Agreement in percent by share of INT8: " + "; ".join(f"{s:.0f} %: {v:.2f}" for s, v in points)
    line_of = path([(x(share), y(value)) for share, value in points], class_="curve")
    return chart(
        width, 284, says,
        left_axis(frame, y, "answers as fp32 does, %"), bottom_axis(frame, x, "convolutions in INT8, %"),
        element("g", line_of, *dots, class_="is-ort"),
    )  # fmt: skip


def calibration_section(evidence: Evidence) -> Markup:
    """What the ranges were measured with, and the ranges themselves as a strip."""
    record, entry = evidence.record, evidence.manifest.get("calibration")
    if record is None or not entry:
        return paragraph("No calibration record: this bundle holds no INT8 file.", class_="absent")
    facts = definitions(
        [
            ("Method", entry.get("method", "not known")),
            ("Images", f"{int(entry.get('images', 0)):,}, none of them among those that judge"),
            ("Key", element("code", record.get("key", "not known"), class_="hash")),
            ("Network", element("code", entry.get("graph_sha256", "not known"), class_="hash")),
            ("Images' sha256", element("code", entry.get("images_sha256", "not known"), class_="hash")),
            ("Made by", f"toolkit {entry.get('tool', 'of unknown version')}"),
            *_notes(entry.get("notes") or {}),
        ]
    )
    ranges = [
        (str(n), float(v), float(record["largest"].get(n, v))) for n, v in record.get("amax", {}).items() if v > 0
    ]
    if not ranges:
        return joined([facts, paragraph("The record holds no ranges.", class_="absent")])
    caption = (
        "One column a tensor, in the order of the network. The dot is the range that int8 covers, the line above it "
        "reaches the largest value seen: what lies on the line is clipped."
    )
    strip = for_desk_and_phone(lambda width: _strip(ranges, width))
    rows = [(n, three_digits(v), three_digits(most), percent(100 * v / most, 0)) for n, v, most in ranges]
    figures = table("Ranges", ("tensor", "int8 covers", "largest seen", "covered"), rows)
    return joined(
        [facts, figure("Ranges of the activations", caption, strip), unfolded("The ranges as a table", figures)]
    )


def _notes(notes: dict[str, Any]) -> list[tuple[str, str]]:
    return [(str(name).replace("_", " "), str(value)) for name, value in notes.items() if not isinstance(value, dict)]


def _strip(ranges: list[tuple[str, float, float]], width: float) -> Markup:
    frame = Frame(52, 26, width - 10, 176)
    y = scale_of([v for _, low, high in ranges for v in (low, high)], frame.bottom, frame.top, log=True, spare=0.1)
    step = (frame.right - frame.left) / len(ranges)
    columns = [_column(entry, y, frame.left + step * (index + 0.5)) for index, entry in enumerate(ranges)]
    least, most = min(v for _, v, _ in ranges), max(v for _, v, _ in ranges)
    says = f"Ranges of {len(ranges)} tensors, from {least:.3g} to {most:.3g}"
    ends = joined(
        [
            words(frame.left, frame.bottom + 16, "input", class_="tick"),
            words(frame.right, frame.bottom + 16, "output", anchor="end", class_="tick"),
        ]
    )
    return chart(width, 200, says, left_axis(frame, y, "|x| (log)"), element("g", *columns, class_="is-ort"), ends)


def _column(entry: tuple[str, float, float], y: Scale, x: float) -> Markup:
    name, covered, largest = entry
    says = f"{name}: int8 covers {three_digits(covered)}, largest seen {three_digits(largest)}"
    return element(
        "g",
        line(x, y(covered), x, y(largest), "clipped"),
        line(x - 3, y(largest), x + 3, y(largest), "clipped"),
        element("circle", tip(says), cx=x, cy=y(covered), r=4, class_="dot"),
    )


def engines_section(evidence: Evidence) -> Markup:
    """What each TensorRT engine in the bundle is made of, and what makes INT8 not pay."""
    engines = evidence.manifest.get("engines") or []
    if not engines:
        command = element("code", "toolkit build")
        return paragraph(
            "No TensorRT engine is in this bundle: ", command, " makes them on the device.", class_="absent"
        )
    rows = [_engine_row(engine, evidence.sidecars.get(str(engine.get("file"))) or {}) for engine in engines]
    columns = ("engine", "TensorRT<", "built on<", "layers", "convolutions<", "conversions", "seconds")
    warned = [
        element("li", element("strong", engine["file"]), ": ", text) for engine in engines for text in _warned(engine)
    ]
    warnings = element("ul", *warned, class_="warnings") if warned else Markup("")
    types = [element("li", f"reads {name}", class_=f"key reads-{name}") for name in ("int8", "half", "float")]
    key = element("ul", *types, class_="legend")
    return joined([key, table("Engines in the bundle", columns, rows, class_="wide"), warnings])


def _engine_row(engine: dict[str, Any], sidecar: dict[str, Any]) -> tuple[object, ...]:
    tensorrt, builder = engine.get("tensorrt") or {}, sidecar.get("builder") or {}
    census = engine.get("census")
    where = builder.get("device") or builder.get("note") or builder.get("machine") or "not known"
    return (
        str(engine.get("file", "")).removeprefix("engines/"),
        f"{tensorrt.get('kind', '')} {tensorrt.get('version', '')}".strip() or "not known",
        where,
        f"{census['layers']}" if census else "\u2013",
        _share_of_types(census) if census else "the build listed no layers",
        f"{census['conversions']}" if census else "\u2013",
        f"{engine['build_seconds']:.1f}" if engine.get("build_seconds") is not None else "\u2013",
    )


def _share_of_types(census: dict[str, Any]) -> Markup:
    """A bar of the convolutions by what they read, with the numbers in words."""
    reading, total = census.get("convolutions_reading") or {}, census.get("convolutions") or 0
    kinds = [(kind, int(reading.get(kind, 0))) for kind in ("Int8", "Half", "Float")]
    says = ", ".join(f"{count} {kind.lower()}" for kind, count in kinds if count) or "none"
    if not total:
        return Markup(says)
    parts, at = [], 0.0
    for kind, count in kinds:
        width = 90.0 * count / total
        if count:
            parts.append(element("rect", x=at, y=0, width=width, height=10, class_=f"reads-{kind.lower()}"))
        at += width
    bar = element("svg", *parts, viewBox="0 0 90 10", class_="bar", aria_hidden="true", width=90, height=10)
    return element("span", bar, f" {says}", class_="whole")


def _warned(engine: dict[str, Any]) -> tuple[str, ...]:
    census = census_from_dict(engine.get("census"))
    return () if census is None else warnings_of_census(census, str(engine.get("precision", "")).startswith("int8"))
