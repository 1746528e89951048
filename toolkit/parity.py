"""Whether two runners are the same model: the same images through both, compared as a value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from toolkit.contracts import Float32, Int64, UInt8
from toolkit.runtime.runner import Runner
from toolkit.stats import mcnemar_exact_p, wilson_interval

BATCH = 64


@dataclass(frozen=True)
class Score:
    """Top-1 of one runner, in percent, with Wilson's 95 % interval."""

    top1_percent: float
    low_percent: float
    high_percent: float
    correct: int
    images: int


@dataclass(frozen=True)
class Parity:
    """A candidate against a reference on the same images.

    Attributes:
        agreement_percent: images on which both have the same top answer.
        flips: images whose top answer differs; of these `lost` were right before, `gained` are right now.
        mcnemar_p: exact two-sided p of lost against gained: small means the difference is not noise.
        max_abs_dlogit, mean_abs_dlogit: of all logits.
        relative_l2: ||candidate - reference|| / ||reference|| over all logits; ranks quantisers better than top-1.
        nonfinite: logits of the candidate that are NaN or infinite.
        retention_percent: candidate's top-1 as a part of the reference's; 0 where the reference has none right.
    """

    reference: str
    candidate: str
    reference_score: Score
    candidate_score: Score
    agreement_percent: float
    flips: int
    lost: int
    gained: int
    mcnemar_p: float
    max_abs_dlogit: float
    mean_abs_dlogit: float
    relative_l2: float
    nonfinite: int
    retention_percent: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON; a difference that is not finite becomes null."""
        document = asdict(self)
        for name in ("max_abs_dlogit", "mean_abs_dlogit", "relative_l2"):
            if not np.isfinite(document[name]):
                document[name] = None
        return document


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
    right = int((_answers(logits) == labels).sum())
    low, high = wilson_interval(right, len(labels))
    return Score(100 * right / len(labels), 100 * low, 100 * high, right, len(labels))


def _answers(logits: Float32) -> Int64:
    """The index of the largest logit, -1 where a logit is NaN or infinite."""
    top: Int64 = np.where(np.isfinite(logits).all(axis=1), logits.argmax(axis=1), -1)
    return top


def parity_from_logits(reference: str, candidate: str, expected: Float32, got: Float32, labels: Int64) -> Parity:
    """Compares logits (N, classes) of two runners, image by image.

    Args:
        reference, candidate: names of the two runners.
        expected, got: their logits, in that order.
    """
    if expected.shape != got.shape or len(expected) != len(labels):
        raise ValueError(f"logits {expected.shape} and {got.shape} for {len(labels)} labels")
    before, after = _answers(expected), _answers(got)
    was_right, is_right = before == labels, after == labels
    lost, gained = int((was_right & ~is_right).sum()), int((~was_right & is_right).sum())
    # A candidate without a finite answer flips, even where the reference had none either.
    flips = int(((before != after) | (after < 0)).sum())
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.abs(got.astype(np.float64) - expected)
        relative = np.linalg.norm(difference) / max(float(np.linalg.norm(expected.astype(np.float64))), 1e-30)
    scores = score_from_logits(expected, labels), score_from_logits(got, labels)
    return Parity(
        reference=reference,
        candidate=candidate,
        reference_score=scores[0],
        candidate_score=scores[1],
        agreement_percent=100 * (1 - flips / len(labels)),
        flips=flips,
        lost=lost,
        gained=gained,
        mcnemar_p=mcnemar_exact_p(lost, gained),
        max_abs_dlogit=float(difference.max()),
        mean_abs_dlogit=float(difference.mean()),
        relative_l2=float(relative),
        nonfinite=int((~np.isfinite(got)).sum()),
        retention_percent=100 * scores[1].correct / scores[0].correct if scores[0].correct else 0.0,
    )
