"""Claims about answers: logits, probabilities, their logarithms and sigmoids are told apart by their numbers alone."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.compare.answers import (
    LOGARITHMS,
    LOGITS,
    PROBABILITIES,
    SIGMOIDS,
    kind_of_answers,
    log_softmax,
    sigmoid,
    softmax,
)
from toolkit.contracts import Float32

DRAWN: Float32 = np.random.default_rng(0).normal(scale=3, size=(40, 5)).astype(np.float32)
SOFT, LOGS, SIGMOID = (function(DRAWN).astype(np.float32) for function in (softmax, log_softmax, sigmoid))


def beside(rows: Float32, *others: list[float]) -> Float32:
    """Rows, and others below them."""
    return np.concatenate([rows, np.array(others, np.float32)])


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        (DRAWN, LOGITS), (SOFT, PROBABILITIES), (LOGS, LOGARITHMS), (SIGMOID, SIGMOIDS),
        (beside(LOGS, [0, *[-np.inf] * 4]), LOGARITHMS),  # of a class that is certain
        (beside(SOFT, [np.nan] * 5), PROBABILITIES),  # a row without a number has no vote
        (beside(LOGS, [0, *[-np.inf] * 4], [np.nan] * 5), LOGARITHMS), (beside(SOFT, [np.inf] * 5), PROBABILITIES),
        (np.array([[0, -np.inf], [-np.inf, 0]], np.float32), LOGARITHMS),
        (SOFT[:1], PROBABILITIES), (np.array([[0.3], [0.7]], np.float32), SIGMOIDS),  # one image; one class
        (beside(SIGMOID, [0, 0, 0, 0, 1]), SIGMOIDS),
        (np.full((3, 5), np.nan, np.float32), LOGITS), (np.full((3, 5), 0.2, np.float32), LOGITS),
        (beside(SOFT, [0.2009] + [0.2] * 4), PROBABILITIES), (beside(SOFT, [0.2011] + [0.2] * 4), SIGMOIDS),
        (beside(SOFT, [1.0005, -0.0005, 0, 0, 0]), PROBABILITIES),
        (beside(SIGMOID, [-0.0005, 0.5, 0, 0, 0]), LOGITS), (beside(SIGMOID, [1.0005, 0.5, 0, 0, 0]), LOGITS),
        (beside(SOFT, [1.002, -0.002, 0, 0, 0]), LOGITS),
        (beside(SOFT, [1.0035, -0.0009, -0.0009, -0.0009, -0.0008]), LOGITS),
        (beside(LOGS, [np.log(0.2009)] + [np.log(0.2)] * 4), LOGARITHMS),
        (beside(LOGS, [np.log(0.2011)] + [np.log(0.2)] * 4), LOGITS),
        (beside(LOGS, [0.0005, -20, -20, -20, -20]), LOGARITHMS), (beside(LOGS, [100.0, -1, -1, -1, -1]), LOGITS),
    ],
)  # fmt: skip
def test_answers_are_what_their_numbers_say(answers: Float32, kind: str) -> None:
    assert kind_of_answers(answers) == kind


def test_softmax_its_logarithm_and_the_sigmoid_are_their_definitions_and_never_overflow() -> None:
    exact = DRAWN.astype(np.float64)
    powers = np.exp(exact)
    assert softmax(DRAWN) == pytest.approx(powers / powers.sum(axis=1, keepdims=True))
    assert log_softmax(DRAWN) == pytest.approx(np.log(powers / powers.sum(axis=1, keepdims=True)))
    assert sigmoid(DRAWN) == pytest.approx(1 / (1 + np.exp(-exact)))
    far = np.array([[1000, 0, -1000], [-1000] * 3], np.float32)
    assert softmax(far) == pytest.approx(np.array([[1, 0, 0], [1 / 3] * 3]))
    assert log_softmax(far) == pytest.approx(np.array([[0, -1000, -2000], [-np.log(3)] * 3]))
    assert sigmoid(far).tolist() == [[1, 0.5, 0], [0, 0, 0]]
    assert {function(far).dtype for function in (softmax, log_softmax, sigmoid)} == {np.dtype(np.float64)}
