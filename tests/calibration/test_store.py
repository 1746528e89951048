"""Claims about stored histograms: shards merged are the whole, bit for bit; foreign and broken ones are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from toolkit.calibration.methods import CANDIDATES
from toolkit.calibration.ranges import Observation, observation_from_images, record_from_observation
from toolkit.calibration.record import RECORD, record_from_file
from toolkit.calibration.store import HISTOGRAMS, observation_from_folder, write_record
from toolkit.contracts import LabeledImages, Preprocessing, UInt8
from toolkit.errors import CalibrationError


@pytest.fixture(name="images")
def _images(structured_images: LabeledImages) -> UInt8:
    return structured_images.images_nhwc


def _stored(folder: Path, seen: Observation) -> Path:
    write_record(folder, record_from_observation(seen, "minmax"), seen)
    return folder


@pytest.mark.parametrize("cut", [8, 21, 48])
def test_shards_calibrated_apart_merge_into_the_record_of_one_pass(
    tiny_graph: onnx.ModelProto, images: UInt8, tiny_preprocessing: Preprocessing, tmp_path: Path, cut: int
) -> None:
    parts = [
        observation_from_folder(_stored(tmp_path / name, observation_from_images(tiny_graph, part, tiny_preprocessing)))
        for name, part in (("a", images[:cut]), ("b", images[cut:]))
    ]
    whole = observation_from_images(tiny_graph, images, tiny_preprocessing)
    for method in CANDIDATES:
        expected = record_from_observation(whole, method).as_dict()
        assert record_from_observation(parts[0].merged(parts[1]), method).as_dict() == expected
        assert record_from_observation(parts[1].merged(parts[0]), method).as_dict() == expected


def test_histograms_are_read_back_to_the_last_bit_and_are_small(
    tiny_graph: onnx.ModelProto, images: UInt8, tiny_preprocessing: Preprocessing, tmp_path: Path
) -> None:
    seen = observation_from_images(tiny_graph, images, tiny_preprocessing)
    read = observation_from_folder(_stored(tmp_path / "a", seen))
    assert (read.largest, read.belongs_to, read.digests) == (seen.largest, seen.belongs_to, seen.digests)
    for name, histogram in seen.histograms.items():
        assert np.array_equal(histogram.counts, read.histograms[name].counts)
        assert histogram.largest == read.histograms[name].largest
    assert (tmp_path / "a" / HISTOGRAMS).stat().st_size < 20_000 * len(seen.histograms)


def test_shards_of_different_networks_do_not_merge(
    tiny_graph: onnx.ModelProto, images: UInt8, tiny_preprocessing: Preprocessing
) -> None:
    seen = observation_from_images(tiny_graph, images, tiny_preprocessing)
    other = replace(seen, belongs_to=seen.belongs_to | {"graph_sha256": "0"})
    with pytest.raises(CalibrationError, match="stale") as caught:
        seen.merged(other)
    assert "the network" in str(caught.value.found)


def test_histograms_that_are_missing_cut_short_or_of_another_record_are_refused(
    tiny_graph: onnx.ModelProto, images: UInt8, tiny_preprocessing: Preprocessing, tmp_path: Path
) -> None:
    seen = observation_from_images(tiny_graph, images, tiny_preprocessing)
    folder = _stored(tmp_path / "a", seen)
    other = _stored(tmp_path / "b", observation_from_images(tiny_graph, images[:30], tiny_preprocessing))
    whole = (folder / HISTOGRAMS).read_bytes()
    for content, words in (
        (whole[:-30], "cannot be read"),
        (b"", "cannot be read"),
        ((other / HISTOGRAMS).read_bytes(), "does not belong"),
    ):
        (folder / HISTOGRAMS).write_bytes(content)
        with pytest.raises(CalibrationError, match=words):
            observation_from_folder(folder)
    (folder / HISTOGRAMS).unlink()
    with pytest.raises(CalibrationError, match="no histograms") as caught:
        observation_from_folder(folder)
    assert "--keep-histograms" in str(caught.value.fix)


def test_without_being_asked_only_the_record_is_written(
    tiny_graph: onnx.ModelProto, images: UInt8, tiny_preprocessing: Preprocessing, tmp_path: Path
) -> None:
    record = record_from_observation(observation_from_images(tiny_graph, images, tiny_preprocessing), "mse", {"a": 1})
    write_record(tmp_path / "r", record)
    assert [path.name for path in (tmp_path / "r").iterdir()] == [RECORD]
    assert record_from_file(tmp_path / "r" / RECORD) == record
