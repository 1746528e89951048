"""Random crop and mirror on the device, drawn for a whole batch even where a process sees a part of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


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
