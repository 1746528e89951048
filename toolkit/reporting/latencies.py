"""How long calls took: the whole distribution of each runner, not a bar, and what the calls were made of."""

from __future__ import annotations

import math
from itertools import pairwise

from toolkit.reporting.drawing import Frame, bottom_axis, chart, circle, figure, line, tip, words
from toolkit.reporting.evidence import Evidence, backend_of
from toolkit.reporting.markup import Markup, element, joined, paragraph, table
from toolkit.reporting.scales import Scale, scale_of
from toolkit.reporting.words import milliseconds, three_digits
from toolkit.timing.latency import PERCENTILES, Latency

ROW, RIDGE = 64.0, 32.0  # pixels; RIDGE of each ROW is the curve, the rest its words
BINS = 110
SMOOTHING = 1.4  # bins; the percentiles are one per cent of the calls apart, finer detail is not in them


def latency_section(evidence: Evidence) -> Markup:
    """A ridge of every runner and batch size, and every percentile as a table."""
    if not evidence.latencies:
        return paragraph("No latencies: there is no document of toolkit bench.", class_="absent")
    batches = sorted({latency.batch for latency in evidence.latencies})
    charts = [_of_batch([found for found in evidence.latencies if found.batch == batch]) for batch in batches]
    caption = (
        "Each curve is where one runner's calls fell, on a logarithmic scale of milliseconds; its height says how "
        "often, and is the same for all. The tick marks the median, the dot the 99th percentile. A call is a whole "
        "Python call: images in host memory in, logits out."
    )
    drawn = figure("", caption, element("div", *charts, class_="small-multiples"))
    return joined(
        [drawn, _table(evidence.latencies), _phases(evidence.latencies), _starts(evidence), _comparison(evidence)]
    )


def _of_batch(found: list[Latency]) -> Markup:
    frame = Frame(8, 8 + ROW * len(found), left=6, right=8)
    ends = [latency.quantiles_ms[place] for latency in found for place in (0, -1)]
    x = scale_of(ends, 0, 100, log=True, spare=0.02)
    says = f"Distributions of latency at batch {found[0].batch}: " + "; ".join(
        f"{latency.runner} median {latency.p50_ms:.3g} ms" for latency in found
    )
    rows = [_ridge(latency, x, frame.top + ROW * (index + 1)) for index, latency in enumerate(found)]
    drawing = chart(frame, frame.bottom + 40, says, bottom_axis(frame, x, "ms a call (log)"), *rows)
    return element("div", element("h4", f"Batch {found[0].batch}"), drawing)


def _ridge(latency: Latency, x: Scale, base: float) -> Markup:
    quantiles = ", ".join(f"p{p} {milliseconds(latency.quantiles_ms[p])}" for p in (1, 10, 50, 90, 99))
    says = tip(f"{latency.runner}, batch {latency.batch}: {quantiles}")
    middle, top = x(latency.p50_ms), base - RIDGE
    p99_ms = latency.percentile_ms("p99")
    figures = milliseconds(latency.p50_ms) + (f" \u00b7 p99 {milliseconds(p99_ms)}" if p99_ms else "")
    return element(
        "g",
        element("rect", says, x=0, y=base - ROW + 2, width="100%", height=ROW - 2, class_="hover"),
        line(0, base, 100, base, "baseline"),
        line(x(latency.quantiles_ms[0]), base, x(latency.quantiles_ms[-1]), base, "reach"),
        _curve(latency, x, top),
        line(middle, base, middle, top, "median"),
        circle(x(latency.quantiles_ms[99]), base, 3.2, class_="late"),
        words(0, top - 8, latency.runner, class_="label halo"),
        words(100, top - 8, figures, anchor="end", class_="value halo"),
        class_=f"is-{backend_of(latency.runner)}",
    )


def _curve(latency: Latency, x: Scale, top: float) -> Markup:
    """The distribution as a drawing of its own: a bin is a unit wide, and all of them are stretched to the width."""
    shown = [
        (index + 0.5, RIDGE * (1 - height)) for index, height in enumerate(density(latency.quantiles_ms, x))
        if height > 0.004
    ]  # fmt: skip
    corners = [(shown[0][0], RIDGE), *shown, (shown[-1][0], RIDGE)]
    steps = " ".join(f"{'L' if index else 'M'}{at:g} {level:.1f}" for index, (at, level) in enumerate(corners))
    return element(
        "svg",
        element("path", d=steps + " Z", class_="ridge"),
        y=top,
        viewBox=f"0 0 {BINS} {RIDGE:g}",
        preserveAspectRatio="none",
        width="100%",
        height=RIDGE,
        aria_hidden="true",
    )


def density(quantiles_ms: tuple[float, ...], x: Scale) -> list[float]:
    """Heights 0..1 of `BINS` bins along a logarithmic scale; between two percentiles lies one per cent of the calls."""
    width = math.log(x.high / x.low) / BINS
    places = [min(max(math.log(value / x.low) / width, 0.0), BINS - 1e-9) for value in quantiles_ms]
    mass = [0.0] * BINS
    for low, high in pairwise(places):
        first, last = int(low), int(high)
        for index in range(first, last + 1):
            inside = min(high, index + 1) - max(low, index)
            mass[index] += 1.0 if first == last else inside / (high - low)
    smooth = _smoothed(mass)
    return [value / max(smooth) for value in smooth]


def _smoothed(mass: list[float]) -> list[float]:
    reach = range(-4, 5)
    weights = [math.exp(-((n / SMOOTHING) ** 2) / 2) for n in reach]
    return [
        sum(w * mass[at + n] for n, w in zip(reach, weights, strict=True) if 0 <= at + n < BINS) / sum(weights)
        for at in range(BINS)
    ]


def percentile(latency: Latency, name: str) -> str:
    """A percentile such as "p99" in words, of so few calls that it says nothing too."""
    value = latency.percentile_ms(name)
    return milliseconds(value) if value else "few calls"


def _table(latencies: tuple[Latency, ...]) -> Markup:
    names = [name for name in PERCENTILES if any(row.percentile_ms(name) is not None for row in latencies)]
    rows = [
        (
            latency.runner,
            f"{latency.batch}",
            *(percentile(latency, name) for name in names),
            _interval(latency),
            f"{latency.images_per_s:,.0f}",
            f"{latency.calls:,}",
            "steady" if latency.stable else element("span", "unsteady", class_="badge undecided"),
        )
        for latency in latencies
    ]
    columns = ("runner", "batch", *(name.replace("_", ".") for name in names), "95 % of p50", "images/s", "calls",
               "rounds<")  # fmt: skip
    return table("Milliseconds a call", columns, rows, class_="wide")


def _interval(latency: Latency) -> str:
    if latency.intervals_ms.p50 is None:
        return "too few calls"
    low, high = latency.intervals_ms.p50
    return f"{three_digits(low)} to {three_digits(high)}"


def _phases(latencies: tuple[Latency, ...]) -> Markup:
    """What calls were made of, where a runner can tell."""
    found = {f"{row.runner}, batch {row.batch}": row.phases.as_dict() for row in latencies if row.phases}
    if not found:
        return paragraph(
            "The split of a call into Python, copy in, compute and copy out is timed on a GPU; no runner had one here.",
            class_="absent",
        )
    names = list(dict.fromkeys(name for phases in found.values() for name in phases))
    rows = [(row, *(milliseconds(phases.get(name)) for name in names)) for row, phases in found.items()]
    columns = ("runner", *(name.removesuffix("_ms").replace("_", " ") for name in names))
    return table("What a call is made of", columns, rows)


def _starts(evidence: Evidence) -> Markup:
    """What it takes until the first answer, and what an answer costs."""
    openings = evidence.bench.openings if evidence.bench else {}
    rows = []
    for name, latency in evidence.latency_of.items():
        opening, energy = openings.get(name), latency.energy_mj
        rows.append(
            (
                name,
                "\u2013" if opening is None else milliseconds(opening.load_ms),
                "\u2013" if opening is None else _mebibytes(opening.host_mib),
                "\u2013" if opening is None else _mebibytes(opening.device_mib),
                milliseconds(latency.first_ms),
                "not measured" if energy is None else f"{energy:.2f}\u202fmJ",
            )
        )
    columns = ("runner", "load", "host memory", "GPU memory", "first call", "energy a call")
    return table(f"Until the first answer, at batch {evidence.smallest_batch}", columns, rows)


def _mebibytes(value: float | None) -> str:
    return "\u2013" if value is None else f"{three_digits(value if abs(value) >= 0.05 else 0.0)}\u202fMiB"


def _comparison(evidence: Evidence) -> Markup:
    """Against an earlier run or another bundle, where bench was asked to compare."""
    found = evidence.bench.comparison if evidence.bench else None
    if found is None:
        return Markup("")
    rows = [
        (
            change.runner,
            f"{change.batch}",
            f"{change.ratio:.3f}",
            "\u2013" if change.low is None or change.high is None else f"{change.low:.3f} to {change.high:.3f}",
            change.verdict,
        )
        for change in found.changes
    ]
    columns = ("runner", "batch", "now over then", "99.8 % interval", "verdict<")
    return table(f"Compared with {found.reference}", columns, rows)
