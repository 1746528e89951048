"""What a classifier answers with, told by its numbers: logits, probabilities, logarithms of such, or sigmoids."""

from __future__ import annotations

import numpy as np

from toolkit.contracts import Float32, Float64

LOGITS, PROBABILITIES, LOGARITHMS, SIGMOIDS = "logits", "probabilities", "logarithms of probabilities", "sigmoids"
SUM = 1e-3  # how far a row of probabilities may be from 1: a clipped or rounded softmax


def kind_of_answers(answers: Float32) -> str:
    """One of the four names, for answers (N, classes) to real images; rows that are not finite do not vote.

    Numbers from 0 to 1 whose rows do not sum to 1 are taken for sigmoids: logits of many images stay within them by
    no chance.
    """
    rows = answers[np.isfinite(answers).all(axis=1) | (answers == -np.inf).any(axis=1)].astype(np.float64)
    if len(rows) == 0 or (rows == rows[0, 0]).all():
        return LOGITS
    if ((rows >= -SUM) & (rows <= 1 + SUM)).all():
        return PROBABILITIES if (np.abs(rows.sum(axis=1) - 1) < SUM).all() else _sigmoids_or_logits(rows)
    sums = np.exp(np.minimum(rows, 1.0)).sum(axis=1)  # what is larger is no logarithm, and would overflow
    return LOGARITHMS if (rows <= SUM).all() and (np.abs(sums - 1) < SUM).all() else LOGITS


def _sigmoids_or_logits(rows: Float64) -> str:
    return SIGMOIDS if rows.min() >= 0 and rows.max() <= 1 else LOGITS


def softmax(logits: Float32) -> Float64:
    """Probabilities float64 of logits (N, classes)."""
    powers: Float64 = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def log_softmax(logits: Float32) -> Float64:
    """Logarithms of probabilities, float64, of logits (N, classes)."""
    shifted: Float64 = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted


def sigmoid(values: Float32) -> Float64:
    """1 / (1 + exp(-x)), float64."""
    result: Float64 = 0.5 * (1 + np.tanh(0.5 * values.astype(np.float64)))
    return result
