"""Which file to deploy, decided from gate and latency alone, and the sentence that says so to anybody."""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.compare.gate import UNDECIDED
from toolkit.compare.parity import Parity
from toolkit.reporting.evidence import BACKENDS, Evidence, backend_of
from toolkit.reporting.words import THIN, between, chosen, listed, milliseconds, percent, signed, size, times
from toolkit.runtime.runner_id import RunnerId
from toolkit.timing.latency import Latency
from toolkit.verification.result import Pair

VAGUE = 2.0  # the largest speed-up that the intervals allow, over the least
ON_A_GPU = ("trt", "ort-trt", "ort-cuda")


@dataclass(frozen=True)
class Choice:
    """The runner to deploy.

    Attributes:
        runner: "backend precision".
        pair, latency: its own, at the smallest batch size; None where that was not measured.
        fp32: the fp32 runner of the same backend, which it is compared with; None where there is none, or it is that.
        tied: runners whose median cannot be told from its own.
    """

    runner: str
    pair: Pair | None
    latency: Latency | None
    fp32: str | None
    tied: tuple[str, ...] = ()


def choice_from_evidence(evidence: Evidence) -> Choice | None:
    """The fastest runner that the gate let through; among those not told apart, the one with the smallest file.

    Only runners with a file in the bundle can be deployed. Without latencies the smallest file is taken; without a
    gate, or with a fault that verify named, nothing is.
    """
    if evidence.causes:
        return None
    passed = evidence.verify.passed if evidence.verify else {}
    good = [pair.runner for pair in evidence.pairs if passed.get(pair.runner) and evidence.file_of(pair.runner)]
    timed = [name for name in good if name in evidence.latency_of]
    if not good:
        return None
    if not timed:
        return _choice(evidence, min(good, key=lambda name: evidence.bytes_of(name) or 0))
    fastest = min(timed, key=lambda name: evidence.latency_of[name].p50_ms)
    tied = [name for name in timed if name == fastest or _cannot_tell(evidence, name, fastest)]
    best = min(tied, key=lambda name: (evidence.bytes_of(name) or 0, evidence.latency_of[name].p50_ms))
    return _choice(evidence, best, tuple(name for name in tied if name != best))


def _cannot_tell(evidence: Evidence, one: str, other: str) -> bool:
    a, b = evidence.latency_of[one].intervals_ms.p50, evidence.latency_of[other].intervals_ms.p50
    return a is not None and b is not None and a[0] <= b[1] and b[0] <= a[1]


def _choice(evidence: Evidence, runner: str, tied: tuple[str, ...] = ()) -> Choice:
    fp32 = str(RunnerId(backend_of(runner), "fp32"))
    known = fp32 != runner and (fp32 in evidence.pair_of or fp32 in evidence.latency_of)
    return Choice(runner, evidence.pair_of.get(runner), evidence.latency_of.get(runner), fp32 if known else None, tied)


def speed_up(evidence: Evidence, choice: Choice) -> float | None:
    """How many times as fast as fp32 on the same backend: the ratio of the medians."""
    if choice.fp32 is None or choice.latency is None or choice.fp32 not in evidence.latency_of:
        return None
    return evidence.latency_of[choice.fp32].p50_ms / choice.latency.p50_ms


def speed_up_interval(evidence: Evidence, choice: Choice) -> tuple[float, float] | None:
    """The least and the most that the speed-up can be where both medians lie in their 95 % intervals."""
    if choice.fp32 is None or choice.latency is None or choice.fp32 not in evidence.latency_of:
        return None
    own, before = choice.latency.intervals_ms.p50, evidence.latency_of[choice.fp32].intervals_ms.p50
    return None if own is None or before is None else (before[0] / own[1], before[1] / own[0])


def is_vague(evidence: Evidence, choice: Choice) -> bool:
    """Whether the speed-up could be twice as large as it could be: then no ratio is said."""
    inside = speed_up_interval(evidence, choice)
    return inside is not None and inside[1] > VAGUE * inside[0]


def size_percent(evidence: Evidence, choice: Choice) -> float | None:
    """Its file in percent of the fp32 file of the same backend."""
    if choice.fp32 is None:
        return None
    own, before = evidence.bytes_of(choice.runner), evidence.bytes_of(choice.fp32)
    return 100 * own / before if own and before else None


def sentence(evidence: Evidence, choice: Choice | None) -> str:
    """The verdict, in one sentence."""
    if choice is None:
        return f"Deploy nothing yet: {_why_nothing(evidence)}."
    backend = backend_of(choice.runner)
    where = _machine(evidence)
    here = f"On {where}: deploy" if where and choice.latency is not None else "Deploy"
    parts = [f"{here} {evidence.file_of(choice.runner)} on {BACKENDS.get(backend, backend)}"]
    if choice.pair is not None:
        parts.append(f": {_cost(evidence.parity_of(choice.pair), choice.fp32)}")
    parts.append(_gain(evidence, choice))
    return "".join(parts) + "."


def _why_nothing(evidence: Evidence) -> str:
    if evidence.causes:
        named = listed([f"{cause.name} ({cause.where})" if cause.where else cause.name for cause in evidence.causes])
        return f"toolkit verify found a fault, {named}"
    return "no file passed the gate" if evidence.pairs else "nothing was verified"


def _cost(parity: Parity, fp32: str | None) -> str:
    score, interval = parity.candidate_score, parity.change_interval_points
    right = f"it answers {percent(score.top1_percent)} of {chosen(score.images, 'test image', 'test images')} right"
    if fp32 is None:
        return f"{right} (95{THIN}%: {between(score.low_percent, score.high_percent)})"
    inside = f"; 95{THIN}%: {signed(interval[0])} to {signed(interval[1])}" if interval else ""
    return f"{right} ({signed(parity.change_points)} points against fp32{inside})"


def _gain(evidence: Evidence, choice: Choice) -> str:
    share = size_percent(evidence, choice)
    said = [_speed(evidence, choice)]
    said += [f"takes {share:.0f}{THIN}% of the space"] if share is not None else []
    return f"{', ' if len(said) > 1 else ' and '}{' and '.join(said)}"


def _speed(evidence: Evidence, choice: Choice) -> str:
    if choice.latency is None:
        return "runs at a speed that was not measured"
    call = f"{milliseconds(choice.latency.p50_ms)} a call at batch {choice.latency.batch}"
    ratio = speed_up(evidence, choice)
    if ratio is None:
        return f"runs in {call}"
    if is_vague(evidence, choice):
        return f"runs in {call} (too unsteady here to say how much faster than fp32)"
    if choice.fp32 in choice.tied:
        return f"runs no faster than fp32 that could be measured ({call})"
    faster = f"{times(ratio)} as fast" if ratio >= 1.005 else f"{times(1 / ratio)} slower"
    return f"runs {faster} ({call})"


def _machine(evidence: Evidence) -> str | None:
    if evidence.bench is None:
        return None
    host = evidence.bench.host
    parts = [host.cpu] if host.cpu else []
    parts += [chosen(host.cores, "core", "cores")] if host.cores else []
    return ", ".join(parts) or None


def reservations(evidence: Evidence, choice: Choice | None) -> list[str]:
    """What the verdict does not cover, in sentences; the most important first."""
    found = []
    if not any(backend_of(name) in ON_A_GPU for name in evidence.latency_of):
        found.append(
            "For a Jetson, or another GPU, nothing is measured yet: copy the bundle there, then toolkit build."
        )
    found += [_not_measured(evidence, name, reason) for name, reason in evidence.unavailable.items()]
    if not evidence.latencies:
        found.append("No latency was measured.")
    unsteady = [latency.runner for latency in evidence.latency_of.values() if not latency.stable]
    if unsteady:
        whose = "of all runners" if len(unsteady) == len(evidence.latency_of) else f"of {listed(unsteady)}"
        found.append(
            f"The timings {whose} were unsteady while they were measured: read them as an order of "
            "magnitude, and measure again on an idle machine."
        )
    if choice and choice.pair and choice.pair.verdict.measured_images is not None:
        found.append(counted_at_export(evidence))
    if choice and choice.pair and choice.pair.verdict.word == UNDECIDED:
        needed, judged = choice.pair.verdict.images_needed, evidence.parity_of(choice.pair).candidate_score.images
        found.append(
            f"{chosen(judged, 'image is', 'images are')} too few to decide the gate for certain"
            + (f"; about {needed:,} would do." if needed else ".")
        )
    if choice and choice.tied:
        found.append(f"Not told apart in speed: {listed([choice.runner, *choice.tied])}; the smallest file was taken.")
    return found


def counted_at_export(evidence: Evidence) -> str:
    """Where the answers of the bundle's files were counted, if few of those images are here."""
    entry, here = evidence.manifest.get("evaluation") or {}, evidence.verify.images.count if evidence.verify else 0
    return (
        f"Answers of the bundle's files were counted at export, on {int(entry.get('images', 0)):,} images of "
        f"{entry.get('source', 'a source that the manifest does not name')}: here are {here:,}."
    )


def _not_measured(evidence: Evidence, name: str, reason: str) -> str:
    """The gist of a reason; the whole of it stands among the conditions."""
    found, _, _ = reason.partition("; try:")
    clauses = [part.partition(": ")[0] for part in found.split("; ")]
    text = f"{BACKENDS.get(name, name)} was not measured: {'; '.join(clauses)}."
    engines = evidence.manifest.get("engines") or []
    if name != "trt" or not engines:
        return text
    return (
        f"{text} {chosen(len(engines), 'engine is', 'engines are')} in the bundle and did not run. On a GPU the "
        "ranking of the files may differ: INT8 that is made for TensorRT runs unfused on a CPU."
    )


def facts_of_choice(evidence: Evidence, choice: Choice) -> list[tuple[str, str, str]]:
    """The figures beside the sentence: (name, value, what it is compared with)."""
    found = []
    if choice.pair is not None:
        parity = evidence.parity_of(choice.pair)
        score = parity.candidate_score
        inside = f"95{THIN}%: {between(score.low_percent, score.high_percent)}"
        found.append(("Right answers", percent(score.top1_percent), inside))
        interval = parity.change_interval_points
        inside = f"points, 95{THIN}%: {signed(interval[0])} to {signed(interval[1])}" if interval else "points of top-1"
        if choice.fp32 is not None:
            found.append(("Against fp32", signed(parity.change_points), inside))
    if choice.latency is not None:
        name = f"Median call, batch {choice.latency.batch}"
        found.append((name, milliseconds(choice.latency.p50_ms), _compared(evidence, choice)))
    share = size_percent(evidence, choice)
    found.append(
        ("Size", size(evidence.bytes_of(choice.runner)), f"{share:.0f}{THIN}% of fp32" if share else "the file")
    )
    return found


def _compared(evidence: Evidence, choice: Choice) -> str:
    ratio, inside = speed_up(evidence, choice), speed_up_interval(evidence, choice)
    if ratio is None or is_vague(evidence, choice):
        return "whole calls, copies included"
    return f"{ratio:.2g}\u00d7 fp32's speed" + (f" ({inside[0]:.2g} to {inside[1]:.2g})" if inside else "")
