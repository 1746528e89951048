"""What people see of a verification: verdicts, where a difference comes from, classes that moved, named faults."""

from __future__ import annotations

import math

from toolkit.cli.class_tables import show_classes, show_warnings
from toolkit.cli.console import Styled, bold, green, note, red, say, show_unavailable, table, yellow
from toolkit.compare.gate import FAIL, PASS, UNDECIDED
from toolkit.compare.parity import Parity, Score
from toolkit.verification.layers import Layers
from toolkit.verification.result import ModelVerification, Pair, Verification

DROPPED = ("p", "95 % of it", "95 %")  # in this order where a terminal is narrow
COLORS = {PASS: "green", FAIL: "red", UNDECIDED: "yellow"}
MOST_CONFUSIONS = 3
MOST_LAYERS = 5


def show(found: Verification) -> None:
    """Prints tables and sentences to stderr."""
    classes = found.classes or {}
    show_warnings(classes.get(found.reference), found.vanished)
    _pairs(found)
    others = {name: one for name, one in classes.items() if name != found.reference}
    show_classes(found.reference, classes.get(found.reference), others)
    _sources(found)
    for name, pair in found.pairs.items():
        _flips(found, name, pair)
    for layers in found.layers:
        _layers(layers)
    show_unavailable(found.unavailable, found.missing)
    for name, reason in found.not_checked.items():
        note(f"not looked at: {name}: {reason}")
    _measured(found)
    _undecided(found)
    _conclusion(found)


def show_card(found: ModelVerification) -> None:
    """Whether a model's card is true."""
    score, claimed = found.score, found.card_top1_percent
    said = "other images" if claimed is None else f"{claimed:.2f} %"
    row = (
        found.model.name, f"{score.top1_percent:.2f} %", f"{score.low_percent:.2f} - {score.high_percent:.2f}", said,
        "" if claimed is None else green("true") if found.ok else red("NOT TRUE"),
    )  # fmt: skip
    show_warnings(found.classes)
    title = f"{found.model} on {found.images.count:,} images of {found.images.source}"
    table(title, ("model", "top-1", "95 %", "card says", "<"), [row])
    show_classes(found.model.name, found.classes)
    if not found.ok:
        say(red("The card claims another accuracy than these weights have."), " Train again, or restore the folder.")


def _pairs(found: Verification) -> None:
    against = f"against {found.reference}" if found.other is None else f"{found.other} (B) against {found.bundle}"
    rows: list[tuple[str | Styled, ...]] = [
        (
            name,
            f"{pair.parity.candidate_score.top1_percent:.2f} %",
            _interval(pair.parity.candidate_score),
            _flips_in_words(pair.parity),
            f"{pair.parity.mcnemar_p:.2g}",
            *([] if found.other is None else [f"{pair.parity.relative_l2:.1e}"]),
            f"{pair.verdict.retention_percent:.2f} %",
            f"{pair.verdict.low_percent:.2f}-{pair.verdict.high_percent:.2f}",
            Styled(_word(pair), COLORS[pair.verdict.word]),
        )
        for name, pair in found.pairs.items()
    ]
    # Of one bundle the distances stand in the table of steps below.
    distance = [] if found.other is None else ["rel. L2"]
    gate = f"gate {found.gate_percent:g} %<"
    columns = ["runner", "top-1", "95 % of it", "flips", "p", *distance, "keeps", "95 %", gate]
    table(
        f"{found.model} on {found.images.count:,} images of {found.images.source}, {against}",
        columns,
        rows,
        drop=DROPPED,
    )
    if any(pair.verdict.word != PASS for pair in found.pairs.values()):
        note(
            "pass: the whole 95 % interval of what a runner keeps of the reference's right answers reaches the gate; "
            "fail: none of it does; undecided: a part of it does, so many images cannot tell."
        )


def _measured(found: Verification) -> None:
    """What the manifest measured, where few of its images were here."""
    measured = {name: pair.verdict for name, pair in found.pairs.items() if pair.verdict.measured_images is not None}
    if measured:
        keeps = ", ".join(f"{name} keeps {verdict.retention_percent:.2f} %" for name, verdict in measured.items())
        images = max(verdict.measured_images or 0 for verdict in measured.values())
        note(
            f"As export measured on {images:,} images: {keeps}; {found.images.count:,} images here are too few to say "
            "otherwise."
        )


def _interval(score: Score) -> str:
    return f"{score.low_percent:.1f}-{score.high_percent:.1f}"


def _flips_in_words(parity: Parity) -> str:
    """All, those that were right before, those that are right now."""
    return f"{parity.flips} (-{parity.lost} +{parity.gained})"


def _decibels(value: float) -> str:
    return "equal" if math.isinf(value) else "" if math.isnan(value) else f"{value:.0f} dB"


def _word(pair: Pair) -> str:
    verdict = pair.verdict
    return {PASS: "pass", FAIL: "fail"}.get(verdict.word, "undecided")


def _sources(found: Verification) -> None:
    """The steps, each alone: which part of a difference is the file's, and which the engine's."""
    if not found.sources:
        return
    rows = [
        (
            source.kind.replace("quantisation", "quantization"),  # the document keeps the word it was published with
            f"{source.parity.reference} > {source.parity.candidate}",
            _flips_in_words(source.parity),
            f"{source.parity.relative_l2:.1e}",
            f"{source.parity.max_abs_dlogit:.2g}",
            _decibels(source.parity.snr_db),
            f"{source.parity.worst_cosine:.4f}",
        )
        for source in found.sources
    ]
    columns = ("error of", "from > to<", "flips", "rel. L2", "max |dlogit|", "SNR", "worst cosine")
    drop = ("worst cosine", "max |dlogit|", "SNR")
    table("Where a difference comes from, each step alone", columns, rows, drop=drop)


def _flips(found: Verification, name: str, pair: Pair) -> None:
    """Where the flips are, if there are any."""
    flips = pair.flips
    for row in flips.per_class:
        if row.moved:
            say(
                red(f"{name}: {found.labels[row.label]}"),
                f" {row.reference_correct} to "
                f"{row.candidate_correct} right of {row.images}: more than noise (p {row.p_holm:.1g} over all classes)",
            )
    if not flips.flipped:
        return
    confusions = ", ".join(
        f"{_label(found, c.reference_answer)} to {_label(found, c.candidate_answer)} {c.count}"
        for c in flips.confusion[:MOST_CONFUSIONS]
    )
    note(
        f"{name}: {confusions}; the reference was sure of them by a median margin of {flips.flipped_median_margin:.2g} "
        f"(all images: {flips.median_margin:.2g})"
    )


def _label(found: Verification, answer: int) -> str:
    return found.labels[answer] if answer >= 0 else "no answer"


def _layers(layers: Layers) -> None:
    """The layers whose difference grew most, and the one that the rule names."""
    grown = sorted(
        (row for row in layers.layers if row.output_l2 is None or row.output_l2 > 0),
        key=lambda row: _growth(row.input_l2, row.output_l2),
        reverse=True,
    )
    rows = [
        (row.node, row.operator, _figure(row.input_l2, "unknown"), _figure(row.output_l2, "not finite"))
        for row in grown[:MOST_LAYERS]
    ]
    columns = ("node", "operator<", "off before", "off after")
    table(f"{layers.candidate} against {layers.reference}, {layers.images} images: where it grows most", columns, rows)
    if layers.parted is None:
        note(f"They part nowhere: no node has {layers.rule}.")
    else:
        say(red(f"They part at '{layers.parted}'"), f", the first node with {layers.rule}.")


def _growth(before: float | None, after: float | None) -> float:
    if after is None:
        return float("inf") if before is not None else 0.0
    return 0.0 if before is None else after / max(before, 1e-6)


def _figure(value: float | None, otherwise: str) -> str:
    return otherwise if value is None else f"{value:.1e}"


def _undecided(found: Verification) -> None:
    """A line for all runners of which the same is to be said."""
    alike: dict[str, list[str]] = {}
    for name in found.undecided:
        verdict = found.pairs[name].verdict
        more = (
            "no number of images would, so near to the gate is it"
            if verdict.images_needed is None
            else f"about {verdict.images_needed:,} images would, if it goes on like this"
        )
        alike.setdefault(more, []).append(name)
    for more, names in alike.items():
        say(yellow(f"{', '.join(names)}: {found.images.count:,} images are too few to decide"), f" ({more}).")


def _conclusion(found: Verification) -> None:
    beyond = {name: count for name, count in (found.beyond or {}).items() if count}
    below = [name for name, good in found.passed.items() if not good]
    for cause in found.likely_causes:
        say(red(f"likely cause: {cause.name}"), f" ({cause.where}): {cause.evidence}")
        say(f"  try: {cause.fix}")
    if found.missing:
        say(red("A backend that was asked for cannot run here."), " Use --backend all to take those that can.")
    elif below:
        say(red(f"Below the gate: {', '.join(below)}"))
    elif beyond:
        counts = ", ".join(f"{name} {count:,} logits" for name, count in beyond.items())
        say(red("Beyond --atol and --rtol"), f": {counts}")
    elif found.likely_causes:
        say(red("The answers are near enough, but not from what they should be."))
    elif found.undecided:
        say("What was measured reaches the gate; with --strict, undecided is no success. Next: ", bold("toolkit bench"))
    else:
        say(green("Every runner is still the same model."), " Next: ", bold("toolkit bench"))
