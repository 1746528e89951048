"""A training run from data to model folder: resumable, judged once on the test images, written whole."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from toolkit import __version__
from toolkit.card import Card
from toolkit.contracts import Dataset, Preprocessing, preprocessing_from_images
from toolkit.errors import ModelError
from toolkit.files import write_bytes
from toolkit.lazy import needs
from toolkit.models.checkpoint import arch_from_config, classifier_from_config, save_model, tensors_from_file
from toolkit.models.resnet import Classifier, config_from_name
from toolkit.models.train import Progress, Recipe, Trained, Trainer, logits_of, train
from toolkit.stats import wilson_interval


@dataclass(frozen=True)
class Plan:
    """What to train, on what, and where it goes.

    Attributes:
        changes: entries of `ResNetConfig` that differ from the named architecture.
        command: what was typed, for the card.
    """

    name: str
    arch: str
    changes: dict[str, Any]
    dataset: Dataset
    recipe: Recipe
    device: torch.device
    folder: Path
    command: str

    @property
    def state_file(self) -> Path:
        """Where an unfinished run is kept, beside the model's folder."""
        return self.folder.parent / f".{self.name}.training.safetensors"


@dataclass(frozen=True)
class Outcome:
    """The model that was written."""

    card: Card
    trained: Trained
    folder: Path


def run_training(plan: Plan, *, resume: bool, on_progress: Callable[[Progress], None]) -> Outcome:
    """Trains, judges and writes a model; an interrupted run leaves its best epoch and can go on.

    Raises:
        ModelError: nothing to resume, or the interrupted run was another one.
    """
    channels = plan.dataset.train.images_nhwc.shape[3]
    config = replace(
        config_from_name(plan.arch, in_channels=channels, classes=len(plan.dataset.train.classes)), **plan.changes
    )
    preprocessing = preprocessing_from_images(plan.dataset.train.images_nhwc)
    torch.manual_seed(plan.recipe.seed)
    classifier = classifier_from_config(config, preprocessing)
    identity = {
        "arch": json.dumps(config.as_dict()),
        "recipe": json.dumps(plan.recipe.as_dict()),
        "data": plan.dataset.train.sha256,
    }
    state = _state_to_resume(plan, identity) if resume else None
    trained = train(
        classifier,
        plan.dataset,
        preprocessing,
        plan.recipe,
        plan.device,
        on_progress=on_progress,
        on_epoch=lambda trainer: _keep_state(plan, trainer, identity),
        resume=state,
    )
    classifier.load_state_dict(trained.weights)
    accuracy = None if trained.interrupted else _accuracy(classifier.to(plan.device), plan)
    card = Card(
        name=plan.name,
        arch=arch_from_config(config),
        labels=plan.dataset.train.classes,
        preprocessing=preprocessing,
        weights_sha256="",
        accuracy=accuracy,
        training=_training(plan, trained, preprocessing),
    )
    card = save_model(plan.folder, card, classifier.net.state_dict())
    if not trained.interrupted:
        plan.state_file.unlink(missing_ok=True)
    return Outcome(card, trained, plan.folder)


def _keep_state(plan: Plan, trainer: Trainer, identity: dict[str, str]) -> None:
    with needs("keep the state of a run"):
        from safetensors.torch import save
    write_bytes(plan.state_file, save(trainer.state(), metadata=identity))


def _state_to_resume(plan: Plan, identity: dict[str, str]) -> dict[str, torch.Tensor]:
    if not plan.state_file.is_file():
        raise ModelError(
            f"there is no interrupted run of '{plan.name}' to resume",
            found=f"no {plan.state_file}",
            fix="leave --resume out to start",
        )
    state, kept = tensors_from_file(plan.state_file)
    changed = [part for part, value in identity.items() if kept.get(part) != value]
    if changed:
        raise ModelError(
            f"the interrupted run of '{plan.name}' was another one",
            found=f"other {', '.join(changed)}",
            allowed="the same architecture, recipe, seed and images",
            fix="repeat the options of that run, or leave --resume out to start anew",
        )
    return state


def _accuracy(classifier: Classifier, plan: Plan) -> dict[str, Any]:
    """Top-1 over all test images, in float32, looked at this once."""
    test = plan.dataset.test
    answers = [  # torch.tensor copies: the arrays may be read-only
        logits_of(classifier, torch.tensor(part).to(plan.device)).argmax(1).cpu()
        for part in (test.images_nhwc[i : i + 1000] for i in range(0, len(test), 1000))
    ]
    correct = int((torch.cat(answers) == torch.tensor(test.labels)).sum())
    low, high = wilson_interval(correct, len(test))
    return {
        "top1_percent": round(100 * correct / len(test), 4),
        "interval95_percent": [round(100 * low, 4), round(100 * high, 4)],
        "interval": "Wilson",
        "correct": correct,
        "images": len(test),
        "data": test.source,
        "data_sha256": test.sha256,
        "precision": "float32",
        "how": "the test images, once, after training; the epoch was chosen on held-out training images",
    }


def _training(plan: Plan, trained: Trained, preprocessing: Preprocessing) -> dict[str, Any]:
    cuda = plan.device.type == "cuda"
    return {
        "command": plan.command,
        "data": plan.dataset.train.source,
        "data_sha256": plan.dataset.train.sha256,
        "images": len(plan.dataset.train),
        "recipe": plan.recipe.as_dict(),
        "epochs_done": trained.epochs_done,
        "best_epoch": trained.best_epoch,
        "holdout_top1_percent": round(100 * trained.holdout_top1, 4),
        "amp": trained.amp,
        "device": torch.cuda.get_device_name(plan.device) if cuda else platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "toolkit": __version__,
    }
