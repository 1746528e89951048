"""Draws, splits and overlaps go by what an image shows, not by where it lies."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from toolkit.contracts import LabeledImages, sha256_of_each
from toolkit.data import require_disjoint, sample, without_shared
from toolkit.data.subsets import split
from toolkit.errors import DataError


def labeled(contents: list[int], labels: list[int], source: str = "set") -> LabeledImages:
    """Images 2x2x1 that show a number each: equal numbers are duplicates."""
    values = np.array(contents, np.uint32)
    images = np.ascontiguousarray(values).view(np.uint8).reshape(-1, 2, 2, 1)
    return LabeledImages(images, np.array(labels, np.int64), ("a", "b", "c"), source)


def contents(images: LabeledImages) -> list[int]:
    return [int(value) for value in np.ascontiguousarray(images.images_nhwc).reshape(-1, 4).view(np.uint32)[:, 0]]


sets = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2)), min_size=1, max_size=60).map(
    lambda rows: labeled([row[0] for row in rows], [row[1] for row in rows])
)
seeds = st.integers(-(2**63), 2**63)


@given(sets, seeds, st.data())
@settings(deadline=None)
def test_a_sample_is_deterministic_free_of_duplicates_and_a_prefix_of_a_larger_one(
    images: LabeledImages, seed: int, data: st.DataObject
) -> None:
    available = len(set(contents(images)))
    count = data.draw(st.integers(1, available))
    drawn = sample(images, count, seed)
    assert drawn.sha256 == sample(images, count, seed).sha256
    assert len(set(sha256_of_each(drawn.images_nhwc))) == len(drawn) == count
    assert contents(sample(images, available, seed))[:count] == contents(drawn)


@given(sets, seeds)
@settings(deadline=None)
def test_a_sample_is_as_balanced_as_the_set_allows(images: LabeledImages, seed: int) -> None:
    available = len(set(contents(images)))
    everything = Counter(sample(images, available, seed).labels.tolist())
    for count in range(1, available + 1):
        drawn = Counter(sample(images, count, seed).labels.tolist())
        # a class may lag the fullest one by more than one image only where it has no more to give
        assert all(max(drawn.values()) - drawn[c] <= 1 or drawn[c] == everything[c] for c in everything)


def test_another_seed_draws_other_images() -> None:
    images = labeled(list(range(60)), [i % 3 for i in range(60)])
    assert set(contents(sample(images, 15, 0))) != set(contents(sample(images, 15, 1)))


@pytest.mark.parametrize("count", [0, -1, 4])
def test_more_images_than_there_are_different_ones_are_refused(count: int) -> None:
    with pytest.raises(DataError, match="5 images, 3 of them different") as caught:
        sample(labeled([1, 1, 2, 2, 3], [0, 0, 1, 1, 2]), count, 0)
    assert caught.value.allowed == "1 to 3"


@given(sets, seeds)
@settings(deadline=None)
def test_a_split_keeps_duplicates_on_one_side_and_loses_nothing(images: LabeledImages, seed: int) -> None:
    labels_of: dict[int, set[int]] = {}
    for content, label in zip(contents(images), images.labels.tolist(), strict=True):
        labels_of.setdefault(content, set()).add(label)
    unmistaken = Counter(next(iter(labels)) for labels in labels_of.values() if len(labels) == 1)
    assume(any(count > 1 for count in unmistaken.values()))
    train, test = split(images, seed)
    assert not set(contents(train)) & set(contents(test))
    assert sorted(contents(train) + contents(test)) == sorted(contents(images))
    assert set(train.labels.tolist()) == set(images.labels.tolist())


def test_nothing_to_split_is_refused() -> None:
    with pytest.raises(DataError, match="too few images to split"):
        split(labeled([1, 1, 2, 3, 3], [0, 0, 1, 2, 0]), 0)


@given(st.permutations(list(range(40))), seeds)
@settings(deadline=None)
def test_a_split_does_not_depend_on_the_order_of_images(order: list[int], seed: int) -> None:
    images = labeled(list(range(40)), [i % 2 for i in range(40)])
    _, test = split(images, seed)
    _, shuffled = split(images.take(np.array(order)), seed)
    assert set(contents(test)) == set(contents(shuffled))
    assert Counter(test.labels.tolist()) == {0: 4, 1: 4}


def test_an_overlap_is_refused_with_its_number_and_places() -> None:
    calibration, evaluation = labeled([1, 2, 3], [0, 1, 2], "cal"), labeled([9, 3, 8, 1], [0, 1, 2, 0], "eval")
    with pytest.raises(DataError, match=r"2 of 4 evaluation images .* at evaluation index 1, 3"):
        require_disjoint(calibration, evaluation)
    require_disjoint(calibration, labeled([4, 5], [0, 1]))


def test_many_shared_images_are_counted_and_the_first_named() -> None:
    images = labeled(list(range(50)), [0] * 50)
    with pytest.raises(DataError, match=r"50 of 50 .* index 0, 1, 2, 3, 4, \.\.\."):
        require_disjoint(images, images)


@given(sets, sets)
@settings(deadline=None)
def test_what_is_left_without_shared_images_is_disjoint(images: LabeledImages, other: LabeledImages) -> None:
    if set(contents(images)) <= set(contents(other)):
        with pytest.raises(DataError, match="no image is left"):
            without_shared(images, other)
    else:
        left = without_shared(images, other)
        require_disjoint(other, left)
        assert contents(left) == [content for content in contents(images) if content not in contents(other)]
