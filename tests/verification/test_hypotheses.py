"""Claims about hypotheses: the one that is true is named with its figures, and healthy differences name none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.compare.parity import BATCH
from toolkit.compare.readings import hypotheses_for, order_between, order_in_words
from toolkit.contracts import Float32, UInt8
from toolkit.verification.hypotheses import (
    cause_in_answers,
    cause_in_data,
    cause_in_input,
    cause_in_repetition,
    cause_of_equality,
)

SHAPE, CLASSES = (8, 8, 3), 5
DRAWS = np.random.default_rng(0)
WEIGHTS = DRAWS.standard_normal((int(np.prod(SHAPE)), CLASSES)).astype(np.float32)
IMAGES = DRAWS.integers(0, 256, (200, *SHAPE), dtype=np.uint8)


def ask(images_nhwc: UInt8) -> Float32:
    """A model to which every pixel's place and channel matters."""
    pixels = images_nhwc.reshape(len(images_nhwc), -1).astype(np.float32) / 255 - 0.5
    logits: Float32 = (pixels @ WEIGHTS).astype(np.float32)
    return logits


EXPECTED = ask(IMAGES)


def _noisy(logits: Float32, part: float = 0.03) -> Float32:
    noise = np.random.default_rng(1).standard_normal(logits.shape)
    result: Float32 = (logits + part * np.abs(logits).mean() * noise).astype(np.float32)
    return result


@pytest.mark.parametrize("name", [hypothesis.name for hypothesis in hypotheses_for(SHAPE)])
def test_each_change_of_the_pixels_is_recognized_behind_the_noise_of_int8(name: str) -> None:
    (planted,) = (hypothesis for hypothesis in hypotheses_for(SHAPE) if hypothesis.name == name)
    got = _noisy(ask(np.ascontiguousarray(planted.apply(IMAGES))))
    cause = cause_in_input("it", ask, IMAGES, EXPECTED, got)
    assert cause is not None
    assert cause.name == name
    assert "of 200 images" in cause.evidence


@pytest.mark.parametrize("part", [0.0, 0.03, 0.5])
def test_noise_has_no_cause(part: float) -> None:
    got = _noisy(EXPECTED, part)
    assert cause_in_input("it", ask, IMAGES, EXPECTED, got) is None
    assert cause_in_answers("it", EXPECTED, got) is None


def test_gray_images_have_no_channels_to_swap_and_oblong_ones_no_sides() -> None:
    assert not any("BGR" in h.name or "NCHW" in h.name for h in hypotheses_for((8, 8, 1)))
    assert not any("height" in h.name for h in hypotheses_for((8, 9, 3)))


@pytest.mark.parametrize("late", [1, BATCH])
def test_answers_that_come_late_are_recognized(late: int) -> None:
    cause = cause_in_answers("it", EXPECTED, np.roll(_noisy(EXPECTED), late, axis=0))
    assert cause is not None
    assert "returns the previous answer" in cause.name


def test_logits_of_nothing_and_logits_that_never_change() -> None:
    for got, words in ((np.full_like(EXPECTED, np.nan), "no logit is finite"), (np.ones_like(EXPECTED), "constant")):
        cause = cause_in_answers("it", EXPECTED, got)
        assert cause is not None
        assert words in cause.name


@given(st.permutations(range(CLASSES)))
def test_any_order_of_the_classes_is_found(order: list[int]) -> None:
    got = np.empty_like(EXPECTED)
    got[:, order] = EXPECTED
    cause = cause_in_answers("it", EXPECTED, got)
    if order == sorted(order):
        assert cause is None
    else:
        assert cause is not None
        assert "the classes are " in cause.name


def test_a_shift_is_called_a_shift_and_anything_else_says_what_went_where() -> None:
    assert order_in_words(np.array([1, 2, 3, 4, 0]), "labels") == "the labels are shifted by 1"
    assert order_in_words(np.array([4, 0, 1, 2, 3]), "labels") == "the labels are shifted by -1"
    assert order_in_words(np.array([0, 2, 1]), "labels") == "the labels are in another order: 1 to 2, 2 to 1"


def test_many_to_one_is_no_order() -> None:
    assert order_between(np.array([0, 1, 2]), np.array([0, 0, 0]), 3) is None


def test_labels_of_images_that_the_model_knows_less_well_are_no_cause() -> None:
    labels = np.random.default_rng(2).integers(0, CLASSES, len(IMAGES))
    assert cause_in_data(ask, IMAGES, labels, EXPECTED, 95.0) is None
    assert cause_in_data(ask, IMAGES, EXPECTED.argmax(axis=1), EXPECTED, 95.0) is None


def test_the_same_question_must_get_the_same_answer() -> None:
    first, second = EXPECTED[:20], EXPECTED[20:40]
    assert cause_in_repetition("it", first, _noisy(first, 1e-4), second) is None
    stale = cause_in_repetition("it", first, second, second)
    other = cause_in_repetition("it", first, first + 1, second)
    assert stale is not None
    assert stale.name == "it returns the previous answer"
    assert other is not None
    assert other.name == "its answers change from call to call"


def test_equal_bits_on_many_logits_are_the_cpus_and_one_other_bit_is_not() -> None:
    got = EXPECTED.copy()
    assert cause_of_equality("trt", got, EXPECTED) is not None
    got[3, 2] = np.nextafter(got[3, 2], np.float32(np.inf))
    assert cause_of_equality("trt", got, EXPECTED) is None
    assert cause_of_equality("trt", EXPECTED[:2], EXPECTED[:2]) is None
