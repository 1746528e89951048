"""Ranges of activations from real images: one pass, constant memory, the same bits for any order of the images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.calibration.histogram import Histogram
from toolkit.calibration.methods import AUTO, LEVELS, PERCENTILE, UNSIGNED_LEVELS, amax_from_histogram, require_method
from toolkit.calibration.record import (
    OBSERVER_VERSION,
    Record,
    sha256_of_digests,
    sha256_of_graph,
    sha256_of_preprocessing,
)
from toolkit.contracts import Float32, Preprocessing, UInt8, order_by_content, require_images, sha256_of_each
from toolkit.errors import CalibrationError
from toolkit.graph.cpu_placement import cpu_placement
from toolkit.graph.qdq_placement import float_activations, layers_in_graph, placement_in_graph
from toolkit.runtime.ort.runner import OrtRunner

if TYPE_CHECKING:
    import onnx

# Images in one call of the engine. It is fixed, because an engine may add up in another order for another batch.
BATCH = 16
FEWEST = 8
COUNTED = 8192  # values of a tensor that are counted, an image, at most
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Observation:
    """Everything that one pass over a set of images measured: enough for every method, and exact to merge.

    Attributes:
        histograms: of the tensors that TensorRT's form quantizes, by name.
        between: of those that only the form for ONNX Runtime's CPU kernels quantizes.
        unsigned: names of the tensors that are never negative, and that form holds in 0..255.
        largest: the exact largest |x| of every float activation, by name.
        belongs_to: what a record's key holds, except the images and the method.
        digests: the sha256 of each image, 32 bytes each, sorted.
    """

    histograms: dict[str, Histogram]
    between: dict[str, Histogram]
    unsigned: tuple[str, ...]
    largest: dict[str, float]
    belongs_to: dict[str, str]
    digests: tuple[bytes, ...]

    def merged(self, other: Observation) -> Observation:
        """What one pass over both sets would have measured, bit for bit.

        Raises:
            CalibrationError: the two were measured on another network or with another preprocessing or version.
        """
        self.record_key("").require_belongs_to(other.belongs_to)
        # numpy's maximum, because Python's drops NaN.
        return Observation(
            {name: histogram.merged(other.histograms[name]) for name, histogram in self.histograms.items()},
            {name: histogram.merged(other.between[name]) for name, histogram in self.between.items()},
            self.unsigned,
            {name: float(np.maximum(value, other.largest[name])) for name, value in self.largest.items()},
            self.belongs_to,
            tuple(sorted((*self.digests, *other.digests))),
        )

    def record_key(self, method: str) -> Record:
        """A record without ranges: only what it would belong to."""
        belongs_to = {**self.belongs_to, "images_sha256": sha256_of_digests(self.digests), "method": method}
        return Record({}, {}, belongs_to, tuple(digest.hex()[:16] for digest in self.digests))


def observation_from_images(
    model: onnx.ModelProto,
    images_nhwc: UInt8,
    preprocessing: Preprocessing,
    on_progress: Progress = lambda done, total: None,
) -> Observation:
    """Runs the fp32 graph once over the images and counts every tensor that will be quantized.

    Args:
        model: the fp32 graph with preprocessing inside.
        images_nhwc: uint8 (N, H, W, C); their order does not matter.

    Raises:
        CalibrationError: NaN or infinity in an activation.
        DataError: images of another shape than the model's.
    """
    require_images(images_nhwc, preprocessing, "calibration")
    placement, on_cpu = placement_in_graph(model).consumers, _on_cpu(model)
    counted, largest = _observe(model, {*placement, *on_cpu}, images_nhwc, on_progress)
    for tensor, histogram in counted.items():
        histogram.require_finite(tensor)
    _require_all_finite(largest)
    belongs_to = {
        "graph_sha256": sha256_of_graph(model),
        "preprocessing_sha256": sha256_of_preprocessing(preprocessing.as_dict()),
        "tool": OBSERVER_VERSION,
    }
    return Observation(
        {name: counted[name] for name in placement},
        {name: counted[name] for name in on_cpu if name not in placement},
        tuple(name for name, unsigned in on_cpu.items() if unsigned),
        largest,
        belongs_to,
        tuple(sorted(sha256_of_each(images_nhwc))),
    )


def require_complete(record: Record, model: onnx.ModelProto) -> None:
    """Refuses a record that lacks the range of a tensor that some form of the graph quantizes.

    Raises:
        CalibrationError: names the first one.
    """
    lacking = [name for name in placement_in_graph(model).consumers if name not in record.amax]
    lacking += [name for name in _on_cpu(model) if name not in {**record.largest, **record.amax, **record.cpu}]
    lacking += [name for name in float_activations(model) if name not in record.largest]
    lacking = list(dict.fromkeys(lacking))
    if lacking:
        raise CalibrationError(
            "the calibration record is not complete",
            found=f"no range of '{lacking[0]}'" + f" and {len(lacking) - 1} others" * (len(lacking) > 1),
            fix="`toolkit.calibrate` measures again",
        )


def _on_cpu(model: onnx.ModelProto) -> dict[str, bool]:
    return cpu_placement(model, frozenset(layers_in_graph(model))).unsigned


def record_from_observation(seen: Observation, method: str, notes: dict[str, Any] | None = None) -> Record:
    """The ranges that a method, by its full name, takes from what was measured.

    Raises:
        CalibrationError: a tensor has no range.
    """
    amax = {}
    for tensor, histogram in seen.histograms.items():
        amax[tensor] = amax_from_histogram(histogram, method)
        if amax[tensor] <= 0:
            raise _no_range(tensor, method, histogram, len(seen.digests))
    key = seen.record_key(method)
    return Record(amax, seen.largest, key.belongs_to, key.images, notes or {}, ranges_on_cpu(seen, method))


def ranges_on_cpu(seen: Observation, method: str) -> dict[str, float]:
    """What `Record.cpu` holds: by a method's full name, for 255 levels where nothing is negative.

    A tensor of zeros has no range here, and that is no error.
    """
    counted = {**seen.histograms, **seen.between}
    levels = {**dict.fromkeys(seen.between, LEVELS), **dict.fromkeys(seen.unsigned, UNSIGNED_LEVELS)}
    ranges = {name: amax_from_histogram(counted[name], method, count) for name, count in levels.items()}
    return {name: amax for name, amax in ranges.items() if amax > 0}


def require_enough(images: int) -> None:
    """Refuses a handful of images."""
    if images < FEWEST:
        raise CalibrationError("too few images to calibrate", found=images, allowed=f"at least {FEWEST}; 512 is usual")


def ranges_from_images(
    model: onnx.ModelProto,
    images_nhwc: UInt8,
    preprocessing: Preprocessing,
    *,
    method: str = "percentile",
    percentile: float = PERCENTILE,
    on_progress: Progress = lambda done, total: None,
) -> Record:
    """One pass and one method; `toolkit.quantization.choose_method` tries them all on the same pass.

    Args:
        model: the fp32 graph with preprocessing inside.
        images_nhwc: uint8 (N, H, W, C); their order does not matter.
        method: "minmax" clips nothing, "percentile" the rarest magnitudes, "mse" and "entropy" choose a clip.

    Raises:
        CalibrationError: too few images, an unknown method, NaN in an activation, or a tensor that is always zero.
        DataError: images of another shape than the model's.
    """
    name = require_method(method, percentile)
    if name == AUTO:
        raise ValueError("auto is toolkit.quantization.choose_method.ranges_by_parity")
    require_enough(len(images_nhwc))
    return record_from_observation(observation_from_images(model, images_nhwc, preprocessing, on_progress), name)


def _no_range(tensor: str, method: str, histogram: Histogram, images: int) -> CalibrationError:
    """An activation that is zero everywhere, or nearly: what to do differs."""
    if histogram.largest > 0:
        return CalibrationError(
            f"activation '{tensor}' has a {method} of zero, so all of it would be clipped away",
            found=f"largest {histogram.largest:.4g} on {images} images",
            fix="a higher `percentile=`, or `method='minmax'`",
        )
    return CalibrationError(
        f"activation '{tensor}' is zero on {images} images, so it has no range",
        fix="calibrate with images like those of the application; check the weights",
    )


def _require_all_finite(largest: dict[str, float]) -> None:
    """The tensors that are not quantized, such as the logits, must be numbers too."""
    for tensor, value in largest.items():
        if not math.isfinite(value):
            raise CalibrationError(
                f"activation '{tensor}' holds NaN or infinity on the calibration images",
                fix="check the weights and the images",
            )


def _observe(
    model: onnx.ModelProto, counted: set[str], images_nhwc: UInt8, on_progress: Progress
) -> tuple[dict[str, Histogram], dict[str, float]]:
    """Histograms of the tensors `counted`, and the largest |x| of those and of every float activation."""
    activations = list(dict.fromkeys((*float_activations(model), *sorted(counted))))
    histograms = {name: Histogram() for name in counted}
    largest = dict.fromkeys(activations, 0.0)
    with OrtRunner(_exposed(model, activations), label="the graph with its activations exposed") as runner:
        for tensors, count, done in _one_ahead(runner, _canonical_batches(images_nhwc)):
            for name, values in tensors.items():
                if name in histograms:
                    histograms[name].add(values[:count], step_of_counting(math.prod(values.shape[1:])))
                    largest[name] = histograms[name].largest
                else:
                    # numpy's maximum, because Python's drops NaN. The images that fill up a batch change no maximum,
                    # and not every tensor has the batch first.
                    largest[name] = float(np.maximum(largest[name], np.maximum(values.max(), -values.min())))
            on_progress(done, len(images_nhwc))
    return histograms, largest


def step_of_counting(size: int) -> int:
    """Of a tensor with `size` values an image every how many-th is counted: 1 up to `COUNTED`, then odd numbers.

    Neighbors in an activation are much alike, and 512 images of 8,192 values are four million. An odd step visits
    every row and column of maps whose sides are powers of two.
    """
    step = -(-size // COUNTED)
    return step + 1 - step % 2


def _one_ahead(
    runner: OrtRunner, batches: Iterator[tuple[UInt8, int, int]]
) -> Iterator[tuple[dict[str, Float32], int, int]]:
    """Each batch's tensors while the engine, which needs no interpreter lock, computes those of the next."""
    with ThreadPoolExecutor(1) as pool:
        waiting = None
        for batch, count, done in batches:
            following = pool.submit(runner.tensors, batch), count, done
            if waiting is not None:
                yield waiting[0].result(), *waiting[1:]
            waiting = following
        if waiting is not None:
            yield waiting[0].result(), *waiting[1:]


def _canonical_batches(images_nhwc: UInt8) -> Iterator[tuple[UInt8, int, int]]:
    """(batch, images in it that count, images done): ordered by content, the tail filled up to a whole batch."""
    order = order_by_content(images_nhwc)
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        yield images_nhwc[np.resize(rows, BATCH)], len(rows), start + len(rows)


def _exposed(model: onnx.ModelProto, tensors: list[str]) -> bytes:
    """The graph with `tensors` as its outputs."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    data: bytes = copy.SerializeToString()
    return data
