"""Why two runners differ: cheap hypotheses, tried on the images at hand; one that explains the difference is named.

A hypothesis is never a guess. Each makes a prediction ("then the reference, fed with reversed channels, answers as the
candidate does"), and is reported with the figures that bear it out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from toolkit.compare.parity import BATCH, answers_of, relative_l2
from toolkit.compare.proportions import mcnemar_exact_p, wilson_interval
from toolkit.compare.readings import hypotheses_for, order_between, order_in_words
from toolkit.contracts import Float32, Int64, UInt8
from toolkit.storage.documents import Document

Ask = Callable[[UInt8], Float32]
TRIED = 256  # images: a difference that fails a gate shows on far fewer
EXPLAINS = 1 / 3  # of the distance to the candidate may be left
AGREES = 0.9  # of the answers must be the candidate's: quantization flips 1 to 2 % on top of a fault
REPEATS = 1e-2  # relative L2 between two calls: a GPU may pick other kernels, but not other answers
RESTORES = 0.8  # of the missing accuracy must come back

LATE = "wait for the stream before the output is read, and return a copy of it"


@dataclass(frozen=True)
class Cause(Document):
    """What is wrong, in words that say where; the figures that show it; what to do."""

    name: str
    where: str
    evidence: str
    fix: str


def _same_answers(a: Float32, b: Float32) -> float:
    return float((answers_of(a) == answers_of(b)).mean())


def explained(name: str, where: str, predicted: Float32, expected: Float32, got: Float32, fix: str) -> Cause | None:
    """A cause, if `predicted` is as near to the candidate's `got` as the reference's `expected` is not."""
    before, after = relative_l2(got, expected), relative_l2(got, predicted)
    if not (after < EXPLAINS * before and _same_answers(predicted, got) >= AGREES):
        return None
    evidence = (
        f"with that, the reference answers as it does on {100 * _same_answers(predicted, got):.1f} % "
        f"of {len(got)} images "
        f"(without: {100 * _same_answers(expected, got):.1f} %), logits {after:.1e} apart (without: {before:.1e})"
    )
    return Cause(name, where, evidence, fix)


def cause_in_answers(where: str, expected: Float32, got: Float32) -> Cause | None:
    """What logits (N, classes) alone show: none is finite, all are equal, a call late, classes in another order."""
    finite = np.isfinite(got).all(axis=1)
    if not finite.any():
        return Cause("no logit is finite", where, f"{len(got)} of {len(got)} images", "`toolkit.verify(layers=True)`")
    if len(got) > 1 and (got == got[0]).all() and not (expected == expected[0]).all():
        return Cause(
            "the logits are constant",
            where,
            f"all {len(got)} images have the same logits, bit for bit",
            "the input never reaches the net: check the input binding and the copy to the device",
        )
    for late in (BATCH, 1):
        if len(got) > late:
            found = _late(where, expected, got, late)
            if found is not None:
                return found
    return _reordered(where, expected, got)


def _late(where: str, expected: Float32, got: Float32, late: int) -> Cause | None:
    words = "call" if late == BATCH else "image"
    return explained(
        f"it returns the previous answer, one {words} late",
        where,
        expected[:-late],
        expected[late:],
        got[late:],
        LATE,
    )


def cause_in_repetition(where: str, wanted: Float32, again: Float32, before: Float32) -> Cause | None:
    """The same images asked again, with others in between: a runner that keeps no state gives the same logits.

    Args:
        wanted, again: logits of the same images, the first time and now.
        before: the reference's logits of the images that were asked just before.
    """
    if again.shape == wanted.shape and _same(wanted, again):
        return None
    rows = min(len(before), len(again))
    stale = relative_l2(again[:rows], before[:rows]) < EXPLAINS * relative_l2(again[:rows], wanted[:rows])
    if stale or again.shape != wanted.shape:
        return Cause(
            "it returns the previous answer",
            where,
            f"{len(wanted)} images, asked again, got the logits of the images that were asked before them",
            LATE,
        )
    return Cause(
        "its answers change from call to call",
        where,
        f"{len(wanted)} images, asked again, got logits {relative_l2(again, wanted):.1e} away",
        "look for memory that is read before it is written",
    )


def _same(wanted: Float32, again: Float32) -> bool:
    """Near enough to each other; what is not finite must be so in the same places."""
    finite = np.isfinite(wanted)
    if not (finite == np.isfinite(again)).all():
        return False
    return relative_l2(np.where(finite, wanted, 0), np.where(finite, again, 0)) < REPEATS


def _reordered(where: str, expected: Float32, got: Float32) -> Cause | None:
    order = order_between(answers_of(expected), answers_of(got), got.shape[1])
    if order is None:
        return None
    predicted = np.empty_like(expected)
    predicted[:, order] = expected
    return explained(order_in_words(order, "classes"), where, predicted, expected, got, "compare the lists of labels")


def cause_in_input(where: str, ask: Ask, images_nhwc: UInt8, expected: Float32, got: Float32) -> Cause | None:
    """Whether the reference, fed with changed pixels, answers as the candidate does with these.

    Args:
        ask: the reference.
        expected, got: logits of reference and candidate for `images_nhwc`.
    """
    causes = []
    for hypothesis in hypotheses_for(images_nhwc.shape[1:]):
        predicted = ask(np.ascontiguousarray(hypothesis.apply(images_nhwc)))
        fix = f"the preprocessing in front of it is not the model's; {hypothesis.fix}"
        cause = explained(hypothesis.name, where, predicted, expected, got, fix)
        if cause is not None:
            causes.append((relative_l2(got, predicted), cause))
    return min(causes, key=lambda entry: entry[0])[1] if causes else None


def cause_in_data(ask: Ask, images_nhwc: UInt8, labels: Int64, logits: Float32, claimed_percent: float) -> Cause | None:
    """Why the reference itself is right on fewer images than its manifest says: pixels or labels changed places.

    Args:
        logits: the reference's for `images_nhwc`.
        claimed_percent: top-1 that the manifest states.
    """
    right = answers_of(logits) == labels
    if 100 * wilson_interval(int(right.sum()), len(right))[1] >= claimed_percent:
        return None
    tried = []
    order = order_between(answers_of(logits), labels, logits.shape[1])
    if order is not None:
        tried.append((order_in_words(order, "labels"), order[answers_of(logits)] == labels, "mend the labels"))
    for hypothesis in hypotheses_for(images_nhwc.shape[1:]):
        answers = answers_of(ask(np.ascontiguousarray(hypothesis.apply(images_nhwc))))
        tried.append((f"{hypothesis.name} in these images", answers == labels, hypothesis.fix))
    name, mended, fix = max(tried, key=lambda entry: int(entry[1].sum()))
    missing = claimed_percent / 100 - right.mean()
    lost, gained = int((right & ~mended).sum()), int((~right & mended).sum())
    if mended.mean() - right.mean() < RESTORES * missing or mcnemar_exact_p(lost, gained) > 1e-3:
        return None
    evidence = (
        f"the reference is right on {100 * right.mean():.1f} % of {len(labels)} images, its manifest says "
        f"{claimed_percent:.1f} %; with that undone, on {100 * mended.mean():.1f} %"
    )
    return Cause(name, "the images that judge", evidence, fix)


def cause_of_equality(where: str, got: Float32, on_cpu: Float32) -> Cause | None:
    """A runner that names a GPU and gives the CPU's logits bit for bit did not run on the GPU.

    Sums of hundreds of float32 products are added in another order there: that all bits agree on many images does not
    happen by chance.
    """
    if got.shape != on_cpu.shape or got.size < 30 or not (got == on_cpu).all():
        return None
    return Cause(
        "it silently ran on the CPU",
        where,
        f"all {got.size} logits of {len(got)} images equal those of ONNX Runtime on the CPU, bit for bit",
        "look at what works on this machine",
    )
