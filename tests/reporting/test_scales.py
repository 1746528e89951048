"""Claims about scales and figures in words."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from toolkit.reporting.latencies import BINS, density
from toolkit.reporting.scales import Scale, scale_of
from toolkit.reporting.words import listed, milliseconds, signed, size, three_digits, times

POSITIVE = st.floats(1e-4, 1e6)


@given(st.lists(POSITIVE, min_size=1, max_size=20), st.booleans())
def test_every_value_has_a_place_inside_and_order_is_kept(values: list[float], log: bool) -> None:
    scale = scale_of(values, 10, 300, log=log)
    places = [scale(value) for value in sorted(values)]
    assert all(10 <= place <= 300 for place in places)
    assert places == sorted(places)


@given(POSITIVE, POSITIVE, st.booleans(), st.integers(3, 9))
def test_marks_are_inside_rising_and_few(one: float, other: float, log: bool, most: int) -> None:
    low, high = sorted((one, other))
    assume(high > low * 1.001)
    ticks = Scale(low, high, 0, 100, log).ticks(most)
    assert ticks == sorted(set(ticks))
    assert 1 <= len(ticks) <= most + 1
    room = 1e-6 * (high - low)
    assert all(low - room <= value <= high + room for value in ticks)


def test_marks_are_round() -> None:
    assert Scale(0.13, 1.42, 0, 1).ticks(5) == [0.5, 1.0]
    assert Scale(93.1, 94.9, 0, 1).ticks(6) == [93.5, 94.0, 94.5]
    assert Scale(0.3, 30, 0, 1, log=True).ticks(9) == [0.5, 1, 2, 5, 10, 20]


@pytest.mark.parametrize(("low", "high", "log"), [(1, 1, False), (2, 1, False), (0, 1, True), (math.nan, 1, False)])
def test_an_impossible_scale_is_refused(low: float, high: float, log: bool) -> None:
    with pytest.raises(ValueError, match="scale"):
        Scale(low, high, 0, 1, log)


@given(st.lists(POSITIVE, min_size=101, max_size=101))
def test_a_curve_peaks_at_one_and_is_never_negative(values: list[float]) -> None:
    quantiles = tuple(sorted(values))
    heights = density(quantiles, scale_of(list(quantiles), 0, 100, log=True))
    assert len(heights) == BINS
    assert max(heights) == 1
    assert min(heights) >= 0


def test_a_curve_of_two_kinds_of_calls_has_two_peaks() -> None:
    quantiles = (*([1.0] * 60), *([10.0] * 41))
    heights = density(quantiles, Scale(0.5, 20, 0, 100, log=True))
    peaks = [i for i in range(1, BINS - 1) if heights[i - 1] < heights[i] >= heights[i + 1]]
    assert len(peaks) == 2
    assert heights[peaks[0]] > heights[peaks[1]]


def test_figures_have_three_digits() -> None:
    found = [three_digits(v) for v in (0, 0.4011, 1.716, 61.58, 153.6, 1364.4, 99.96, 0.0123456)]
    assert found == ["0", "0.401", "1.72", "61.6", "154", "1,364", "100.0", "0.012"]
    assert milliseconds(None) == "not known"


def test_signs_sizes_and_lists_read_as_people_write_them() -> None:
    assert [signed(v) for v in (0.2, -0.2, 0.0, -0.001)] == ["+0.20", "\u22120.20", "0.00", "0.00"]
    assert [size(v) for v in (500_277, 20 * 2**20, None)] == ["489\u202fKiB", "20.0\u202fMiB", "not known"]
    assert [listed(names) for names in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
    assert [times(v) for v in (2.62, 12.3)] == ["2.6 times", "12 times"]
