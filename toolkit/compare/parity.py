"""Whether two runners are the same model: the same images through both, compared as a value."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from toolkit.compare.proportions import mcnemar_exact_p, paired_ratio_interval, wilson_interval
from toolkit.contracts import Float32, Float64, Int64, UInt8
from toolkit.runtime.runner import Runner
from toolkit.runtime.runner_id import RunnerId
from toolkit.storage.documents import Document
from toolkit.storage.hints import Count, Figure, Limits, Percent, Probability

BATCH = 64


@dataclass(frozen=True)
class Score(Document):
    """Top-1 of one runner, in percent, with Wilson's 95 % interval."""

    top1_percent: Percent
    low_percent: Percent
    high_percent: Percent
    correct: Count
    images: Count


@dataclass(frozen=True)
class Parity(Document):
    """A candidate against a reference on the same images.

    Attributes:
        agreement_percent: images on which both have the same top answer.
        flips: images whose top answer differs.
        lost: flips that were right before.
        gained: flips that are right now.
        changed: flips from one wrong answer to another.
        mcnemar_p: exact two-sided p of lost against gained: small means the difference is not noise.
        max_abs_dlogit, mean_abs_dlogit: of all logits.
        relative_l2: ||candidate - reference|| / ||reference|| over all logits; ranks quantizers better than top-1.
        snr_db: the same as a signal-to-noise ratio, -20 log10(relative_l2); infinite for equal logits.
        mean_cosine, worst_cosine: of each image's two logit vectors, over images whose logits are finite; NaN for none.
        worst_cosine_image: the index of the worst; -1 for none.
        nonfinite: logits of the candidate that are NaN or infinite.
        retention_percent: candidate's top-1 as a part of the reference's; 0 where the reference has none right.
        retention_low_percent, retention_high_percent: its paired 95 % interval; high is infinite where the reference
            has none right.
    """

    reference: str
    candidate: str
    reference_score: Score
    candidate_score: Score
    agreement_percent: Percent
    flips: Count
    lost: Count
    gained: Count
    changed: Count
    mcnemar_p: Probability
    max_abs_dlogit: Figure
    mean_abs_dlogit: Figure
    relative_l2: Figure
    snr_db: Figure
    mean_cosine: Figure
    worst_cosine: Figure
    worst_cosine_image: Annotated[int, Limits(least=-1)]
    nonfinite: Count
    retention_percent: float
    retention_low_percent: float
    retention_high_percent: Figure

    @property
    def both_right(self) -> int:
        """Images that reference and candidate have right."""
        return self.reference_score.correct - self.lost

    @property
    def change_points(self) -> float:
        """Percentage points of top-1 above the reference's."""
        return self.candidate_score.top1_percent - self.reference_score.top1_percent

    @property
    def change_interval_points(self) -> tuple[float, float] | None:
        """Its paired 95 % interval, from the retention's; None where the reference has none right."""
        if not math.isfinite(self.retention_high_percent):
            return None
        low, high = self.retention_low_percent / 100 - 1, self.retention_high_percent / 100 - 1
        return low * self.reference_score.top1_percent, high * self.reference_score.top1_percent


def logits_in_batches(
    runner: Runner, images_nhwc: UInt8, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> Float32:
    """Logits float32 (N, classes) of any number of images, `BATCH` at a time."""
    parts = []
    for start in range(0, len(images_nhwc), BATCH):
        parts.append(runner.logits(images_nhwc[start : start + BATCH]))
        on_progress(min(start + BATCH, len(images_nhwc)), len(images_nhwc))
    return np.concatenate(parts)


def score_from_logits(logits: Float32, labels: Int64) -> Score:
    """Top-1 of logits (N, classes) against labels (N,); a row with NaN counts as wrong."""
    right = int((answers_of(logits) == labels).sum())
    low, high = wilson_interval(right, len(labels))
    return Score(100 * right / len(labels), 100 * low, 100 * high, right, len(labels))


def answers_of(logits: Float32) -> Int64:
    """The index of the largest of logits (N, classes), int64 (N,): -1 where a logit is NaN or infinite."""
    top: Int64 = np.where(np.isfinite(logits).all(axis=1), logits.argmax(axis=1), -1)
    return top


def parity_from_logits(
    reference: RunnerId | str, candidate: RunnerId | str, expected: Float32, got: Float32, labels: Int64
) -> Parity:
    """Compares logits (N, classes) of two runners, image by image.

    Args:
        reference, candidate: the two runners, or what else they are called.
        expected, got: their logits, in that order.
    """
    if expected.shape != got.shape or len(expected) != len(labels):
        raise ValueError(f"logits {expected.shape} and {got.shape} for {len(labels)} labels")
    before, after = answers_of(expected), answers_of(got)
    was_right, is_right = before == labels, after == labels
    lost, gained = int((was_right & ~is_right).sum()), int((~was_right & is_right).sum())
    flips, relative = flips_between(before, after), relative_l2(expected, got)
    with np.errstate(invalid="ignore"):
        difference = np.abs(got.astype(np.float64) - expected)
    cosines = _cosines(expected, got)
    worst = int(np.nanargmin(cosines)) if np.isfinite(cosines).any() else -1
    scores = score_from_logits(expected, labels), score_from_logits(got, labels)
    low, high = paired_ratio_interval(scores[0].correct - lost, lost, gained)
    return Parity(
        reference=str(reference),
        candidate=str(candidate),
        reference_score=scores[0],
        candidate_score=scores[1],
        agreement_percent=100 * (1 - flips / len(labels)),
        flips=flips,
        lost=lost,
        gained=gained,
        changed=flips - lost - gained,
        mcnemar_p=mcnemar_exact_p(lost, gained),
        max_abs_dlogit=float(difference.max()),
        mean_abs_dlogit=float(difference.mean()),
        relative_l2=relative,
        snr_db=-20 * math.log10(relative) if relative > 0 else math.inf,
        mean_cosine=float(np.nanmean(cosines)) if worst >= 0 else math.nan,
        worst_cosine=float(cosines[worst]),
        worst_cosine_image=worst,
        nonfinite=int((~np.isfinite(got)).sum()),
        retention_percent=100 * scores[1].correct / scores[0].correct if scores[0].correct else 0.0,
        retention_low_percent=100 * low,
        retention_high_percent=100 * high,
    )


def flips_between(before: Int64, after: Int64) -> int:
    """Images whose answers (N,), of `answers_of`, differ; one without a finite answer flips in any case."""
    return int(((before != after) | (after < 0)).sum())


def relative_l2(expected: Float32, got: Float32) -> float:
    """||got - expected|| / ||expected|| over all elements; infinite where one is not finite.

    The same bits for any order of the first axis, the images.
    """
    a, b = expected.astype(np.float64), got.astype(np.float64)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return math.inf
    return _norm(b - a) / max(_norm(a), 1e-30)


def _norm(values: Float64) -> float:
    """The Euclidean norm; rows are summed exactly, because a sum of floats differs with the order in its last bits."""
    squares = np.square(np.atleast_1d(values))
    return math.sqrt(math.fsum(squares.sum(axis=tuple(range(1, squares.ndim))).tolist()))


def _cosines(expected: Float32, got: Float32) -> Float64:
    """Cosine of each image's two logit vectors, (N,); 1 where they are equal, NaN where one is not finite."""
    a, b = expected.astype(np.float64), got.astype(np.float64)
    finite = np.all(np.isfinite(a) & np.isfinite(b), axis=1)
    a, b = np.where(finite[:, None], a, 0.0), np.where(finite[:, None], b, 0.0)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines = (a * b).sum(axis=1) / np.where(lengths > 0, lengths, 1.0)
    equal = np.all(a == b, axis=1)
    result: Float64 = np.where(finite, np.where(equal, 1.0, cosines.clip(-1.0, 1.0)), np.nan)
    return result


@dataclass(frozen=True)
class UnlabeledParity(Document):
    """A candidate's logits against fp32's on the same images.

    Attributes:
        relative_l2: ||candidate - fp32|| / ||fp32|| over all logits; it ranks quantizers where flips cannot.
        flips: images whose top answer differs, of `images`.
    """

    relative_l2: Figure
    flips: Count
    images: Count

    @property
    def percent(self) -> float:
        """Images with the same top answer, in percent."""
        return 100 * (1 - self.flips / self.images)

    @property
    def order(self) -> tuple[float, int]:
        """What candidates are sorted by: the distance of the logits first, then flips."""
        return self.relative_l2, self.flips


def parity_without_labels(expected: Float32, got: Float32) -> UnlabeledParity:
    """Compares logits (N, classes) as `toolkit.compare.parity` does; the same bits for any order of the rows."""
    flips = flips_between(answers_of(expected), answers_of(got))
    return UnlabeledParity(relative_l2(expected, got), flips, len(got))
