"""What `toolkit.train` is told, and what it returns, each as one value. Needs no PyTorch."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from toolkit.errors import ToolkitError
from toolkit.storage.documents import Document
from toolkit.storage.hints import Apart, Count, Maybe, NotNegative, Percent
from toolkit.training.recipe import FROM_NOTHING, Defaults, Recipe

PathLike = str | os.PathLike[str]
OF_THE_NETWORK = ("arch", "widths", "blocks", "strides", "stem_kernel", "size")


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How a model is trained; None takes a default.

    Attributes:
        arch: "resnet32x32", or "resnet20" and the others of depth 6n + 2.
        start: the model to fine-tune: its weights, architecture and input, with a new head.
        qat: fine-tune `start` with fake quantization; `toolkit.export` then takes its scales.
        epochs: passes over the training images; 20, with `start` 10.
        device: "auto", "cpu" or "cuda".
        seed: of weights, order, augmentation and draws of images.
        batch: images a step, of all processes; 128, of small sets less, so that an epoch has 30 steps at least.
        lr: peak learning rate; 0.1, with `start` 0.01.
        weight_decay: on weights; norms and biases have none.
        label_smoothing: 0 to 0.9.
        warmup: part of the steps, 0 to 0.9, in which the rate rises; then a cosine.
        crop: pixels of a random shift; 0 turns it off; None takes an eighth of the shorter side, at most 4.
        flip: mirror half of the images; None where that changes no class, as it does for digits, letters and arrows.
        balance: weigh images by their class, so that rare classes count as much as the others.
        patience: epochs without a better one after which the run ends; 0 goes on to the last.
        ema: decay of the averaged weights, a step.
        holdout: training images kept back to choose the best epoch.
        amp: bfloat16: "auto" (where the device has it), "bf16" or "off".
        deterministic: only operations that repeat bit for bit, on a GPU too; slower there.
        widths, blocks, strides: channels, blocks and stride of each stage.
        stem_kernel: 3 or 1.
        images: training images kept for calibration.
        download: fetch a named set that is not installed, and verify it.
        size: (H, W, C); None takes the images', with `convert` (32, 32, 3).
        convert: resize and convert images that do not fit.
        resize: how images of other proportions come to that size: "squash", "crop" or "pad"; implies `convert`.
            The card keeps it: export and verify read images in the same way. None takes that of `start`, else "squash".
        skip_bad: leave damaged files of a folder out.
        tensorboard: write scalars for TensorBoard too.
        resume: go on with an interrupted run of the same name.
        replace: a model of the same name.

    Raises:
        ToolkitError: a network beside `start`, which has one; `qat` without `start` or in bfloat16.
        ModelError: a number out of range.
    """

    arch: str | None = None
    start: PathLike | None = None
    qat: bool = False
    epochs: int | None = None
    device: str = "auto"
    seed: int = 0
    batch: int | None = None
    lr: float | None = None
    weight_decay: float = Recipe.weight_decay
    label_smoothing: float = Recipe.label_smoothing
    warmup: float = Recipe.warmup
    crop: int | None = None
    flip: bool | None = None
    balance: bool = Recipe.balance
    patience: int = Recipe.patience
    ema: float = Recipe.ema
    holdout: int = Recipe.holdout
    amp: str = Recipe.amp
    deterministic: bool = Recipe.deterministic
    widths: tuple[int, ...] | None = None
    blocks: tuple[int, ...] | None = None
    strides: tuple[int, ...] | None = None
    stem_kernel: int | None = None
    images: int = 512
    download: bool = False
    size: tuple[int, int, int] | None = None
    convert: bool = False
    resize: str | None = None
    skip_bad: bool = False
    tensorboard: bool = False
    resume: bool = False
    replace: bool = False

    def __post_init__(self) -> None:
        self.recipe()
        given = [f"`{name}=`" for name in OF_THE_NETWORK if getattr(self, name) is not None]
        if self.start is not None and given:
            raise ToolkitError(
                "`start=` brings its own architecture",
                found=f"`start={os.fspath(self.start)!r}` {' '.join(given)}",
                fix=f"leave {' and '.join(given)} out, or leave `start=` out to train from nothing",
            )
        if self.qat and self.start is None:
            raise ToolkitError(
                "`qat=True` fine-tunes a trained model",
                found="no `start=`",
                fix="train without `qat=True` first, then add `start='MODEL'`",
            )
        if self.qat and self.amp == "bf16":
            raise ToolkitError("`qat=True` computes in float32", found="`amp='bf16'`", fix="leave `amp=` out")

    def recipe(self, defaults: Defaults = FROM_NOTHING) -> Recipe:
        """How to train, with `defaults` where nothing was said.

        Fake quantization takes few epochs at a hundredth of the first rate, and no bfloat16, which rounds more
        coarsely than int8.

        Raises:
            ModelError: a number out of range.
        """
        values = {field.name: getattr(self, field.name) for field in fields(Recipe) if hasattr(self, field.name)}
        qat = {"epochs": 4, "lr": 0.001} if self.qat else {}
        taken = {**vars(defaults), **qat}
        values |= {name: taken[name] for name in vars(defaults) if values[name] is None}
        values |= {name: getattr(Recipe, name) for name in ("flip", "crop") if values[name] is None}
        return Recipe(**{**values, "amp": "off" if self.qat else self.amp})

    def network(self) -> dict[str, Any]:
        """The entries of the network that differ from the named architecture."""
        changes = {name: getattr(self, name) for name in ("widths", "blocks", "strides", "stem_kernel")}
        return {name: value for name, value in changes.items() if value is not None}

    @property
    def converts(self) -> bool:
        """Whether images that do not fit are made to."""
        return self.convert or self.resize is not None

    def shape(self) -> tuple[int, int, int] | None:
        """What images are brought to where there is no `start`; None takes them as they are."""
        return self.size or ((32, 32, 3) if self.converts else None)

    def said(self) -> str:
        """The call of the class, with what differs from the defaults."""
        given = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
        return f"TrainOptions({', '.join(f'{name}={getattr(self, name)!r}' for name in given)})"


@dataclass(frozen=True)
class TrainingResult(Document):
    """What `toolkit.train` returns, and toolkit train prints.

    Attributes:
        ok: it went on to its end.
        model: the folder.
        accuracy: as the card has it, on the test images; null after an interruption, which looked at none.
        holdout_top1_percent: of the best epoch, on images held out of the training part.
        images_per_s: trained, all processes together.
        interrupted: the folder holds the best epoch until then.
        data: what is in the set: counts, hashes, duplicates, mean and std, and what was left out.
        next: the command that comes next, where a command printed this.
        lost: another process had ended, and that is why this run was interrupted; in memory only.
    """

    SCHEMA = "toolkit/train/1"
    ok: bool
    model: Path
    accuracy: dict[str, Any] | None
    holdout_top1_percent: Percent
    best_epoch: Count
    epochs_done: Count
    images_per_s: NotNegative
    seconds: NotNegative
    interrupted: bool
    data: dict[str, Any]
    next: Maybe[str] = None
    lost: Apart[bool] = False
