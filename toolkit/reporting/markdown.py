"""The same verdict and tables as a model card in Markdown."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from toolkit.reporting.conditions import lines_of_commands
from toolkit.reporting.evidence import Evidence
from toolkit.reporting.latencies import percentile
from toolkit.reporting.markup import FORBIDDEN
from toolkit.reporting.verdict import choice_from_evidence, counted_at_export, reservations, sentence
from toolkit.reporting.words import between, milliseconds, percent, signed, size
from toolkit.version import __version__

SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~])")


def card_from_evidence(evidence: Evidence) -> str:
    """A model card: verdict, what it does not say, accuracy, latency, calibration, labels, commands."""
    choice = choice_from_evidence(evidence)
    parts = [f"# {plain(evidence.model)}", f"**{plain(sentence(evidence, choice))}**"]
    open_ends = reservations(evidence, choice)
    if open_ends:
        parts += ["What this does not say:", "\n".join(f"- {plain(text)}" for text in open_ends)]
    parts += ["## Accuracy", _accuracy(evidence), "## Latency", _latency(evidence)]
    parts += ["## Input and output", _interface(evidence), "## Calibration", _calibration(evidence)]
    lines = lines_of_commands(evidence)
    fence = "```" if not any("```" in line for line in lines) else "~~~~"
    parts += ["## Measure it again", "\n".join([f"{fence}sh", *lines, fence])]
    parts.append(f"Written by toolkit {__version__}; manifest sha256 `{evidence.manifest_sha256}`.")
    return "\n\n".join(parts) + "\n"


def plain(text: object) -> str:
    """Somebody's text in which nothing is Markdown or HTML, on one line."""
    one_line = " ".join(FORBIDDEN.sub("\ufffd", str(text)).split())
    return SPECIAL.sub(r"\\\1", html.escape(one_line, quote=False))


def _grid(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(plain(cell) for cell in row) + " |" for row in rows)])


def _accuracy(evidence: Evidence) -> str:
    if not evidence.pairs:
        return "Not verified."
    rows = [
        (
            found.runner,
            evidence.file_of(found.runner) or "\u2013",
            size(evidence.bytes_of(found.runner)) if evidence.bytes_of(found.runner) else "\u2013",
            percent(parity.candidate_score.top1_percent),
            between(parity.candidate_score.low_percent, parity.candidate_score.high_percent),
            signed(parity.change_points),
            f"{parity.flips} of {parity.candidate_score.images} ({parity.lost} lost, {parity.gained} gained)",
            found.verdict.word,
        )
        for found, parity in ((pair, evidence.parity_of(pair)) for pair in evidence.pairs)
    ]
    grid = _grid(("runner", "file", "size", "top-1", "95 %", "change", "flips", "gate"), rows)
    return grid + (f"\n\n{plain(counted_at_export(evidence))}" if evidence.judged_at_export else "")


def _latency(evidence: Evidence) -> str:
    if evidence.bench is None:
        return "Not measured."
    rows = [
        (row.runner, f"{row.batch}", milliseconds(row.p50_ms), percentile(row, "p99"), f"{row.images_per_s:,.0f}")
        for row in evidence.latencies
    ]
    where = f"Whole Python calls on {plain(evidence.bench.host.cpu or 'an unnamed machine')}.\n\n"
    return where + _grid(("runner", "batch", "p50", "p99", "images/s"), rows)


def _interface(evidence: Evidence) -> str:
    entry = evidence.manifest["preprocessing"]
    shape = f"(N, {entry['height']}, {entry['width']}, {entry['channels']})"
    labels = ", ".join(plain(label) for label in evidence.labels[:50])
    more = f" and {len(evidence.labels) - 50:,} more" if len(evidence.labels) > 50 else ""
    return (
        f"`images`: uint8 {shape}, pixels as they are; normalization is in the graph. `logits`: float32 "
        f"(N, {len(evidence.labels)}).\n\nClasses: {labels}{more}."
    )


def _calibration(evidence: Evidence) -> str:
    entry = evidence.manifest.get("calibration")
    if not entry:
        return "No INT8 file, so nothing was calibrated."
    return f"{int(entry['images']):,} images, method {plain(entry['method'])}, key `{plain(entry['key'])}`."
