"""Ranges of activations from real images: one pass, constant memory, the same bits for any order of the images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from toolkit import __version__
from toolkit.calibration.histogram import Histogram
from toolkit.calibration.placement import float_activations, placement_in_graph
from toolkit.calibration.record import (
    Record,
    sha256_of_graph,
    sha256_of_image_set,
    sha256_of_preprocessing,
    short_hashes,
)
from toolkit.contracts import Preprocessing, UInt8, require_images, sha256_of_each
from toolkit.errors import CalibrationError
from toolkit.lazy import needs
from toolkit.runtime.ort import OrtRunner

if TYPE_CHECKING:
    import onnx

# Images in one call of the engine. It is fixed, because an engine may add up in another order for another batch.
BATCH = 16
FEWEST = 8
METHODS = ("percentile", "minmax")
PERCENTILE = 99.99


def require_method(method: str, percentile: float) -> str:
    """The method's full name, such as "percentile 99.99"; refuses unknown ones."""
    if method not in METHODS:
        raise CalibrationError(f"unknown calibration method '{method}'", allowed=", ".join(METHODS))
    if not 50 < percentile <= 100:
        raise CalibrationError("--percentile out of range", found=percentile, allowed="above 50, up to 100")
    return f"percentile {percentile:g}" if method == "percentile" else method


def ranges_from_images(
    model: onnx.ModelProto,
    images_nhwc: UInt8,
    preprocessing: Preprocessing,
    *,
    method: str = "percentile",
    percentile: float = PERCENTILE,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Record:
    """Runs the fp32 graph over the images and measures every tensor that will be quantised.

    Args:
        model: the fp32 graph with preprocessing inside.
        images_nhwc: uint8 (N, H, W, C); their order does not matter.
        method: "percentile" clips the rarest magnitudes, "minmax" clips nothing.

    Raises:
        CalibrationError: too few images, an unknown method, NaN in an activation, or a tensor that is always zero.
        DataError: images of another shape than the model's.
    """
    name = require_method(method, percentile)
    require_images(images_nhwc, preprocessing, "calibration")
    if len(images_nhwc) < FEWEST:
        raise CalibrationError(
            "too few images to calibrate", found=len(images_nhwc), allowed=f"at least {FEWEST}; 512 is usual"
        )
    histograms, largest = _observe(model, images_nhwc, on_progress)
    amax = {}
    for tensor, histogram in histograms.items():
        histogram.require_finite(tensor)
        amax[tensor] = histogram.percentile(percentile) if method == "percentile" else histogram.minmax()
        if amax[tensor] <= 0:
            raise _no_range(tensor, name, histogram, len(images_nhwc))
    _require_all_finite(largest)
    belongs_to = {
        "graph_sha256": sha256_of_graph(model),
        "images_sha256": sha256_of_image_set(images_nhwc),
        "preprocessing_sha256": sha256_of_preprocessing(preprocessing.as_dict()),
        "method": name,
        "tool": __version__,
    }
    return Record(amax, largest, belongs_to, short_hashes(images_nhwc))


def _no_range(tensor: str, method: str, histogram: Histogram, images: int) -> CalibrationError:
    """An activation that is zero everywhere, or nearly: what to do differs."""
    if histogram.largest > 0:
        return CalibrationError(
            f"activation '{tensor}' has a {method} of zero, so all of it would be clipped away",
            found=f"largest {histogram.largest:.4g} on {images} images",
            fix="a higher --percentile, or --method minmax",
        )
    return CalibrationError(
        f"activation '{tensor}' is zero on {images} images, so it has no range",
        fix="calibrate with images like those of the application; check the weights",
    )


def _require_all_finite(largest: dict[str, float]) -> None:
    """The tensors that are not quantised, such as the logits, must be numbers too."""
    for tensor, value in largest.items():
        if not math.isfinite(value):
            raise CalibrationError(
                f"activation '{tensor}' holds NaN or infinity on the calibration images",
                fix="check the weights and the images",
            )


def _observe(
    model: onnx.ModelProto, images_nhwc: UInt8, on_progress: Callable[[int, int], None]
) -> tuple[dict[str, Histogram], dict[str, float]]:
    """Histograms of the tensors to quantise, and the largest |x| of every float activation."""
    activations = float_activations(model)
    histograms = {name: Histogram() for name in placement_in_graph(model).consumers}
    largest = dict.fromkeys(activations, 0.0)
    with OrtRunner(_exposed(model, activations), label="the graph with its activations exposed") as runner:
        for batch, count, done in _canonical_batches(images_nhwc):
            for name, values in runner.tensors(batch).items():
                if name in histograms:
                    histograms[name].add(values[:count])
                    largest[name] = histograms[name].largest
                else:
                    # numpy's maximum, because Python's drops NaN. The images that fill up a batch change no maximum,
                    # and not every tensor has the batch first.
                    largest[name] = float(np.maximum(largest[name], np.maximum(values.max(), -values.min())))
            on_progress(done, len(images_nhwc))
    return histograms, largest


def _canonical_batches(images_nhwc: UInt8) -> Iterator[tuple[UInt8, int, int]]:
    """(batch, images in it that count, images done): ordered by content, the tail filled up to a whole batch."""
    order = sorted(range(len(images_nhwc)), key=sha256_of_each(images_nhwc).__getitem__)
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        yield images_nhwc[np.resize(rows, BATCH)], len(rows), start + len(rows)


def _exposed(model: onnx.ModelProto, tensors: list[str]) -> bytes:
    """The graph with `tensors` as its outputs."""
    with needs("measure ranges"):
        import onnx
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    data: bytes = copy.SerializeToString()
    return data
