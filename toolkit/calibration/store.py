"""A record and the histograms it was read from, in one folder: what shards of a calibration are merged from.

`histograms.npz` holds the bins that are not empty, of all tensors one behind the other. For a ResNet-20 that is about
150 KiB instead of 5 MiB.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.calibration.histogram import BINS, Histogram
from toolkit.calibration.ranges import Observation
from toolkit.calibration.record import RECORD, Record, record_from_file
from toolkit.errors import CalibrationError
from toolkit.files import content_of, json_text
from toolkit.folders import folder_replaced
from toolkit.limits import HISTOGRAM_BYTES
from toolkit.npz import arrays_of_npz

HISTOGRAMS = "histograms.npz"
AGAIN = "calibrate again"


def write_record(folder: Path, record: Record, seen: Observation | None = None) -> None:
    """Writes `record.json`, and `histograms.npz` where `seen` is given, together or not at all.

    Raises:
        ToolkitError: the folder belongs to something else, or cannot be written.
    """
    with folder_replaced(folder, owned_by=RECORD) as fresh:
        (fresh / RECORD).write_text(json_text(record.as_dict()))
        if seen is not None:
            (fresh / HISTOGRAMS).write_bytes(bytes_of_observation(seen))


def bytes_of_observation(seen: Observation) -> bytes:
    """The content of `histograms.npz`."""
    counted = {**seen.histograms, **seen.between}
    bins = [np.flatnonzero(histogram.counts) for histogram in counted.values()]
    counts = [histogram.counts[index] for histogram, index in zip(counted.values(), bins, strict=True)]
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        names=np.array(list(counted)),
        between=np.array(len(seen.between), np.int64),  # so many of the last ones
        unsigned=np.array(seen.unsigned, str),
        sizes=np.array([len(index) for index in bins], np.int64),
        bins=np.concatenate([np.zeros(0, np.int64), *bins]).astype(np.uint16),
        counts=np.concatenate([np.zeros(0, np.int64), *counts]),
        largest_names=np.array(list(seen.largest)),
        largest=np.array(list(seen.largest.values()), np.float64),
        belongs_to=np.array(list(seen.belongs_to.items())),
        digests=np.frombuffer(b"".join(seen.digests), np.uint8).reshape(-1, 32),
    )
    return buffer.getvalue()


def observation_from_folder(folder: Path) -> Observation:
    """Reads what `write_record` wrote.

    Raises:
        CalibrationError: no histograms there, cut short, or not those of the record beside them.
    """
    record = record_from_file(folder / RECORD)
    path = folder / HISTOGRAMS
    if not path.is_file():
        raise CalibrationError(
            f"{folder} holds a record and no histograms",
            found=f"no {HISTOGRAMS}",
            fix="toolkit calibrate --keep-histograms",
        )
    content = content_of(path, HISTOGRAM_BYTES, CalibrationError)
    arrays = arrays_of_npz(content, HISTOGRAM_BYTES, CalibrationError, AGAIN)
    try:
        seen = _observation(arrays)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise CalibrationError(f"{path} cannot be read", found=error, fix=AGAIN) from error
    if seen.record_key(record.belongs_to["method"]).key != record.key:
        raise CalibrationError(f"{path} does not belong to the {RECORD} beside it", fix=AGAIN)
    return seen


def _observation(arrays: dict[str, NDArray[Any]]) -> Observation:
    ends = np.cumsum(arrays["sizes"])[:-1]
    bins, counts = np.split(arrays["bins"], ends), np.split(arrays["counts"], ends)
    largest = {str(n): float(v) for n, v in zip(arrays["largest_names"], arrays["largest"], strict=True)}
    histograms = {}
    for name, index, count in zip(arrays["names"], bins, counts, strict=True):
        full = np.zeros(BINS, np.int64)
        full[index] = count
        histograms[str(name)] = Histogram(full, largest[str(name)])
    first = len(histograms) - int(arrays["between"])
    belongs_to = {str(key): str(value) for key, value in arrays["belongs_to"]}
    return Observation(
        dict(list(histograms.items())[:first]),
        dict(list(histograms.items())[first:]),
        tuple(str(name) for name in arrays["unsigned"]),
        largest,
        belongs_to,
        tuple(row.tobytes() for row in arrays["digests"]),
    )


def method_of_folder(folder: Path) -> str:
    """The full name of the method that a folder's record holds."""
    return record_from_file(folder / RECORD).belongs_to["method"]
