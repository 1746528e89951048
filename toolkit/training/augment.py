"""Random crop and mirror, drawn for a whole batch even where a process sees a part of it; and when not to mirror.

A mirrored image still shows its class where that is a shirt or a ship, not where it is a digit, a letter or an arrow.
"""

from __future__ import annotations

import re

import numpy as np
import torch
from torch import Tensor, nn

from toolkit.contracts import Float32, Int64, LabeledImages, UInt8

SIDES = re.compile(r"(?<![A-Za-z])(?i:left|right)(?![a-z])|(?<=[a-z])(?:Left|Right)(?![a-z])")  # turn_left, turnLeft
SIGNS = 0.5  # of the classes are a digit or a letter: a set of signs
SIDE = 16  # pixels of a side, to which images are thinned before they are compared
MOST = 200  # images of a class that are looked at
FEWEST = 8


def augment(
    images: Tensor,
    crop: int,
    flip: bool,
    generator: torch.Generator,
    *,
    part: slice = slice(None),
    of: int | None = None,
) -> Tensor:
    """Random crop with zero padding and mirror, on the device: uint8 (N, H, W, C) to the same.

    Args:
        part: which images of a larger batch these are.
        of: how many images that batch has. The draws are the whole batch's, so that several processes see the same
            augmented images as one.
    """
    n, height, width, _ = images.shape
    device = images.device

    def draw(high: int) -> Tensor:
        return torch.randint(high, (of or n, 1), generator=generator)[part].to(device, non_blocking=True)

    rows = torch.arange(height, device=device)[None] + draw(2 * crop + 1)
    columns = torch.arange(width, device=device)[None].expand(n, width)
    if flip:
        columns = torch.where(draw(2) == 1, columns.flip(1), columns)
    columns = columns + draw(2 * crop + 1)
    padded = nn.functional.pad(images, (0, 0, crop, crop, crop, crop))
    return padded[torch.arange(n, device=device)[:, None, None], rows[:, :, None], columns[:, None, :]]


def why_not_mirrored(images: LabeledImages) -> str:
    """Why mirroring would teach something wrong, in a sentence; "" where nothing says so.

    By the names of the classes, and by the images: where most mirrored images of one class are nearest to the mean
    image of another one and the other way round, while the images as they are are not.
    """
    signs = [name for name in images.classes if re.fullmatch(r"\d+|[A-Za-z]", name.strip())]
    if len(signs) > SIGNS * len(images.classes):
        return f"classes are called {', '.join(signs[:3])}, and a mirrored sign is another one"
    sided = [name for name in images.classes if SIDES.search(name)]
    if sided:
        return f"'{sided[0]}' would become its mirror image"
    return _by_images(images)


def _by_images(images: LabeledImages) -> str:
    rows = [np.flatnonzero(images.labels == label)[:MOST] for label in range(len(images.classes))]
    enough = [label for label, found in enumerate(rows) if len(found) >= FEWEST]
    if len(enough) < 2:
        return ""
    small = {label: _thinned(images.images_nhwc[rows[label]]) for label in enough}
    means = np.stack([small[label].mean(axis=0) for label in enough])
    becomes = [_mostly(_nearest(small[label][:, :, ::-1], means)) for label in enough]
    stays = [_mostly(_nearest(small[label], means)) for label in enough]
    for one, other in enumerate(becomes):
        # Of a pair of arrows each becomes the other; a class that only lies near to another one does not.
        if other not in (None, one) and becomes[other] == one and stays[one] == one and stays[other] == other:
            a, b = (images.classes[enough[index]] for index in (one, other))
            return f"mirrored, most images of '{a}' look like '{b}'"
    return ""


def _mostly(answers: Int64) -> int | None:
    """What more than half of the answers are."""
    counts = np.bincount(answers)
    return int(counts.argmax()) if 2 * counts.max() > len(answers) else None


def _thinned(images_nhwc: UInt8) -> Float32:
    """Gray float32 (N, SIDE, SIDE), or smaller, of every so many pixels."""
    step_y, step_x = (max(1, size // SIDE) for size in images_nhwc.shape[1:3])
    thinned: Float32 = images_nhwc[:, ::step_y, ::step_x].mean(axis=3, dtype=np.float32)
    return thinned


def _nearest(images: Float32, means: Float32) -> Int64:
    distances = np.square(images[:, None] - means[None]).sum(axis=(2, 3))
    nearest: Int64 = distances.argmin(axis=1)
    return nearest
