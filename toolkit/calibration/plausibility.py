"""Do these images look like photographs of something? Noise, constants and copies betray themselves in the pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from toolkit.contracts import Preprocessing, UInt8, sha256_of_each
from toolkit.errors import CalibrationError

# Measured: Fashion-MNIST 0.77 to 0.95, CIFAR-10 0.87 to 0.99 an image; uniform noise 0.00 +- 0.02 over 32x32 pixels.
LEAST_CORRELATION = 0.15
MOST_DUPLICATES = 0.5
MOST_CONSTANT = 0.5
# Of a normalized input over all images. Pixels scaled to 0..1 have a spread of 0.2 to 0.35, and of 0..255 of 50 and up.
LEAST_SPREAD, MOST_SPREAD, FARTHEST_MEAN = 0.4, 3.0, 1.5


@dataclass(frozen=True)
class ImageStatistics:
    """What a set of images is judged by.

    Attributes:
        correlation: of pixels with their right and lower neighbors, the median over images that are not constant.
        constant, duplicates: shares of images, from 0 to 1; of each group of copies all but one count.
    """

    images: int
    correlation: float
    constant: float
    duplicates: float


def statistics_of_images(images_nhwc: UInt8) -> ImageStatistics:
    """Statistics of uint8 (N, H, W, C) images; the correlation is 1.0 where nothing has a neighbor that differs."""
    constant, correlations = 0, []
    for image in images_nhwc:
        values = image.astype(np.float64) - image.mean(axis=(0, 1))
        power = float(np.square(values).mean())
        if power < 1e-9:
            constant += 1
            continue
        products = [(values[:, 1:] * values[:, :-1]).ravel(), (values[1:] * values[:-1]).ravel()]
        pairs = np.concatenate(products)
        if pairs.size:
            correlations.append(float(pairs.mean()) / power)
    count = len(images_nhwc)
    different = len(set(sha256_of_each(images_nhwc)))
    median = float(np.median(correlations)) if correlations else 1.0
    return ImageStatistics(count, median, constant / count, 1 - different / count)


def implausible_images(found: ImageStatistics) -> list[str]:
    """What is wrong with the images, a sentence each; none for usable ones."""
    reasons = []
    if found.constant > MOST_CONSTANT:
        reasons.append(f"{100 * found.constant:.0f} % of the images are of one color")
    if abs(found.correlation) < LEAST_CORRELATION:
        reasons.append(
            f"the pixels are noise: neighbors correlate by {found.correlation:.2f}, in photographs by 0.7 and more"
        )
    if found.duplicates > MOST_DUPLICATES:
        reasons.append(f"{100 * found.duplicates:.0f} % of the images are copies of others")
    return reasons


def implausible_input(images_nhwc: UInt8, preprocessing: Preprocessing) -> list[str]:
    """What is wrong with the mean and spread of (pixel / 255 - mean) / std, of a preprocessing somebody typed in."""
    scale, shift = preprocessing.scale_and_shift()
    values = images_nhwc.reshape(-1, preprocessing.channels)
    means = values.mean(axis=0) * scale + shift
    spreads = values.std(axis=0) * scale
    good = (spreads >= LEAST_SPREAD) & (spreads <= MOST_SPREAD) & (np.abs(means) <= FARTHEST_MEAN)
    if good.all():
        return []
    worst = int(np.argmin(good))
    return [
        f"the network's input is not normalized: channel {worst} has mean {means[worst]:.2f} and spread "
        f"{spreads[worst]:.2f}, normalized ones about 0 and 1 (`mean=`, `std=`)"
    ]


def require_plausible(images_nhwc: UInt8, force: bool, typed: Preprocessing | None = None) -> dict[str, Any]:
    """Refuses images that cannot be like the application's; with `force` returns notes for the record instead.

    Args:
        typed: a preprocessing that comes from the command line and from no card.

    Raises:
        CalibrationError: noise, constant images, mostly copies, or an input that is not normalized.
    """
    reasons = implausible_images(statistics_of_images(images_nhwc))
    reasons += [] if typed is None else implausible_input(images_nhwc, typed)
    if not reasons:
        return {}
    if not force:
        raise CalibrationError(
            "these images would set wrong ranges",
            found="; ".join(reasons),
            allowed="different images like those of the application",
            fix="other `data=`, or `force=True` to insist",
        )
    return {"forced": reasons}
