"""How long calls took: the whole distribution of each runner, not a bar, and what the calls were made of."""

from __future__ import annotations

import math
from itertools import pairwise

from toolkit.report.drawing import Frame, bottom_axis, chart, figure, line, path, tip, words
from toolkit.report.evidence import Evidence, backend_of
from toolkit.report.facts import Latency
from toolkit.report.markup import Markup, element, joined, paragraph, table
from toolkit.report.scales import Scale, scale_of
from toolkit.report.words import milliseconds, three_digits

WIDTH, ROW, RIDGE = 344.0, 64.0, 32.0  # RIDGE of each ROW is the curve, the rest its words
BINS = 110
SMOOTHING = 1.4  # bins; the percentiles are one per cent of the calls apart, finer detail is not in them


def latency_section(evidence: Evidence) -> Markup:
    """A ridge of every runner and batch size, and every percentile as a table."""
    if not evidence.latencies:
        return paragraph("No latencies: there is no document of toolkit bench.", class_="absent")
    batches = sorted({latency.batch for latency in evidence.latencies})
    charts = [_of_batch([found for found in evidence.latencies if found.batch == batch]) for batch in batches]
    drawn = [found for found in charts if found]
    if drawn:
        caption = (
            "Each curve is where one runner's calls fell, on a logarithmic scale of milliseconds; its height says how "
            "often, and is the same for all. The tick marks the median, the dot the 99th percentile. A call is a whole "
            "Python call: images in host memory in, logits out."
        )
        top: Markup = figure("", caption, element("div", *drawn, class_="small-multiples"))
    else:
        top = paragraph("No distributions: the document of toolkit bench holds no quantiles.", class_="absent")
    parts = [top, _table(evidence.latencies), _phases(evidence.latencies), _starts(evidence), _comparison(evidence)]
    return joined(parts)


def _of_batch(found: list[Latency]) -> Markup | None:
    known = [latency for latency in found if latency.quantiles_ms and latency.quantiles_ms[0] > 0]
    if not known:
        return None
    frame = Frame(6, 8, WIDTH - 8, 8 + ROW * len(known))
    ends = [latency.quantiles_ms[place] for latency in known for place in (0, -1)]
    x = scale_of(ends, frame.left, frame.right, log=True, spare=0.02)
    says = f"Distributions of latency at batch {found[0].batch}: " + "; ".join(
        f"{latency.runner} median {latency.p50_ms:.3g} ms" for latency in known
    )
    rows = [_ridge(latency, x, frame.top + ROW * (index + 1)) for index, latency in enumerate(known)]
    drawing = chart(WIDTH, frame.bottom + 40, says, bottom_axis(frame, x, "ms a call (log)"), *rows)
    return element("div", element("h4", f"Batch {found[0].batch}"), drawing)


def _ridge(latency: Latency, x: Scale, base: float) -> Markup:
    heights = density(latency.quantiles_ms, x)
    step = (x.end - x.start) / BINS
    top = [(x.start + step * (index + 0.5), base - RIDGE * height) for index, height in enumerate(heights)]
    shown = [(at, level) for (at, level), height in zip(top, heights, strict=True) if height > 0.004]
    outline = [(shown[0][0], base), *shown, (shown[-1][0], base)]
    middle, late = x(latency.p50_ms), x(latency.quantiles_ms[99])
    quantiles = ", ".join(f"p{p} {milliseconds(latency.quantiles_ms[p])}" for p in (1, 10, 50, 90, 99))
    return element(
        "g",
        element("rect", tip(f"{latency.runner}, batch {latency.batch}: {quantiles}"), x=x.start, y=base - ROW + 2,
                width=x.end - x.start, height=ROW - 2, class_="hover"),
        line(x.start, base, x.end, base, "baseline"),
        line(x(latency.quantiles_ms[0]), base, x(latency.quantiles_ms[-1]), base, "reach"),
        path(outline, closed=True, class_="ridge"),
        line(middle, base, middle, base - RIDGE, "median"),
        element("circle", cx=late, cy=base, r=3.2, class_="late"),
        words(x.start, base - RIDGE - 8, latency.runner, class_="label halo"),
        words(
            x.end,
            base - RIDGE - 8,
            f"{milliseconds(latency.p50_ms)} \u00b7 p99 {milliseconds(latency.quantiles_ms[99])}",
            anchor="end",
            class_="value halo",
        ),
        class_=f"is-{backend_of(latency.runner)}",
    )  # fmt: skip


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


def _table(latencies: tuple[Latency, ...]) -> Markup:
    names = list(dict.fromkeys(name for latency in latencies for name, _ in latency.percentiles_ms))
    names.sort(key=lambda name: float(name[1:]))
    rows = [
        (
            latency.runner,
            f"{latency.batch}",
            *(milliseconds(dict(latency.percentiles_ms).get(name)) for name in names),
            _interval(latency),
            f"{latency.images_per_s:,.0f}" if latency.images_per_s is not None else "\u2013",
            f"{latency.calls:,}" if latency.calls is not None else "\u2013",
            "steady" if latency.stable else element("span", "unsteady", class_="badge undecided"),
        )
        for latency in latencies
    ]
    columns = ("runner", "batch", *names, "95 % of p50", "images/s", "calls", "rounds<")
    return table("Milliseconds a call", columns, rows, class_="wide")


def _interval(latency: Latency) -> str:
    if latency.p50_interval_ms is None:
        return "too few calls" if latency.calls is not None else "\u2013"
    low, high = latency.p50_interval_ms
    return f"{three_digits(low)} to {three_digits(high)}"


def _phases(latencies: tuple[Latency, ...]) -> Markup:
    """What calls were made of, where a runner can tell."""
    found = [latency for latency in latencies if latency.phases_ms]
    if not found:
        return paragraph(
            "The split of a call into Python, copy in, compute and copy out is timed on a GPU; no runner had one here.",
            class_="absent",
        )
    names = list(dict.fromkeys(name for latency in found for name, _ in latency.phases_ms))
    rows = [
        (f"{latency.runner}, batch {latency.batch}", *(milliseconds(dict(latency.phases_ms).get(n)) for n in names))
        for latency in found
    ]
    columns = ("runner", *(name.removesuffix("_ms").replace("_", " ") for name in names))
    return table("What a call is made of", columns, rows)


def _starts(evidence: Evidence) -> Markup:
    """What it takes until the first answer, and what an answer costs."""
    openings = (evidence.bench or {}).get("openings") or {}
    rows = []
    for name, latency in evidence.latency_of.items():
        opening = openings.get(name) or {}
        energy = latency.energy_mj
        if not opening and latency.first_ms is None and energy is None:
            continue
        rows.append(
            (
                name,
                milliseconds(opening.get("load_ms")) if opening else "\u2013",
                *(_mebibytes(opening.get(key)) for key in ("host_mib", "device_mib")),
                milliseconds(latency.first_ms),
                "not measured" if energy is None else f"{energy:.2f}\u202fmJ",
            )
        )
    columns = ("runner", "load", "host memory", "GPU memory", "first call", "energy a call")
    caption = f"Until the first answer, at batch {evidence.smallest_batch}"
    return table(caption, columns, rows) if rows else Markup("")


def _mebibytes(value: float | None) -> str:
    return "\u2013" if value is None else f"{three_digits(value)}\u202fMiB"


def _comparison(evidence: Evidence) -> Markup:
    """Against an earlier run or another bundle, where bench was asked to compare."""
    found = (evidence.bench or {}).get("comparison")
    if not found:
        return Markup("")
    rows = [
        (
            str(change["runner"]),
            f"{change['batch']}",
            f"{change['ratio']:.3f}",
            "\u2013" if change.get("low") is None or change.get("high") is None
            else f"{change['low']:.3f} to {change['high']:.3f}",
            str(change["verdict"]),
        )
        for change in found.get("changes") or ()
    ]  # fmt: skip
    columns = ("runner", "batch", "now over then", "99.8 % interval", "verdict<")
    return table(f"Compared with {found.get('reference', 'an earlier run')}", columns, rows)
