"""What export measured on all of its images decides where only a few of them are here, and is never contradicted."""

from __future__ import annotations

from dataclasses import replace

from toolkit.bundle.manifest import VARIANTS
from toolkit.bundle.reading import Bundle
from toolkit.compare.gate import FAIL, Verdict, verdict_from_counts
from toolkit.compare.parity import answers_of, flips_between
from toolkit.contracts import Float32, LabeledImages
from toolkit.runtime.runner_id import RunnerId


def measured_verdicts(bundle: Bundle, judged: LabeledImages, gate_percent: float) -> dict[str, Verdict]:
    """By variant, what the manifest's counts say of the gate, where they are of more images than are here.

    Empty where the images here are all of those, or where a manifest lacks the counts.
    """
    evaluation, accuracy = bundle.manifest.get("evaluation") or {}, bundle.manifest.get("accuracy") or {}
    found = {}
    for name, entry in accuracy.items():
        score = entry.get("candidate_score") or {}
        counts = [score.get("correct"), entry.get("gained"), entry.get("lost"), score.get("images")]
        if name == "fp32" or judged.sha256 == evaluation.get("sha256") or not all(isinstance(n, int) for n in counts):
            continue
        right, gained, lost, images = counts
        if images > len(judged):
            verdict = verdict_from_counts(right - gained, lost, gained, images, gate_percent)
            found[name] = replace(verdict, measured_images=images)
    return found


def decided_verdict(here: Verdict, measured: Verdict | None, as_written: bool | None) -> Verdict:
    """The verdict on a runner from the few images here and from export's many.

    Args:
        here: from the images at hand.
        measured: of the runner's file, at export.
        as_written: whether the runner answers the golden images as its file did when it was written; None where other
            images are here.

    Returns:
        Export's, unless the runner is at fault here in a way that so few images do not leave open: it answers the
        golden images otherwise than its file, or other images decide against it.
    """
    if measured is None:
        return here
    if as_written is False:
        return here if measured.reaches or not here.reaches else measured
    return here if as_written is None and here.word == FAIL else measured


def answers_as_written(bundle: Bundle, name: RunnerId, got: Float32, judged: LabeledImages) -> bool | None:
    """Whether a runner answers the golden images as its file did; None for other images."""
    golden, logits = bundle.golden()
    if golden.sha256 != judged.sha256 or name.variant not in logits:
        return None
    flips = flips_between(answers_of(logits[name.variant]), answers_of(got))
    return flips <= VARIANTS[name.variant].golden_flips * len(got)
