"""Every choice of a training run as one value, its limits, its learning rate at each step, and where it starts from."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from toolkit.errors import ModelError


@dataclass(frozen=True)
class Recipe:
    """Every choice of a training run; a card stores it.

    Attributes:
        epochs: passes over the training images.
        batch: images a step, of all processes together.
        lr: peak learning rate, reached after the warm-up.
        warmup: part of all steps, 0..1, in which the rate rises linearly.
        crop: pixels of zero padding for a random crop; 0 turns it off.
        flip: mirror half of the images.
        balance: weigh each image by its class, so that rare classes count as much as the others.
        patience: epochs without a better one after which the run ends; 0 goes on to the last.
        ema: decay of the averaged weights, a step.
        holdout: training images kept back to choose the best epoch.
        amp: "auto" (bfloat16 where the device computes it natively), "bf16" or "off".
        deterministic: refuse every operation whose result depends on timing; matters on a GPU, where it costs speed.
    """

    epochs: int = 20
    batch: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    warmup: float = 0.15
    crop: int = 4
    flip: bool = True
    ema: float = 0.998
    holdout: int = 1000
    amp: str = "auto"
    seed: int = 0
    deterministic: bool = False
    balance: bool = False
    patience: int = 0

    def __post_init__(self) -> None:
        limits: dict[str, tuple[float, float]] = {
            "epochs": (1, 10_000), "batch": (2, 65_536), "lr": (1e-8, 100), "momentum": (0, 0.9999),
            "weight_decay": (0, 1), "label_smoothing": (0, 0.9), "warmup": (0, 0.9), "crop": (0, 64),
            "ema": (0, 0.99999), "holdout": (1, 10**9), "seed": (0, 2**31 - 1), "patience": (0, 10_000),
        }  # fmt: skip
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise ModelError(f"`{name}=` out of range", found=getattr(self, name), allowed=f"{low} to {high}")
        if self.amp not in ("auto", "bf16", "off"):
            raise ModelError("`amp=` is unknown", found=self.amp, allowed="auto, bf16, off")

    def as_dict(self) -> dict[str, Any]:
        """For cards."""
        return asdict(self)


@dataclass(frozen=True)
class Defaults:
    """What a run takes where nothing was said."""

    epochs: int
    lr: float
    batch: int


FROM_NOTHING = Defaults(Recipe.epochs, Recipe.lr, Recipe.batch)
FEWEST_STEPS = 30  # of an epoch: 1,438 images of digits learn nothing in 9 steps of 128, and 98 % in 36 of 32


def defaults_from_nothing(images: int) -> Defaults:
    """For weights that know nothing: the usual ones, and for small sets a batch that leaves enough steps an epoch."""
    sizes = [batch for batch in (128, 64, 32) if images >= FEWEST_STEPS * batch]
    return Defaults(Recipe.epochs, Recipe.lr, sizes[0] if sizes else 16)


def fine_tuning_defaults(images: int) -> Defaults:
    """For weights that are good already: a tenth of the rate, half the epochs.

    An epoch of a small set is cut into enough steps that the new head can follow: 128 images a step would leave
    a folder of 200 with one step an epoch.
    """
    return Defaults(epochs=10, lr=0.01, batch=Recipe.batch if images >= 20 * Recipe.batch else 16)


def crop_of(height: int, width: int) -> int:
    """How far images of that size are shifted: 4 pixels of 32, and of digits of 8x8 one, or little is left of them."""
    return min(Recipe.crop, min(height, width) // 8)


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Linear warm-up to `recipe.lr`, then half a cosine to zero."""
    rise = max(1, int(recipe.warmup * steps))
    if step < rise:
        return recipe.lr * (step + 1) / rise
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))
