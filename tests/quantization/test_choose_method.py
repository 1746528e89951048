"""Claims about auto: it judges on images that set no range, ranks by parity, and order changes nothing."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from toolkit.calibration.methods import CANDIDATES
from toolkit.calibration.ranges import Observation, ranges_from_images
from toolkit.compare.parity import parity_without_labels
from toolkit.contracts import Float32, LabeledImages, Preprocessing, UInt8, sha256_of_each
from toolkit.quantization import choose_method as auto
from toolkit.quantization.choose_method import ranges_by_parity
from toolkit.quantization.held_out import held_out, logits_of
from toolkit.runtime.ort.runner import OrtRunner


@pytest.fixture(name="images")
def _images(structured_images: LabeledImages) -> UInt8:
    return structured_images.images_nhwc


def test_every_method_is_tried_and_the_nearest_wins(
    tiny_graph: onnx.ModelProto, images: UInt8, tiny_preprocessing: Preprocessing
) -> None:
    choice = ranges_by_parity(tiny_graph, images, tiny_preprocessing)
    assert {candidate.method for candidate in choice.candidates} == set(CANDIDATES)
    orders = [candidate.parity.order for candidate in choice.candidates if candidate.parity is not None]
    assert orders == sorted(orders)
    assert 0 < orders[0][0] < orders[-1][0]
    winner = choice.candidates[0].method
    assert choice.why.startswith(winner)
    assert choice.record.belongs_to["method"] == winner
    assert choice.record.notes["chosen_by"] == "auto"


def test_the_winners_ranges_are_those_of_all_images_in_one_pass(
    tiny_graph: onnx.ModelProto, images: UInt8, tiny_preprocessing: Preprocessing
) -> None:
    record = ranges_by_parity(tiny_graph, images, tiny_preprocessing).record
    method, _, percent = record.belongs_to["method"].partition(" ")
    alone = ranges_from_images(
        tiny_graph, images, tiny_preprocessing, method=method, percentile=float(percent or 99.99)
    )
    assert (record.amax, record.largest, record.key) == (alone.amax, alone.largest, alone.key)


@pytest.mark.slow
@pytest.mark.parametrize("by_place", [False, True])
def test_any_order_of_the_images_gives_the_same_choice(
    tiny_graph: onnx.ModelProto,
    images: UInt8,
    tiny_preprocessing: Preprocessing,
    by_place: bool,
    request: pytest.FixtureRequest,
) -> None:
    if by_place:
        request.getfixturevalue("rounds_by_place")
    images = np.concatenate([images, images[:5]])  # some twice
    orders = np.random.default_rng(0).permutation(len(images)), np.arange(len(images))[::-1]
    wanted = ranges_by_parity(tiny_graph, images, tiny_preprocessing).record.as_dict()
    for order in orders:
        assert ranges_by_parity(tiny_graph, images[order], tiny_preprocessing).record.as_dict() == wanted


@pytest.mark.usefixtures("rounds_by_place")
def test_an_images_logits_are_the_same_bits_wherever_it_stands(tiny_graph: onnx.ModelProto, images: UInt8) -> None:
    with OrtRunner(tiny_graph.SerializeToString()) as runner:
        assert not np.array_equal(runner.logits(images[::-1])[::-1], runner.logits(images))
    order = np.random.default_rng(0).permutation(len(images))
    assert np.array_equal(logits_of(tiny_graph, images[order]), logits_of(tiny_graph, images)[order])


def test_images_that_judge_set_no_range_of_a_candidate(
    tiny_graph: onnx.ModelProto, images: UInt8, tiny_preprocessing: Preprocessing, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets: list[tuple[set[bytes], set[bytes]]] = []
    of_candidates = auto._judged

    def watched(model: onnx.ModelProto, seen: Observation, held: UInt8, step: auto.Step) -> object:
        sets.append((set(seen.digests), set(sha256_of_each(held))))
        return of_candidates(model, seen, held, step)

    monkeypatch.setattr(auto, "_judged", watched)
    ranges_by_parity(tiny_graph, np.concatenate([images, images[:20]]), tiny_preprocessing)
    ((measured, judged),) = sets
    assert not measured & judged
    assert len(judged) == 15
    assert measured | judged == set(sha256_of_each(images))


def test_a_named_method_is_taken_without_judging(
    tiny_graph: onnx.ModelProto, images: UInt8, tiny_preprocessing: Preprocessing
) -> None:
    choice = ranges_by_parity(tiny_graph, images, tiny_preprocessing, method="mse")
    assert choice.candidates == ()
    assert choice.why == ""
    assert choice.record == ranges_from_images(tiny_graph, images, tiny_preprocessing, method="mse")


def test_with_few_images_auto_says_that_it_did_not_judge(
    tiny_graph: onnx.ModelProto, images: UInt8, tiny_preprocessing: Preprocessing
) -> None:
    choice = ranges_by_parity(tiny_graph, images[:31], tiny_preprocessing)
    assert choice.candidates == ()
    assert choice.record.belongs_to["method"] == "percentile 99.99"
    assert "32 different images are needed" in choice.record.notes["why"]
    assert ranges_by_parity(tiny_graph, images[:32], tiny_preprocessing).candidates


def test_a_quarter_is_held_out_256_at_most_and_copies_stay_together() -> None:
    images = np.random.default_rng(0).integers(0, 256, (1200, 2, 2, 1), dtype=np.uint8)
    assert held_out(images).sum() == 256
    assert held_out(images[:400]).sum() == 100
    twice = held_out(np.concatenate([images[:400], images[:400]]))
    assert np.array_equal(twice[:400], twice[400:])
    assert np.array_equal(twice[:400], held_out(images[:400]))


@given(
    npst.arrays(np.float32, (2, 12, 3), elements=st.floats(-(2.0**60), 2.0**60, width=32)),
    st.permutations(range(12)),
)
def test_parity_is_the_same_bits_for_any_order_of_the_rows(logits: Float32, order: list[int]) -> None:
    assert parity_without_labels(*logits[:, order]) == parity_without_labels(*logits)


def test_parity_counts_flips_and_distance() -> None:
    expected = np.array([[3.0, 0], [0, 4]], np.float32)
    assert parity_without_labels(expected, expected).order == (0, 0)
    found = parity_without_labels(expected, np.array([[0.0, 3], [0, 4]], np.float32))
    assert (found.flips, found.images, found.percent) == (1, 2, 50)
    assert found.relative_l2 == pytest.approx(np.sqrt(18) / 5)
    broken = parity_without_labels(expected, np.full((2, 2), np.nan, np.float32))
    assert (broken.relative_l2, broken.flips) == (float("inf"), 2)
