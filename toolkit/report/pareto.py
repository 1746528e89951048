"""Accuracy against latency, with the size of the file as area: every runner a point, none hidden."""

from __future__ import annotations

import math
from dataclasses import dataclass

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
from toolkit.report.evidence import BACKENDS, Evidence, backend_of
from toolkit.report.markup import Markup, element, joined, paragraph, table
from toolkit.report.placement import Box, places_of_labels
from toolkit.report.scales import Scale, scale_of
from toolkit.report.words import between, listed, milliseconds, percent, signed, size

SMALLEST_DOT, LARGEST_DOT = 4.0, 17.0
LABEL_HEIGHT = 15.0


@dataclass(frozen=True)
class Point:
    """A runner on the chart; `low` and `high` bound its top-1 in percent."""

    runner: str
    latency_ms: float
    top1_percent: float
    low: float
    high: float
    bytes: int | None

    @property
    def kind(self) -> str:
        """The backend, as a class of the style sheet."""
        return f"is-{backend_of(self.runner)}"


def points_from_evidence(evidence: Evidence) -> list[Point]:
    """Every runner whose accuracy and latency are both known, at the smallest batch size."""
    points = []
    for name, latency in evidence.latency_of.items():
        accuracy = evidence.accuracy_of.get(name)
        if accuracy is None or latency.p50_ms <= 0:
            continue
        interval = None if name == accuracy.reference else accuracy.change_interval
        low, high = accuracy.low_percent, accuracy.high_percent
        if interval is not None:
            low, high = (accuracy.reference_top1_percent + part for part in interval)
        elif name == accuracy.reference and accuracy.change_interval is not None:
            low = high = accuracy.top1_percent  # against itself there is nothing uncertain
        points.append(
            Point(name, latency.p50_ms, accuracy.top1_percent, low, min(high, 100.0), evidence.bytes_of(name))
        )
    return points


def frontier(points: list[Point]) -> list[Point]:
    """The points that no other beats in both accuracy and latency, fastest first."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.latency_ms, -p.top1_percent)):
        if not best or point.top1_percent > best[-1].top1_percent:
            best.append(point)
    return best


def pareto_section(evidence: Evidence) -> Markup:
    """The chart with its table; a sentence where accuracy or latency is missing."""
    points = points_from_evidence(evidence)
    if not points:
        missing = [
            name for name, found in (("verify", evidence.accuracies), ("bench", evidence.latencies)) if not found
        ]
        reason = f"there is no document of toolkit {listed(missing)}" if missing else "no runner is in both documents"
        return joined(
            [paragraph(f"No chart of accuracy against latency: {reason}.", class_="absent"), _table(evidence)]
        )
    paired = any(evidence.accuracy_of[p.runner].change_interval for p in points)
    bars = (
        "Vertical lines: the paired 95 % interval of the difference from fp32, on the same images."
        if paired
        else "Vertical lines: Wilson's 95 % interval of top-1."
    )
    front = "The dashed line joins what nothing else beats in both. " if len(frontier(points)) > 1 else ""
    caption = f"{bars} {front}The area of a point is the size of its file; a ring reads no file of the bundle."
    legend = _legend(points)
    drawn = for_desk_and_phone(lambda width: _chart(points, width, evidence.smallest_batch or 1))
    return joined([figure("Accuracy against latency", caption, legend, drawn), _table(evidence)])


def _legend(points: list[Point]) -> Markup:
    kinds = dict.fromkeys(backend_of(point.runner) for point in points)
    entries = [element("li", BACKENDS.get(kind, kind), class_=f"key is-{kind}") for kind in kinds]
    return element("ul", *entries, class_="legend")


def _chart(points: list[Point], width: float, batch: int) -> Markup:
    height = 420.0
    frame = Frame(52, 34, width - 14, height - 48)
    x = scale_of([p.latency_ms for p in points], frame.left, frame.right, log=True, spare=0.18)
    values = [value for p in points for value in (p.low, p.high, p.top1_percent)]
    y = scale_of(values, frame.bottom, frame.top, spare=0.08)
    y = Scale(y.low, max(min(y.high, 100.0), max(values) + 1e-9), y.start, y.end)
    best, radii = frontier(points), _radii(points, width)
    says = "Top-1 in percent against median milliseconds a call: " + "; ".join(
        f"{p.runner} {p.top1_percent:.2f} % in {p.latency_ms:.3g} ms" for p in points
    )
    return chart(
        width,
        height,
        says,
        left_axis(frame, y, "\u2191 better \u00b7 top-1, % right"),
        bottom_axis(frame, x, f"\u2190 faster \u00b7 median ms a call, batch {batch} (log)"),
        _steps(best, x, y) if len(best) > 1 else "",
        *(_bar(p, x, y) for p in points),
        *(_dot(p, radius, x, y) for p, radius in sorted(zip(points, radii, strict=True), key=lambda both: -both[1])),
        _labels(points, radii, x, y, frame),
    )


def _steps(best: list[Point], x: Scale, y: Scale) -> Markup:
    corners: list[tuple[float, float]] = []
    for point in best:
        if corners:
            corners.append((x(point.latency_ms), corners[-1][1]))
        corners.append((x(point.latency_ms), y(point.top1_percent)))
    return path(corners, class_="frontier")


def _bar(point: Point, x: Scale, y: Scale) -> Markup:
    at = x(point.latency_ms)
    return element("g", line(at, y(point.low), at, y(point.high), "interval"), class_=point.kind)


def _radii(points: list[Point], width: float) -> list[float]:
    """Areas in proportion to the files, the largest `LARGEST_DOT`, smaller on a phone."""
    most = LARGEST_DOT if width > NARROW else 0.7 * LARGEST_DOT
    largest = max((point.bytes or 0 for point in points), default=0) or 1
    return [
        max(SMALLEST_DOT, most * math.sqrt(point.bytes / largest)) if point.bytes else SMALLEST_DOT + 2
        for point in points
    ]


def _dot(point: Point, radius: float, x: Scale, y: Scale) -> Markup:
    says = f"{point.runner}: {percent(point.top1_percent)} right, {milliseconds(point.latency_ms)}, " + (
        size(point.bytes) if point.bytes else "no file of the bundle"
    )
    return element(
        "circle",
        tip(says),
        cx=x(point.latency_ms),
        cy=y(point.top1_percent),
        r=radius,
        class_=f"dot {point.kind}" + ("" if point.bytes else " hollow"),
    )


def _labels(points: list[Point], radii: list[float], x: Scale, y: Scale, frame: Frame) -> Markup:
    # A circle's corners are free: its square a fifth smaller.
    places = [(x(p.latency_ms), y(p.top1_percent), 0.8 * radius) for p, radius in zip(points, radii, strict=True)]
    sizes = [(len(p.runner) * LETTER + 4, LABEL_HEIGHT) for p in points]
    boxes = places_of_labels(places, sizes, Box(frame.left + 2, frame.top + 2, frame.right, frame.bottom - 2))
    drawn = []
    for point, (at, level, radius), box in zip(points, places, boxes, strict=True):
        if box is None:
            continue  # no place is left: its figures are in the table below
        drawn.append(_leader(at, level, radius, box))
        drawn.append(
            words((box.left + box.right) / 2, box.bottom - 4, point.runner, anchor="middle", class_="label halo")
        )
    return joined(drawn)


def _leader(x: float, y: float, radius: float, box: Box) -> Markup:
    """A thin line to a label that had to move away from its point."""
    near_x, near_y = min(max(x, box.left), box.right), min(max(y, box.top), box.bottom)
    distance = math.hypot(near_x - x, near_y - y)
    if distance < radius + 9:
        return Markup("")
    part = radius / distance
    return line(x + (near_x - x) * part, y + (near_y - y) * part, near_x, near_y, "leader")


def _table(evidence: Evidence) -> Markup:
    """Every runner with what is known about it."""
    batches = sorted({latency.batch for latency in evidence.latencies})
    times = {(latency.runner, latency.batch): latency.p50_ms for latency in evidence.latencies}
    rows = [
        (
            name,
            (evidence.file_of(name) or "\u2013").removeprefix("engines/"),
            size(evidence.bytes_of(name)) if evidence.bytes_of(name) else "\u2013",
            *_accuracy_cells(evidence, name),
            *(milliseconds(times[name, batch]) if (name, batch) in times else "\u2013" for batch in batches),
        )
        for name in evidence.runners
    ]
    columns = ("runner", "file<", "size", "top-1", "95 %", "change", "gate<", *(f"batch {b}" for b in batches))
    caption = "Every file on every backend that ran, with its median call at each batch size"
    return table(caption, columns, rows, class_="wide") if rows else Markup("")


def _accuracy_cells(evidence: Evidence, name: str) -> tuple[object, ...]:
    found = evidence.accuracy_of.get(name)
    if found is None:
        return ("\u2013", "\u2013", "\u2013", "not verified")
    badge = {"pass": "pass", "fail": "fail", "undecided": "undecided"}.get(found.gate, "none")
    return (
        percent(found.top1_percent),
        between(found.low_percent, found.high_percent),
        signed(found.change_points),
        element("span", found.gate or "not judged", class_=f"badge {badge}"),
    )
