"""Claims about the histogram: exact merging, a percentile that errs upwards by less than a bin, no hidden NaN."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from toolkit.calibration.histogram import BINS, FIRST_NOT_FINITE, Histogram, upper_edges
from toolkit.contracts import Float32
from toolkit.errors import CalibrationError

ARRAYS = npst.arrays(
    np.float32,
    st.integers(1, 200),
    elements=st.one_of(
        st.floats(-1e4, 1e4, width=32, allow_subnormal=False),
        st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False, width=32),
    ),
)
PERCENTS = st.sampled_from([0.5, 1.0, 25.0, 50.0, 75.0, 90.0, 99.0, 99.9, 99.99, 100.0])


def _of(*parts: Float32) -> Histogram:
    histogram = Histogram()
    for part in parts:
        histogram.add(part)
    return histogram


def _same(a: Histogram, b: Histogram) -> bool:
    return bool((a.counts == b.counts).all()) and a.largest == b.largest


@given(ARRAYS, st.lists(st.integers(0, 200), max_size=5), st.randoms())
def test_any_split_and_any_order_give_the_histogram_of_one_pass(
    values: Float32, cuts: list[int], random: object
) -> None:
    whole = _of(values)
    edges = [0, *sorted(min(cut, len(values)) for cut in cuts), len(values)]
    parts = [values[a:b] for a, b in pairwise(edges)]
    random.shuffle(parts)  # type: ignore[attr-defined]
    merged = Histogram()
    for part in parts:
        merged = merged.merged(_of(part))
    assert _same(merged, whole)
    assert _same(_of(*parts), whole)
    assert _same(_of(values[::-1]), whole)


@given(
    npst.arrays(np.float32, npst.array_shapes(min_dims=1, max_dims=4, max_side=6), elements=st.floats(-9, 9, width=32)),
    st.integers(1, 7),
)
def test_a_step_counts_fewer_of_each_image_and_knows_the_largest_of_all(values: Float32, step: int) -> None:
    some, each = Histogram(), Histogram()
    some.add(values, step)
    for one in values:
        each.add(np.ravel(one)[None], step)
    assert _same(some, each)
    assert some.largest == np.abs(values).max()
    assert some.counts.sum() == len(values) * -(-values[0].size // step)


def test_what_is_not_counted_still_hides_no_nan() -> None:
    histogram = Histogram()
    histogram.add(np.array([[1, np.nan, 2]], np.float32), 2)
    assert np.isnan(histogram.largest)
    assert np.isnan(histogram.merged(_of(np.ones(1, np.float32))).largest)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_any_float_is_counted_as_float32(dtype: type) -> None:
    values = np.random.default_rng(0).normal(size=(3, 20)).astype(np.float16)
    assert _same(_of(values.astype(dtype)), _of(values.astype(np.float32)))


@given(ARRAYS, ARRAYS)
def test_merging_commutes_and_changes_neither_side(a: Float32, b: Float32) -> None:
    left, right = _of(a), _of(b)
    assert _same(left.merged(right), right.merged(left))
    assert _same(left, _of(a))
    assert _same(right, _of(b))


@given(ARRAYS, PERCENTS)
def test_a_percentile_lies_within_a_bin_above_the_exact_one(values: Float32, percent: float) -> None:
    magnitudes = np.abs(values).astype(np.float64)
    exact = float(np.percentile(magnitudes, percent, method="inverted_cdf"))
    found = _of(values).percentile(percent)
    assert exact <= found <= magnitudes.max()
    assert found <= exact * (1 + 1 / 128)


@pytest.mark.slow
@given(ARRAYS)
def test_minmax_is_the_exact_largest_magnitude_whatever_the_sign(values: Float32) -> None:
    assert _of(values).minmax() == _of(-values).minmax() == float(np.abs(values).max())
    assert _of(values).percentile(100) == _of(values).minmax()


def test_half_of_four_values_do_not_exceed_the_second() -> None:
    assert 2 <= _of(np.array([4, -1, 3, 2], np.float32)).percentile(50) < 2 * (1 + 1 / 127)
    assert 3 <= _of(np.array([3], np.float32)).percentile(50) < 3 * (1 + 1 / 127)


def test_what_most_values_exceed_is_the_largest_number_where_most_are_infinite() -> None:
    assert _of(np.array([1, np.inf, np.inf], np.float32)).percentile(50) == np.finfo(np.float32).max


@given(ARRAYS)
def test_a_higher_percentile_is_never_lower(values: Float32) -> None:
    found = [_of(values).percentile(percent) for percent in (1, 25, 50, 75, 99, 100)]
    assert found == sorted(found)


def test_edges_rise_and_bound_their_bins() -> None:
    edges = upper_edges()
    assert edges.shape == (FIRST_NOT_FINITE,)
    assert (np.diff(edges) > 0).all()
    assert edges[-1] == np.finfo(np.float32).max
    rng = np.random.default_rng(0)
    for value in np.exp(rng.uniform(-80, 80, 200)).astype(np.float32):
        (index,) = np.flatnonzero(_of(np.array([value])).counts)
        assert edges[index - 1] <= value < edges[index]


def test_a_larger_magnitude_never_lands_in_a_lower_bin() -> None:
    values = np.sort(np.abs(np.random.default_rng(1).standard_cauchy(500)).astype(np.float32))
    bins = [int(np.flatnonzero(_of(np.array([value])).counts)[0]) for value in values]
    assert bins == sorted(bins)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_by_tensor_name(bad: float) -> None:
    histogram = _of(np.array([1, bad, 2, bad], np.float32))
    with pytest.raises(CalibrationError, match=r"activation 'conv1/out' holds NaN or infinity") as caught:
        histogram.require_finite("conv1/out")
    assert caught.value.found == "2 of 4 values"


def test_the_largest_finite_number_is_finite() -> None:
    _of(np.array([np.finfo(np.float32).max, -np.finfo(np.float32).max, 0], np.float32)).require_finite("x")


def test_zeros_and_nothing_have_no_range() -> None:
    assert Histogram().percentile(99) == 0
    assert _of(np.zeros(5, np.float32)).percentile(99.99) == 0
    assert _of(np.zeros(0, np.float32)).minmax() == 0
    # More than half are zero, so the median is zero and not the edge of the smallest bin.
    assert _of(np.array([0, 0, 0, 5], np.float32)).percentile(50) == 0


@pytest.mark.parametrize("percent", [0, -1, 100.1, float("nan")])
def test_a_percentile_outside_its_range_is_refused(percent: float) -> None:
    with pytest.raises(CalibrationError, match="percentile"):
        _of(np.ones(3, np.float32)).percentile(percent)


def test_a_histogram_is_a_quarter_of_a_mebibyte_whatever_it_has_seen() -> None:
    histogram = _of(*[np.random.default_rng(i).standard_normal((16, 8, 4, 4)).astype(np.float32) for i in range(3)])
    assert histogram.counts.shape == (BINS,)
    assert histogram.counts.dtype == np.int64
    assert histogram.counts.nbytes == 256 * 1024
    assert int(histogram.counts.sum()) == 3 * 16 * 8 * 4 * 4
