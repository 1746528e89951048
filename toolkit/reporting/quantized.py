"""What INT8 rests on: the calibration record with its ranges, and what the engines made of it."""

from __future__ import annotations

from typing import Any

from toolkit.bundle.manifest import VARIANTS
from toolkit.reporting.drawing import Frame, chart, circle, figure, left_axis, line, tip, words
from toolkit.reporting.evidence import Evidence
from toolkit.reporting.markup import Markup, definitions, element, joined, paragraph, table, unfolded
from toolkit.reporting.scales import Scale, scale_of
from toolkit.reporting.words import percent, three_digits
from toolkit.runtime.trt.layer_report import layer_report_from_dict, warnings_of_layer_report


def calibration_section(evidence: Evidence) -> Markup:
    """What the ranges were measured with, and the ranges themselves as a strip."""
    record, entry = evidence.record, evidence.manifest.get("calibration")
    if record is None or not entry:
        return paragraph("No calibration record: this bundle holds no INT8 file.", class_="absent")
    facts = definitions(
        [
            ("Method", entry.get("method", "not known")),
            ("Images", f"{int(entry.get('images', 0)):,}, none of them among those that judge"),
            ("Key", element("code", record.key, class_="hash")),
            ("Network", element("code", entry.get("graph_sha256", "not known"), class_="hash")),
            ("Images' sha256", element("code", entry.get("images_sha256", "not known"), class_="hash")),
            ("Made by", f"toolkit {entry.get('tool', 'of unknown version')}"),
            *_notes(entry.get("notes") or {}),
        ]
    )
    ranges = [(name, value, record.largest.get(name, value)) for name, value in record.amax.items() if value > 0]
    if not ranges:
        return joined([facts, paragraph("The record holds no ranges.", class_="absent")])
    caption = (
        "One column a tensor, in the order of the network. The dot is the range that int8 covers, the line above it "
        "reaches the largest value seen: what lies on the line is clipped."
    )
    rows = [(n, three_digits(v), three_digits(most), percent(100 * v / most, 0)) for n, v, most in ranges]
    figures = table("Ranges", ("tensor", "int8 covers", "largest seen", "covered"), rows)
    return joined(
        [
            facts,
            _candidates(entry.get("notes") or {}),
            figure("Ranges of the activations", caption, _strip(ranges)),
            unfolded("The ranges as a table", figures),
        ]
    )


def _notes(notes: dict[str, Any]) -> list[tuple[str, str]]:
    plain = {name: value for name, value in notes.items() if not isinstance(value, dict | list)}
    return [(str(name).replace("_", " ").capitalize(), str(value)) for name, value in plain.items()]


def _candidates(notes: dict[str, Any]) -> Markup:
    """Each method that `auto` tried, nearest to fp32 first."""
    tried = [entry for entry in notes.get("candidates") or [] if isinstance(entry, dict)]
    if not tried:
        return Markup("")
    rows = [
        (
            str(entry.get("method")),
            "\u2013" if entry.get("relative_l2") is None else percent(100 * entry["relative_l2"], 3),
            "\u2013" if entry.get("flips") is None else f"{entry['flips']} of {entry.get('images', 0):,}",
            str(entry.get("refused") or ""),
        )
        for entry in tried
    ]
    columns = ("method", "rel. L2 of logits", "flips", "refused because<")
    return table("Methods that were tried on held-out calibration images", columns, rows)


def _strip(ranges: list[tuple[str, float, float]]) -> Markup:
    frame = Frame(26, 176, left=52, right=10)
    y = scale_of([v for _, low, high in ranges for v in (low, high)], frame.bottom, frame.top, log=True, spare=0.1)
    step = 100 / len(ranges)
    columns = [_column(entry, y, step * (index + 0.5)) for index, entry in enumerate(ranges)]
    least, most = min(v for _, v, _ in ranges), max(v for _, v, _ in ranges)
    says = f"Ranges of {len(ranges)} tensors, from {least:.3g} to {most:.3g}"
    ends = joined(
        [
            words(0, frame.bottom + 16, "input", class_="tick"),
            words(100, frame.bottom + 16, "output", anchor="end", class_="tick"),
        ]
    )
    return chart(frame, 200, says, left_axis(frame, y, "|x| (log)"), element("g", *columns, class_="is-ort"), ends)


def _column(entry: tuple[str, float, float], y: Scale, x: float) -> Markup:
    name, covered, largest = entry
    says = f"{name}: int8 covers {three_digits(covered)}, largest seen {three_digits(largest)}"
    return element(
        "g",
        line(x, y(covered), x, y(largest), "clipped"),
        circle(x, y(largest), 1.8, class_="seen"),
        circle(x, y(covered), 4, tip(says)),
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
    about: dict[str, list[str]] = {}
    for engine in engines:
        for text in _warned(engine):
            about.setdefault(text, []).append(str(engine["file"]))
    warned = [
        element("li", element("strong", ", ".join(files)), ": ", evidence.say(text)) for text, files in about.items()
    ]
    warnings = element("ul", *warned, class_="warnings") if warned else Markup("")
    types = [element("li", f"reads {name}", class_=f"key reads-{name}") for name in ("int8", "half", "float")]
    key = element("ul", *types, class_="legend")
    return joined([key, table("Engines in the bundle", columns, rows, class_="wide"), warnings])


def _engine_row(engine: dict[str, Any], sidecar: dict[str, Any]) -> tuple[object, ...]:
    tensorrt, builder = engine.get("tensorrt") or {}, sidecar.get("builder") or {}
    layers = engine.get("census")
    where = builder.get("device") or builder.get("note") or builder.get("machine") or "not known"
    return (
        str(engine.get("file", "")).removeprefix("engines/"),
        f"{tensorrt.get('kind', '')} {tensorrt.get('version', '')}".strip() or "not known",
        where,
        f"{layers['layers']}" if layers else "\u2013",
        _share_of_types(layers)
        if layers
        else str(engine.get("census_reason") or sidecar.get("census_reason") or "the build listed no layers"),
        f"{layers['conversions']}" if layers else "\u2013",
        f"{engine['build_seconds']:.1f}" if engine.get("build_seconds") is not None else "\u2013",
    )


def _share_of_types(layers: dict[str, Any]) -> Markup:
    """A bar of the convolutions by what they read, with the numbers in words."""
    reading, total = layers.get("convolutions_reading") or {}, layers.get("convolutions") or 0
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
    layers, variant = layer_report_from_dict(engine.get("census")), VARIANTS.get(str(engine.get("precision")))
    return () if layers is None else warnings_of_layer_report(layers, variant is not None and variant.is_int8)
