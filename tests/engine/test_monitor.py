"""Claims about watching a build: one bar that never falls, and nothing of TensorRT's kept alive by an error."""

from __future__ import annotations

import gc
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.engine.monitor import WHOLE, Monitor, interruptible, overall


def test_nested_phases_make_one_number() -> None:
    heard: list[int] = []
    hear = overall(heard.append)
    for step in (("build", 0, 2), ("time", 0, 4), ("time", 2, 4), ("time", 4, 4), ("build", 1, 2), ("build", 2, 2)):
        hear(*step)
    assert heard == [0, 0, 25, 50, 50, WHOLE]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 6), st.integers(0, 5))))
def test_the_bar_never_falls_and_never_leaves_its_ends(steps: list[tuple[str, int, int]]) -> None:
    heard: list[int] = []
    hear = overall(heard.append)
    for step in steps:
        hear(*step)
    assert heard == sorted(heard)
    assert all(0 <= value <= WHOLE for value in heard)


class _Builder:
    """Stands for an object of TensorRT."""


@pytest.mark.parametrize("chained", [False, True])
def test_an_error_keeps_nothing_of_the_build_alive(chained: bool) -> None:
    alive: list[weakref.ref[_Builder]] = []

    def work() -> None:
        builder = _Builder()
        alive.append(weakref.ref(builder))
        try:
            raise ValueError("the first")
        except ValueError as error:
            if chained:
                raise KeyError("the second") from error
            raise

    gc.disable()  # a collection at another time is what must not be needed
    try:
        with pytest.raises((KeyError, ValueError)):
            interruptible(work, Monitor(None))
        assert alive[0]() is None
    finally:
        gc.enable()
