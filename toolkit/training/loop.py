"""One short modern recipe: SGD with Nesterov momentum, warm-up and cosine, label smoothing, averaged weights.

Sources: cosine schedule, Loshchilov and Hutter 2017 (SGDR); label smoothing, Szegedy et al. 2016; no weight decay on
norms and biases, He et al. 2019 ("Bag of Tricks"); averaged weights, Polyak and Juditsky 1992.
The test images are looked at once, at the end; the best epoch is chosen on images held out of the training part.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from toolkit.contracts import Dataset, LabeledImages, Preprocessing
from toolkit.errors import DataError, ModelError, ToolkitError
from toolkit.training.augment import augment
from toolkit.training.devices import channels_last, computes_bf16, deterministic, device_from_name
from toolkit.training.distributed import ALONE, PeerLost, World, lost_peers
from toolkit.training.logbook import EpochLine
from toolkit.training.norms import shared_norms
from toolkit.training.recipe import Recipe, learning_rate

__all__ = [
    "Progress",
    "Recipe",
    "Trained",
    "Trainer",
    "augment",
    "channels_last",
    "computes_bf16",
    "device_from_name",
    "learning_rate",
    "logits_of",
    "top1_of",
    "train",
]


@dataclass(frozen=True)
class Progress:
    """Where a run stands, after each step; `holdout_top1` is None until the epoch ends.

    Attributes:
        loss: of the step, on this process's images; of an epoch's last step: the mean of the epoch, over all processes.
    """

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
    """The averaged weights of the best epoch, and how they came about.

    Attributes:
        log: every epoch since the start, those before a resume included.
        lost: another process ended, and that is why this one was interrupted.
    """

    weights: dict[str, Tensor]
    best_epoch: int
    holdout_top1: float
    epochs_done: int
    seconds: float
    images_per_s: float
    device: str
    amp: str
    interrupted: bool
    log: tuple[EpochLine, ...]
    lost: bool = False


def logits_of(model: nn.Module, images_nhwc: Tensor, batch: int = 500) -> Tensor:
    """Float32 logits (N, classes) on the images' device; leaves the model in evaluation mode."""
    model.eval()
    with torch.inference_mode():
        return torch.cat([model(part).float() for part in torch.split(images_nhwc, batch)])


def top1_of(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Part of the images, 0..1, whose largest logit is their label's."""
    return float((logits_of(model, images).argmax(1) == labels).float().mean())


class Trainer:
    """A run that can stop after any epoch and go on later, bit for bit the same on the CPU.

    Args:
        classifier: uint8 (N, H, W, C) to logits; trained in place.
        train: its training images; some are held out, see `Recipe.holdout`.
        world: the processes that share every batch. Use the trainer within `shared_norms` where there are several.
    """

    def __init__(
        self,
        classifier: nn.Module,
        train: LabeledImages,
        recipe: Recipe,
        device: torch.device,
        world: World = ALONE,
    ) -> None:
        self.recipe, self.device, self.world = recipe, device, world
        if recipe.amp == "bf16" and not computes_bf16(device):
            raise ToolkitError(
                "bfloat16 was asked for and this device does not compute it natively",
                found=str(device),
                fix="`amp='off'`",
            )
        self.amp = "bf16" if recipe.amp != "off" and computes_bf16(device) else "off"
        self.model = channels_last(classifier).to(device)
        self.averaged = copy.deepcopy(self.model)
        self.pairs = _pairs(self.averaged, self.model)
        order = np.random.default_rng(recipe.seed).permutation(len(train))
        held = min(recipe.holdout, len(train) // 5)
        if held < 1 or len(train) - held < 2:
            raise DataError("too few training images", found=len(train), allowed="at least 5")
        self.images, self.labels = self._on_device(train, order[held:])
        self.held_images, self.held_labels = self._on_device(train, order[:held])
        counts = torch.bincount(self.labels, minlength=len(train.classes)).clamp(min=1)
        self.weights = len(self.labels) / (len(train.classes) * counts.float())  # their mean over the images is about 1
        self.batch = min(recipe.batch, len(self.images))
        self.shard = world.shard(self.batch)
        self.steps_per_epoch = max(1, len(self.images) // self.batch)
        self.parallel = world.parallel(self.model, device)
        self.log: list[EpochLine] = []
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

    def _on_device(self, images: LabeledImages, rows: Any) -> tuple[Tensor, Tensor]:
        return (
            torch.from_numpy(images.images_nhwc[rows]).to(self.device),
            torch.from_numpy(images.labels[rows]).to(self.device),
        )

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.amp == "bf16" else nullcontext()

    def _average(self, step: int) -> None:
        # The first steps would hold the average at the random start: the decay grows with the step.
        decay = min(self.recipe.ema, (1 + step) / (10 + step))
        averages, values, counters, counts = self.pairs
        get_ema_multi_avg_fn(decay)(averages, values, step)  # type: ignore[no-untyped-call]
        for counter, count in zip(counters, counts, strict=True):
            counter.copy_(count)

    def _step(self, rows: Tensor, number: int, steps: int, draws: torch.Generator) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe, number, steps)
        mine = rows[self.shard]
        images = augment(
            self.images[mine], self.recipe.crop, self.recipe.flip, draws, part=self.shard, of=len(rows)
        )  # fmt: skip
        with self._autocast():
            loss = self._loss(self.parallel(images), self.labels[mine])
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self._average(number)
        return loss.detach()

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        smoothing = self.recipe.label_smoothing
        if not self.recipe.balance:
            return nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing)
        each = nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
        return (each * self.weights[labels]).mean()

    def _has_stopped_learning(self) -> bool:
        """No epoch of the last `patience` was better than all before; as good is not better."""
        patience, top1 = self.recipe.patience, [line.holdout_top1 for line in self.log]
        return 0 < patience < len(top1) and max(top1[-patience:]) <= max(top1[:-patience])

    def epochs(self) -> Iterator[Progress]:
        """Trains from where the run stands to its end; one `Progress` a step, epochs closed by a measured one."""
        steps = self.recipe.epochs * self.steps_per_epoch
        started, seen = time.monotonic(), 0
        while self.epoch < self.recipe.epochs and not self._has_stopped_learning():
            draws = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + self.epoch)
            order = torch.randperm(len(self.images), generator=draws).to(self.device)
            self.model.train()
            # Added up on the device: asking for the loss of every step would make a GPU wait for Python.
            total, began = torch.zeros((), device=self.device), time.monotonic()
            for index in range(self.steps_per_epoch):
                number = self.epoch * self.steps_per_epoch + index
                with lost_peers() if self.world.size > 1 else nullcontext():
                    loss = self._step(order[index * self.batch : (index + 1) * self.batch], number, steps, draws)
                total += loss
                seen += self.batch
                if index + 1 == self.steps_per_epoch:
                    line = self._close_epoch(total / self.steps_per_epoch, began)
                    seconds = time.monotonic() - started
                    yield Progress(
                        self.epoch, self.recipe.epochs, number + 1, steps, line.loss, line.holdout_top1,
                        seen / seconds, seconds,
                    )  # fmt: skip
                elif self.device.type == "cpu" or index % 20 == 0:  # float(loss) waits for the device
                    seconds = time.monotonic() - started
                    yield Progress(
                        self.epoch + 1, self.recipe.epochs, number + 1, steps, float(loss), None,
                        seen / seconds, seconds,
                    )  # fmt: skip

    def _close_epoch(self, mean_loss: Tensor, began: float) -> EpochLine:
        """Judges the averaged weights; the loss of an epoch is not a number if one step's was not."""
        loss = float(self.world.mean(mean_loss))
        if not math.isfinite(loss):
            raise ModelError(
                "training diverged: the loss is not a number",
                found=f"loss {loss} in epoch {self.epoch + 1}",
                fix=f"`lr={self.recipe.lr / 10:g}`",
            )
        trained_for = time.monotonic() - began
        top1 = self.world.from_first(lambda: top1_of(self.averaged, self.held_images, self.held_labels))
        self.epoch += 1
        line = EpochLine(
            self.epoch, loss, top1, self.optimizer.param_groups[0]["lr"],
            self.steps_per_epoch * self.batch / trained_for, time.monotonic() - began,
        )  # fmt: skip
        self.log.append(line)
        if top1 >= self.best_top1:
            self.best_top1, self.best_epoch = top1, self.epoch
            self.best = {k: v.detach().cpu().contiguous().clone() for k, v in self.averaged.state_dict().items()}
        return line

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


def _pairs(averaged: nn.Module, model: nn.Module) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
    """What is averaged and its source, what is copied and its source: gathered once, because lists of tensors take one
    kernel a step on a GPU where single ones take a hundred.
    """
    both = list(zip(averaged.state_dict().values(), model.state_dict().values(), strict=True))
    floats = [pair for pair in both if pair[0].is_floating_point()]
    counts = [pair for pair in both if not pair[0].is_floating_point()]
    return [a for a, _ in floats], [m for _, m in floats], [a for a, _ in counts], [m for _, m in counts]


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
    log: Sequence[EpochLine] = (),
    world: World = ALONE,
) -> Trained:
    """Trains `classifier` and returns the averaged weights of the epoch that was best on the held-out images.

    Ctrl-C ends it early: the best epoch so far is returned with `interrupted` set; before the first epoch has
    ended there is none, and KeyboardInterrupt goes on. A process that lost its peers ends in the same way.

    Args:
        log: the epochs before `resume`.
    """
    torch.manual_seed(recipe.seed)
    if data.train.images_nhwc.shape[1:] != preprocessing.shape:
        raise DataError("images and preprocessing differ in shape", found=data.train.images_nhwc.shape[1:])
    progress: Progress | None = None
    interrupted = lost = False
    channels_last(classifier).to(device)  # before the norms are shared: a move would part their buffers
    with deterministic(recipe.deterministic), shared_norms(classifier, world, device):
        trainer = Trainer(classifier, data.train, recipe, device, world)
        if resume is not None:
            trainer.restore(resume)
        trainer.log = list(log)
        try:
            for progress in trainer.epochs():
                if progress.holdout_top1 is not None:
                    on_epoch(trainer)  # first: an epoch that people see can be resumed after
                on_progress(progress)
        except KeyboardInterrupt:
            if not trainer.best:
                raise
            interrupted = True
        except PeerLost:
            if not trainer.best:
                raise
            interrupted = lost = True
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
        log=tuple(trainer.log),
        lost=lost,
    )
