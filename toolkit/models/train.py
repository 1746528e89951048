"""One short modern recipe: SGD with Nesterov momentum, warm-up and cosine, label smoothing, averaged weights.

Sources: cosine schedule, Loshchilov and Hutter 2017 (SGDR); label smoothing, Szegedy et al. 2016; no weight decay on
norms and biases, He et al. 2019 ("Bag of Tricks"); averaged weights, Polyak and Juditsky 1992.
The test images are looked at once, at the end; the best epoch is chosen on images held out of the training part.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from toolkit.contracts import Dataset, LabelledImages, Preprocessing
from toolkit.errors import DataError, ModelError, ToolkitError


@dataclass(frozen=True)
class Recipe:
    """Every choice of a training run; a card stores it.

    Attributes:
        epochs: passes over the training images.
        batch: images a step.
        lr: peak learning rate, reached after the warm-up.
        warmup: part of all steps, 0..1, in which the rate rises linearly.
        crop: pixels of zero padding for a random crop; 0 turns it off.
        flip: mirror half of the images.
        ema: decay of the averaged weights, a step.
        holdout: training images kept back to choose the best epoch.
        amp: "auto" (bfloat16 where the device computes it natively), "bf16" or "off".
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

    def __post_init__(self) -> None:
        limits: dict[str, tuple[float, float]] = {
            "epochs": (1, 10_000), "batch": (2, 65_536), "lr": (1e-8, 100), "momentum": (0, 0.9999),
            "weight_decay": (0, 1), "label_smoothing": (0, 0.9), "warmup": (0, 0.9), "crop": (0, 64),
            "ema": (0, 0.99999), "holdout": (1, 10**9), "seed": (0, 2**31 - 1),
        }  # fmt: skip
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise ModelError(f"--{name} out of range", found=getattr(self, name), allowed=f"{low} to {high}")
        if self.amp not in ("auto", "bf16", "off"):
            raise ModelError("--amp is unknown", found=self.amp, allowed="auto, bf16, off")

    def as_dict(self) -> dict[str, Any]:
        """For cards."""
        return asdict(self)


@dataclass(frozen=True)
class Progress:
    """Where a run stands, after each step; `holdout_top1` is None until the epoch ends."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    holdout_top1: float | None
    images_per_s: float
    seconds: float


@dataclass(frozen=True)
class Trained:
    """The averaged weights of the best epoch, and how they came about."""

    weights: dict[str, Tensor]
    best_epoch: int
    holdout_top1: float
    epochs_done: int
    seconds: float
    images_per_s: float
    device: str
    amp: str
    interrupted: bool


def device_from_name(name: str) -> torch.device:
    """`auto`, `cpu` or `cuda` to a device that is here.

    Raises:
        ToolkitError: CUDA was asked for and is not here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda"):
        raise ToolkitError("unknown device", found=name, allowed="auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ToolkitError(
            "this PyTorch finds no CUDA device",
            found=f"torch {torch.__version__}",
            fix="--device cpu, or `toolkit doctor` to see what is missing",
        )
    return torch.device(name)


def computes_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is native: a CUDA device of compute capability 8, or AVX512-BF16 or AMX on the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)


def augment(images: Tensor, crop: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Random crop with zero padding and mirror, on the device: uint8 (N, H, W, C) to the same."""
    n, height, width, _ = images.shape
    device = images.device

    def draw(high: int) -> Tensor:
        return torch.randint(high, (n, 1), generator=generator).to(device, non_blocking=True)

    rows = torch.arange(height, device=device)[None] + draw(2 * crop + 1)
    columns = torch.arange(width, device=device)[None].expand(n, width)
    if flip:
        columns = torch.where(draw(2) == 1, columns.flip(1), columns)
    columns = columns + draw(2 * crop + 1)
    padded = nn.functional.pad(images, (0, 0, crop, crop, crop, crop))
    return padded[torch.arange(n, device=device)[:, None, None], rows[:, :, None], columns[:, None, :]]


def logits_of(model: nn.Module, images_nhwc: Tensor, batch: int = 500) -> Tensor:
    """Float32 logits (N, classes) on the images' device; leaves the model in evaluation mode."""
    model.eval()
    with torch.inference_mode():
        return torch.cat([model(part).float() for part in torch.split(images_nhwc, batch)])


def top1_of(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Part of the images, 0..1, whose largest logit is their label's."""
    return float((logits_of(model, images).argmax(1) == labels).float().mean())


def channels_last(module: nn.Module) -> nn.Module:
    """The same module with its convolutions' weights in NHWC order: twice as fast on the CPU, and on tensor cores."""
    moved: nn.Module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Linear warm-up to `recipe.lr`, then half a cosine to zero."""
    rise = max(1, int(recipe.warmup * steps))
    if step < rise:
        return recipe.lr * (step + 1) / rise
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


class Trainer:
    """A run that can stop after any epoch and go on later, bit for bit the same on the CPU.

    Args:
        classifier: uint8 (N, H, W, C) to logits; trained in place.
        train: its training images; some are held out, see `Recipe.holdout`.
    """

    def __init__(self, classifier: nn.Module, train: LabelledImages, recipe: Recipe, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        if recipe.amp == "bf16" and not computes_bf16(device):
            raise ToolkitError(
                "bfloat16 was asked for and this device does not compute it natively",
                found=str(device),
                fix="--amp off",
            )
        self.amp = "bf16" if recipe.amp != "off" and computes_bf16(device) else "off"
        self.model = channels_last(classifier).to(device)
        self.averaged = copy.deepcopy(self.model)
        order = np.random.default_rng(recipe.seed).permutation(len(train))
        held = min(recipe.holdout, len(train) // 5)
        if held < 1 or len(train) - held < 2:
            raise DataError("too few training images", found=len(train), allowed="at least 5")
        self.images, self.labels = self._on_device(train, order[held:])
        self.held_images, self.held_labels = self._on_device(train, order[:held])
        self.batch = min(recipe.batch, len(self.images))
        self.steps_per_epoch = max(1, len(self.images) // self.batch)
        self.epoch = 0
        self.best: dict[str, Tensor] = {}
        self.best_epoch, self.best_top1 = 0, -1.0
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        plain = [p for p in self.model.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.SGD(
            [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.momentum > 0,
        )

    def _on_device(self, images: LabelledImages, rows: Any) -> tuple[Tensor, Tensor]:
        return (
            torch.from_numpy(images.images_nhwc[rows]).to(self.device),
            torch.from_numpy(images.labels[rows]).to(self.device),
        )

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.amp == "bf16" else nullcontext()

    def _average(self, step: int) -> None:
        # The first steps would hold the average at the random start: the decay grows with the step.
        decay = min(self.recipe.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            pairs = zip(self.averaged.state_dict().values(), self.model.state_dict().values(), strict=True)
            for average, value in pairs:
                if average.is_floating_point():
                    average.lerp_(value, 1 - decay)
                else:
                    average.copy_(value)

    def _step(self, rows: Tensor, number: int, steps: int, draws: torch.Generator) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe, number, steps)
        images = augment(self.images[rows], self.recipe.crop, self.recipe.flip, draws)
        with self._autocast():
            loss = nn.functional.cross_entropy(
                self.model(images), self.labels[rows], label_smoothing=self.recipe.label_smoothing
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self._average(number)
        return loss.detach()

    def epochs(self) -> Iterator[Progress]:
        """Trains from where the run stands to its end; one `Progress` a step, epochs closed by a measured one."""
        steps = self.recipe.epochs * self.steps_per_epoch
        started, seen = time.monotonic(), 0
        while self.epoch < self.recipe.epochs:
            draws = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + self.epoch)
            order = torch.randperm(len(self.images), generator=draws).to(self.device)
            self.model.train()
            for index in range(self.steps_per_epoch):
                number = self.epoch * self.steps_per_epoch + index
                rows = order[index * self.batch : (index + 1) * self.batch]
                loss = self._step(rows, number, steps, draws)
                seen += self.batch
                last = index + 1 == self.steps_per_epoch
                if last:
                    self._close_epoch(float(loss))
                seconds = time.monotonic() - started
                # float(loss) waits for the device, so a GPU is asked only now and then.
                if last or self.device.type == "cpu" or index % 20 == 0:
                    yield Progress(
                        self.epoch if last else self.epoch + 1, self.recipe.epochs, number + 1, steps, float(loss),
                        self.last_top1 if last else None, seen / seconds, seconds,
                    )  # fmt: skip

    def _close_epoch(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise ModelError(
                "training diverged: the loss is not a number",
                found=f"loss {loss} in epoch {self.epoch + 1}",
                fix=f"--lr {self.recipe.lr / 10:g}",
            )
        self.epoch += 1
        self.last_top1 = top1_of(self.averaged, self.held_images, self.held_labels)
        if self.last_top1 >= self.best_top1:
            self.best_top1, self.best_epoch = self.last_top1, self.epoch
            self.best = {k: v.detach().cpu().contiguous().clone() for k, v in self.averaged.state_dict().items()}

    def state(self) -> dict[str, Tensor]:
        """All that the next epoch depends on, as tensors: weights, averages, momentum, the best so far."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"averaged.{k}": v for k, v in self.averaged.state_dict().items()}
        tensors |= {f"best.{k}": v for k, v in self.best.items()}
        for name, parameter in self.model.named_parameters():
            buffer = self.optimizer.state[parameter].get("momentum_buffer")
            if buffer is not None:
                tensors[f"momentum.{name}"] = buffer
        tensors["progress"] = torch.tensor([self.epoch, self.best_epoch, self.best_top1], dtype=torch.float64)
        # Clones: on the CPU the tensors of the next epoch would shine through.
        return {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Goes back to a `state`; the next epoch is the one that would have followed it."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}

        self.model.load_state_dict(part("model."))
        self.averaged.load_state_dict(part("averaged."))
        self.best = part("best.")
        momentum = part("momentum.")
        for name, parameter in self.model.named_parameters():
            if name in momentum:
                buffer = torch.empty_like(parameter).copy_(momentum[name])
                self.optimizer.state[parameter]["momentum_buffer"] = buffer
        epoch, best_epoch, self.best_top1 = state["progress"].tolist()
        self.epoch, self.best_epoch = int(epoch), int(best_epoch)


def train(
    classifier: nn.Module,
    data: Dataset,
    preprocessing: Preprocessing,
    recipe: Recipe,
    device: torch.device,
    *,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_epoch: Callable[[Trainer], None] = lambda trainer: None,
    resume: dict[str, Tensor] | None = None,
) -> Trained:
    """Trains `classifier` and returns the averaged weights of the epoch that was best on the held-out images.

    Ctrl-C ends it early: the best epoch so far is returned with `interrupted` set; before the first epoch has
    ended there is none, and KeyboardInterrupt goes on.
    """
    torch.manual_seed(recipe.seed)
    if data.train.images_nhwc.shape[1:] != preprocessing.shape:
        raise DataError("images and preprocessing differ in shape", found=data.train.images_nhwc.shape[1:])
    trainer = Trainer(classifier, data.train, recipe, device)
    if resume is not None:
        trainer.restore(resume)
    progress: Progress | None = None
    interrupted = False
    try:
        for progress in trainer.epochs():
            on_progress(progress)
            if progress.holdout_top1 is not None:
                on_epoch(trainer)
    except KeyboardInterrupt:
        if not trainer.best:
            raise
        interrupted = True
    return Trained(
        weights=trainer.best,
        best_epoch=trainer.best_epoch,
        holdout_top1=trainer.best_top1,
        epochs_done=trainer.epoch,
        seconds=progress.seconds if progress else 0.0,
        images_per_s=progress.images_per_s if progress else 0.0,
        device=str(device),
        amp=trainer.amp,
        interrupted=interrupted,
    )
