"""Accuracy against latency, with the size of the file as area: every runner a point, none hidden."""

from __future__ import annotations

import math
from dataclasses import dataclass

from toolkit.compare.parity import Parity
from toolkit.reporting.drawing import (
    LETTER,
    Frame,
    bottom_axis,
    chart,
    circle,
    figure,
    left_axis,
    line,
    lines,
    spread,
    tip,
    words,
)
from toolkit.reporting.evidence import BACKENDS, Evidence, backend_of
from toolkit.reporting.markup import Markup, element, joined, paragraph, table
from toolkit.reporting.scales import Scale, scale_of
from toolkit.reporting.words import between, listed, milliseconds, percent, signed, size

SMALLEST_DOT, LARGEST_DOT = 4.0, 14.0
LABEL_HEIGHT = 16.0


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
        pair = evidence.pair_of.get(name)
        if pair is not None:
            parity = evidence.parity_of(pair)
            low, high = _reach(parity)
            top1 = parity.candidate_score.top1_percent
            points.append(Point(name, latency.p50_ms, top1, low, min(high, 100.0), evidence.bytes_of(name)))
    return points


def _reach(parity: Parity) -> tuple[float, float]:
    """The paired interval of the difference from fp32, at fp32's top-1; of fp32 itself nothing is uncertain."""
    interval, score = parity.change_interval_points, parity.candidate_score
    if interval is None:
        return score.low_percent, score.high_percent
    if parity.candidate == parity.reference:
        return score.top1_percent, score.top1_percent
    before = parity.reference_score.top1_percent
    return before + interval[0], before + interval[1]


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
        missing = [name for name, found in (("verify", evidence.pairs), ("bench", evidence.latencies)) if not found]
        reason = f"there is no document of toolkit {listed(missing)}" if missing else "no runner is in both documents"
        return joined(
            [paragraph(f"No chart of accuracy against latency: {reason}.", class_="absent"), _table(evidence)]
        )
    paired = any(evidence.pair_of[p.runner].parity.change_interval_points for p in points)
    bars = (
        "Vertical lines: the paired 95 % interval of the difference from fp32, on the same images."
        if paired
        else "Vertical lines: Wilson's 95 % interval of top-1."
    )
    front = "The dashed line joins what nothing else beats in both. " if len(frontier(points)) > 1 else ""
    caption = f"{bars} {front}The area of a point is the size of its file; a ring reads no file of the bundle."
    drawn = _chart(points, evidence.smallest_batch or 1)
    return joined([figure("Accuracy against latency", caption, _legend(points), drawn), _table(evidence)])


def _legend(points: list[Point]) -> Markup:
    kinds = dict.fromkeys(backend_of(point.runner) for point in points)
    entries = [element("li", BACKENDS.get(kind, kind), class_=f"key is-{kind}") for kind in kinds]
    return element("ul", *entries, class_="legend")


def _chart(points: list[Point], batch: int) -> Markup:
    inside = max(338.0, LABEL_HEIGHT * len(points))
    widest = max(len(point.runner) for point in points)
    frame = Frame(34, 34 + inside, left=52, right=int(LETTER * widest) + 20)
    x = scale_of([p.latency_ms for p in points], 0, 100, log=True, spare=0.1)
    values = [value for p in points for value in (p.low, p.high, p.top1_percent)]
    y = scale_of(values, frame.bottom, frame.top, spare=0.08)
    y = Scale(y.low, max(min(y.high, 100.0), max(values) + 1e-9), y.start, y.end)
    best, radii = frontier(points), _radii(points)
    says = "Top-1 in percent against median milliseconds a call: " + "; ".join(
        f"{p.runner} {p.top1_percent:.2f} % in {p.latency_ms:.3g} ms" for p in points
    )
    return chart(
        frame,
        frame.bottom + 48,
        says,
        left_axis(frame, y, "\u2191 better \u00b7 top-1, % right"),
        bottom_axis(frame, x, f"\u2190 faster \u00b7 median ms a call, batch {batch} (log)"),
        _labels(points, x, y, frame),
        _steps(best, x, y) if len(best) > 1 else "",
        *(_bar(p, x, y) for p in points),
        *(_dot(p, radius, x, y) for p, radius in sorted(zip(points, radii, strict=True), key=lambda both: -both[1])),
    )


def _steps(best: list[Point], x: Scale, y: Scale) -> Markup:
    corners: list[tuple[float, float]] = []
    for point in best:
        if corners:
            corners.append((x(point.latency_ms), corners[-1][1]))
        corners.append((x(point.latency_ms), y(point.top1_percent)))
    return lines(corners, "frontier")


def _bar(point: Point, x: Scale, y: Scale) -> Markup:
    at = x(point.latency_ms)
    return element("g", line(at, y(point.low), at, y(point.high), "interval"), class_=point.kind)


def _radii(points: list[Point]) -> list[float]:
    """Areas in proportion to the files, the largest `LARGEST_DOT`."""
    largest = max((point.bytes or 0 for point in points), default=0) or 1
    return [
        max(SMALLEST_DOT, LARGEST_DOT * math.sqrt(point.bytes / largest)) if point.bytes else SMALLEST_DOT + 2
        for point in points
    ]


def _dot(point: Point, radius: float, x: Scale, y: Scale) -> Markup:
    says = f"{point.runner}: {percent(point.top1_percent)} right, {milliseconds(point.latency_ms)}, " + (
        size(point.bytes) if point.bytes else "no file of the bundle"
    )
    style = f"dot {point.kind}" + ("" if point.bytes else " hollow")
    return circle(x(point.latency_ms), y(point.top1_percent), radius, tip(says), class_=style)


def _labels(points: list[Point], x: Scale, y: Scale, frame: Frame) -> Markup:
    """Names in a column at the right, in the order of the points' heights, each with a thin line to its point."""
    levels = [y(point.top1_percent) for point in points]
    rows = spread(levels, LABEL_HEIGHT, frame.top + LABEL_HEIGHT / 2, frame.bottom - LABEL_HEIGHT / 2)
    drawn = []
    for point, level, row in zip(points, levels, rows, strict=True):
        leader = line(x(point.latency_ms), level, 100, row, "leader")
        drawn.append(element("g", leader, words(100, row + 4, point.runner, dx=8, class_="label"), class_=point.kind))
    return joined(drawn)


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
    pair = evidence.pair_of.get(name)
    if pair is None:
        return ("\u2013", "\u2013", "\u2013", "not verified")
    parity = evidence.parity_of(pair)
    score = parity.candidate_score
    return (
        percent(score.top1_percent),
        between(score.low_percent, score.high_percent),
        signed(parity.change_points),
        element("span", pair.verdict.word, class_=f"badge {pair.verdict.word}"),
    )
