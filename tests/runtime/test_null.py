"""Claims about the null runner: it answers from the pixels alone, and is a runner like any other."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from toolkit.runtime.null import NullRunner
from toolkit.runtime.runner import Runner


@given(st.integers(2, 20), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_the_top_answer_is_the_sum_of_pixels_modulo_classes(classes: int, count: int, seed: int) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    logits = NullRunner(classes).logits(images)
    assert logits.shape == (count, classes)
    assert logits.dtype == np.float32
    assert logits.argmax(1).tolist() == [int(image.astype(int).sum()) % classes for image in images]


def test_each_image_is_answered_alike_in_any_batch() -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 4, 4, 1), dtype=np.uint8)
    runner = NullRunner(5)
    alone = np.concatenate([runner.logits(images[i : i + 1]) for i in range(7)])
    assert np.array_equal(runner.logits(images), alone)


def test_it_is_a_runner_that_may_be_closed_twice_and_gives_fresh_arrays() -> None:
    images = np.ones((2, 4, 4, 1), np.uint8)
    runner: Runner = NullRunner(3)
    with runner as entered:
        assert entered is runner
        first = entered.logits(images)
        first[:] = 7
        assert not np.array_equal(entered.logits(images), first)
    runner.close()
    assert (runner.name, runner.description) == ("null", "null (3 classes)")
