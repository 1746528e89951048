"""Claims about methods: each finds what its definition says, on distributions whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from toolkit.calibration.histogram import Histogram, upper_edges
from toolkit.calibration.methods import (
    CANDIDATES,
    LEVELS,
    LINEAR_BINS,
    METHODS,
    UNSIGNED_LEVELS,
    amax_from_histogram,
    divergences_of_clips,
    least_divergence_amax,
    least_squares_amax,
    linear_counts,
    require_method,
)
from toolkit.contracts import Float32
from toolkit.errors import CalibrationError


def _of(values: Float32) -> Histogram:
    histogram = Histogram()
    histogram.add(values)
    return histogram


def _squared_error(values: Float32, amax: float, levels: int) -> float:
    scale = amax / levels
    quantized = scale * np.clip(np.rint(values / scale), -levels, levels)
    return float(np.square(values - quantized).mean())


DRAWS = {
    "normal": np.random.default_rng(0).standard_normal(40_000),
    "laplace": np.random.default_rng(1).laplace(size=40_000),
    "relu": np.maximum(np.random.default_rng(2).standard_normal(40_000), 0),
    "uniform": np.random.default_rng(3).uniform(-3, 3, 40_000),
    "outlier": np.append(np.random.default_rng(4).standard_normal(40_000), 60.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("levels", [LEVELS, UNSIGNED_LEVELS])
@pytest.mark.parametrize("name", DRAWS)
def test_the_mse_clip_is_as_good_as_the_best_of_all_clips_on_the_values_themselves(name: str, levels: int) -> None:
    values = DRAWS[name].astype(np.float32)
    found = least_squares_amax(_of(values), levels)
    largest = float(np.abs(values).max())
    best = min(_squared_error(values, clip, levels) for clip in np.linspace(largest / 200, largest, 1500))
    assert _squared_error(values, found, levels) <= 1.03 * best


def test_with_twice_the_levels_the_clip_of_a_normal_cuts_less_off() -> None:
    histogram = _of(DRAWS["normal"].astype(np.float32))
    narrow, wide = (amax_from_histogram(histogram, "mse", levels) for levels in (LEVELS, UNSIGNED_LEVELS))
    assert 1.02 * narrow < wide <= histogram.largest
    assert amax_from_histogram(histogram, "minmax", UNSIGNED_LEVELS) == histogram.largest


def test_the_mse_clip_leaves_an_outlier_out_and_keeps_a_uniform_whole() -> None:
    # One value in 400,000 at 60: clipping it at 20 costs 0.004 and its step 0.002, a step wide enough for it 0.019.
    rare = np.append(np.tile(DRAWS["normal"], 10), 60.0).astype(np.float32)
    assert least_squares_amax(_of(rare)) < 25
    uniform = DRAWS["uniform"].astype(np.float32)
    assert least_squares_amax(_of(uniform)) == pytest.approx(float(np.abs(uniform).max()), rel=0.02)


def test_the_entropy_clip_leaves_an_outlier_out_and_keeps_a_uniform_whole() -> None:
    assert least_divergence_amax(_of(DRAWS["outlier"].astype(np.float32))) < 8
    uniform = np.abs(DRAWS["uniform"]).astype(np.float32)
    assert least_divergence_amax(_of(uniform)) > 0.97 * uniform.max()


def test_entropy_is_not_minmax_on_activations() -> None:
    relu = DRAWS["relu"].astype(np.float32)
    assert 0.5 * relu.max() < least_divergence_amax(_of(relu)) < relu.max()


def test_zeros_do_not_decide_the_clip() -> None:
    values = DRAWS["laplace"].astype(np.float32)
    padded = np.concatenate([values, np.zeros(10 * len(values), np.float32)])
    assert least_squares_amax(_of(padded)) == least_squares_amax(_of(values))
    assert least_divergence_amax(_of(padded)) == least_divergence_amax(_of(values))
    nearly = np.concatenate([values, np.full(10 * len(values), values.max() / 1e5, np.float32)])
    assert least_divergence_amax(_of(nearly)) == least_divergence_amax(_of(values))


@given(st.lists(st.floats(2**-10, 1024, width=32), min_size=2, max_size=60))
def test_linear_bins_keep_every_count_and_the_mean_within_a_bin(values: list[float]) -> None:
    array = np.array(values, np.float32)
    counts = linear_counts(_of(array))
    assert counts.shape == (LINEAR_BINS,)
    assert (counts >= 0).all()
    assert counts.sum() == pytest.approx(len(values))
    width = float(array.max()) / LINEAR_BINS
    mean = float(counts @ (np.arange(LINEAR_BINS) + 0.5)) * width / len(values)
    assert mean == pytest.approx(float(array.astype(np.float64).mean()), rel=1 / 100, abs=width)


@given(st.floats(-20, 20), st.sampled_from(CANDIDATES))
def test_a_range_scales_with_the_values_and_lies_within_them(power: float, method: str) -> None:
    values = DRAWS["laplace"][:4000].astype(np.float32)
    factor = np.float32(2.0 ** round(power))
    amax, scaled = amax_from_histogram(_of(values), method), amax_from_histogram(_of(values * factor), method)
    assert 0 < amax <= np.abs(values).max()
    assert scaled == pytest.approx(amax * factor, rel=1e-9)


@pytest.mark.parametrize("method", CANDIDATES)
def test_only_zeros_have_no_range(method: str) -> None:
    assert amax_from_histogram(_of(np.zeros(9, np.float32)), method) == 0


def test_a_method_has_one_full_name() -> None:
    assert require_method("percentile", 99.999) == "percentile 99.999"
    assert require_method("percentile", 99.0) == "percentile 99"
    assert [require_method(name) for name in ("auto", "minmax", "mse", "entropy")] == [
        "auto",
        "minmax",
        "mse",
        "entropy",
    ]


def test_an_unknown_method_and_a_percentile_outside_its_range_are_refused() -> None:
    with pytest.raises(CalibrationError, match="unknown calibration method 'median'"):
        require_method("median")
    for percentile in (50, 100.001, float("nan")):
        for method in METHODS:
            with pytest.raises(CalibrationError, match="percentile") as caught:
                require_method(method, percentile)
        assert caught.value.found == str(percentile)
    assert [require_method("percentile", value) for value in (50.5, 100)] == ["percentile 50.5", "percentile 100"]


SOME = st.lists(st.floats(2**-10, 1024, width=32), min_size=1, max_size=20)


def _bins(histogram: Histogram) -> list[tuple[float, float, float]]:
    """(lower edge, upper edge or the largest, count) of every bin that holds something but zeros."""
    edges, largest = upper_edges(), histogram.largest
    filled = [int(index) for index in np.flatnonzero(histogram.counts) if index]
    return [(float(edges[i - 1]), min(float(edges[i]), largest), float(histogram.counts[i])) for i in filled]


def _least_squares_by_the_book(histogram: Histogram, levels: int) -> float:
    """Value by value and clip by clip, as the docstring describes it."""
    parts = [
        (low + (high - low) * (part + 0.5) / 4, count) for low, high, count in _bins(histogram) for part in range(4)
    ]

    def error(clip: float) -> float:
        step = clip / levels
        return sum(count * (value - step * min(float(np.rint(value / step)), levels)) ** 2 for value, count in parts)

    coarse = [histogram.largest * 256.0 ** (-i / 24) for i in range(25)]
    best = int(np.argmin([error(clip) for clip in coarse]))
    wide, narrow = coarse[max(best - 1, 0)], coarse[min(best + 1, 24)]
    return min((float(wide * (narrow / wide) ** (i / 24)) for i in range(25)), key=error)


@settings(max_examples=20)
@given(SOME, st.sampled_from([3, LEVELS]))
@example([1.0] * 3, 3)
@example([1.0, 1.5, 2.0, 900.0], 3)
@example([1.01, 1.37, 1.08, 1.65, 1.27], 3)
@example([*np.abs(DRAWS["normal"][:60])] * 50 + [20.0], 3)  # the best clip lies between the ends of the search
@example([300.0] + [1.17, 0.39] * 300_000, 3)  # and here it is the last
def test_the_mse_clip_found_at_once_is_the_one_found_clip_by_clip(values: list[float], levels: int) -> None:
    histogram = _of(np.array([0.0, *values], np.float32))
    expected = _least_squares_by_the_book(histogram, levels)
    assert least_squares_amax(histogram, levels) == pytest.approx(expected, rel=1e-9)


@settings(max_examples=20)
@given(SOME, st.integers(0, 5))
def test_each_count_is_spread_evenly_over_the_linear_bins_that_its_own_covers(values: list[float], zeros: int) -> None:
    histogram = _of(np.array([*values, *[0.0] * zeros], np.float32))
    ends, expected = np.linspace(0, histogram.largest, LINEAR_BINS + 1), np.zeros(LINEAR_BINS)
    for low, high, count in _bins(histogram):
        share = np.clip((ends - low) / (high - low), 0, 1) if high > low else ends >= high  # the largest is its edge
        expected += count * np.diff(share.astype(np.float64))
    assert np.abs(linear_counts(histogram) - expected).max() < 1e-9


def _divergence_by_the_book(counts: NDArray[np.float64], end: int, levels: int) -> float:
    """Bin by bin, as the talk describes it."""
    p, q = counts[:end].copy(), np.zeros(end)
    p[-1] += counts[end:].sum()
    members: dict[int, list[int]] = {}
    for index in range(end):
        if counts[index] > 0:
            members.setdefault(index * levels // end, []).append(index)
    for bins in members.values():
        q[bins] = counts[bins].sum() / len(bins)
    p, q = p / p.sum(), q / max(q.sum(), 1e-300)
    if (q[p > 0] == 0).any():
        return float("inf")
    return float(sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a > 0))


@given(st.lists(st.sampled_from([0, 0, 0.25, 2, 7, 300]), min_size=40, max_size=40), st.sampled_from([4, 8]))
def test_divergences_computed_at_once_are_those_computed_bin_by_bin(bins: list[int], levels: int) -> None:
    counts, ends = np.array([1, *bins], np.float64), np.array([8, 9, 20, 33, 40, 41])
    expected = [_divergence_by_the_book(counts, int(end), levels) for end in ends]
    assert np.allclose(divergences_of_clips(counts, ends, levels), expected, rtol=1e-9, atol=1e-12)


def test_a_clip_in_front_of_everything_diverges_without_end() -> None:
    counts = np.array([0.0] * 10 + [3.0] * 30)
    found = divergences_of_clips(counts, np.array([8, 10, 20]), 4)
    assert found.tolist() == [np.inf, np.inf, pytest.approx(_divergence_by_the_book(counts, 20, 4))]


def test_the_entropy_clip_is_the_least_divergent_of_every_sixteenth_bin() -> None:
    values = DRAWS["laplace"][:3000].astype(np.float32)
    second = float(np.abs(values).max()) * 1.5 / LINEAR_BINS  # its count stands for the zeros
    histogram = _of(np.append(values, [second] * 1000))
    counts = linear_counts(histogram)
    counts[0] = counts[1]
    ends = [*range(LEVELS + 1, LINEAR_BINS, 16), LINEAR_BINS]
    found = [_divergence_by_the_book(counts, end, LEVELS + 1) for end in ends]
    best = max(end for end, divergence in zip(ends, found, strict=True) if divergence <= min(found) * (1 + 1e-12))
    assert least_divergence_amax(histogram) == pytest.approx(histogram.largest * best / LINEAR_BINS, rel=1e-12)
