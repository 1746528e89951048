"""A training run from data to model folder: resumable, judged once on the test images, written whole."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from toolkit.compare.classes import Classes, classes_from_answers
from toolkit.compare.confusion import confusion_png
from toolkit.compare.parity import answers_of
from toolkit.compare.proportions import wilson_interval
from toolkit.contracts import Dataset, Preprocessing, preprocessing_from_images
from toolkit.errors import DataError, ModelError
from toolkit.lazy import needs
from toolkit.models.card import Card
from toolkit.models.checkpoint import (
    LoadedModel,
    arch_from_config,
    classifier_from_config,
    save_model,
    tensors_from_file,
)
from toolkit.models.resnet import Classifier, ResNet, ResNetConfig, config_from_name
from toolkit.storage.files import write_bytes
from toolkit.training.devices import keep_freed_memory
from toolkit.training.distributed import ALONE, World
from toolkit.training.logbook import (
    CONFUSION,
    CURVE,
    LOG,
    TENSORBOARD,
    TensorBoard,
    curve_png,
    lines_from_text,
    move_scalars,
    require_plotting,
    text_from_lines,
)
from toolkit.training.loop import Progress, Recipe, Trained, Trainer, logits_of, train
from toolkit.training.qat import FakeQuantization, fake_quantized, float_weights, qat_scales_of, refreshed
from toolkit.version import __version__


@dataclass(frozen=True)
class Plan:
    """What to train, on what, and where it goes.

    Attributes:
        changes: entries of `ResNetConfig` that differ from the named architecture.
        command: what was typed, for the card.
        start: the model to fine-tune; its architecture and preprocessing replace `arch` and the images' own.
        world: the processes that train together, joined already.
        tensorboard: write scalars for TensorBoard.
        options: every option of the command with the value that it had, for the card.
        dropped: training images left out because they are also test images, for the card.
        qat: train with fake quantization in these places; needs `start`.
    """

    name: str
    arch: str
    changes: dict[str, Any]
    dataset: Dataset
    recipe: Recipe
    device: torch.device
    folder: Path
    command: str
    start: LoadedModel | None = None
    world: World = ALONE
    tensorboard: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    dropped: int = 0
    qat: FakeQuantization | None = None

    @property
    def state_file(self) -> Path:
        """Where an unfinished run is kept, beside the model's folder."""
        return self.folder.parent / f".{self.name}.training.safetensors"

    @property
    def tensorboard_folder(self) -> Path:
        """Where TensorBoard's scalars lie while the run goes on."""
        return self.folder.parent / f".{self.name}.{TENSORBOARD}"


@dataclass(frozen=True)
class Outcome:
    """The model that was written; where several processes trained, rank 0 alone has written it.

    Attributes:
        qat_scales: the scale of each activation, by module path, where fake quantization was trained.
    """

    card: Card
    trained: Trained
    folder: Path
    qat_scales: dict[str, float] = field(default_factory=dict)


def run_training(
    plan: Plan,
    *,
    resume: bool,
    on_progress: Callable[[Progress], None],
) -> Outcome:
    """Trains, judges and writes a model; an interrupted run leaves its best epoch and can go on.

    Raises:
        ModelError: nothing to resume, or the interrupted run was another one.
        MissingPackage: the learning curve or TensorBoard's scalars could not be written at the end.
    """
    require_plotting()
    keep_freed_memory()
    config, preprocessing = _shape_of(plan)
    torch.manual_seed(plan.recipe.seed)
    classifier = classifier_from_config(config, preprocessing)
    if plan.start is not None:
        _take_weights(classifier, plan.start, plan.dataset.train.classes)
    trainee = classifier if plan.qat is None else fake_quantized(classifier, plan.qat)
    identity = {
        "arch": json.dumps(config.as_dict()),
        "recipe": json.dumps(plan.recipe.as_dict()),
        "data": plan.dataset.train.sha256,
        "from": plan.start.card.weights_sha256 if plan.start is not None else "",
        "qat": "" if plan.qat is None else json.dumps(dict(plan.qat.scales)),
    }
    trained = _trained(plan, trainee, preprocessing, identity, resume, on_progress)
    trainee.load_state_dict(trained.weights)
    if plan.qat is None:
        return _written(plan, classifier, preprocessing, trained, config)
    assert isinstance(classifier.net, ResNet)
    classifier.net.load_state_dict(float_weights(trainee, classifier.net))
    judged = plan.world.first and not trained.interrupted
    quantized = _accuracy(refreshed(trainee).to(plan.device), plan) if judged else None
    outcome = _written(plan, classifier, preprocessing, trained, config, quantized)
    return replace(outcome, qat_scales=qat_scales_of(trainee))


def _shape_of(plan: Plan) -> tuple[ResNetConfig, Preprocessing]:
    """The network and what it takes: of the model to start from, or of the named architecture and the images."""
    train = plan.dataset.train
    if plan.start is None:
        named = config_from_name(plan.arch, in_channels=train.images_nhwc.shape[3], classes=len(train.classes))
        return replace(named, **plan.changes), preprocessing_from_images(train.images_nhwc)
    net, preprocessing = plan.start.classifier.net, plan.start.card.preprocessing
    if not isinstance(net, ResNet):
        raise ModelError(f"'{plan.start.card.name}' cannot be trained on", found=type(net).__name__, allowed="a ResNet")
    found = tuple(train.images_nhwc.shape[1:])
    if found != preprocessing.shape:
        differs = "other color channels" if found[2] != preprocessing.channels else "another size"
        raise DataError(
            f"the images have {differs} than model '{plan.start.card.name}' takes",
            found=f"{found[0]}x{found[1]}, {found[2]} channel(s)",
            allowed=f"{preprocessing.height}x{preprocessing.width}, {preprocessing.channels} channel(s)",
            fix="add `convert=True`, or train from the start: leave `start=` out",
        )
    return replace(net.config, classes=len(train.classes)), preprocessing


def _take_weights(classifier: Classifier, start: LoadedModel, classes: tuple[str, ...]) -> None:
    """Copies a model's weights; the head stays new unless the classes are the same, in the same order."""
    weights = dict(start.classifier.net.state_dict())
    if classes != start.card.labels:
        fresh = classifier.net.state_dict()
        weights |= {name: value for name, value in fresh.items() if name.startswith("fc.")}
    classifier.net.load_state_dict(weights)


def _trained(
    plan: Plan,
    classifier: Classifier,
    preprocessing: Preprocessing,
    identity: dict[str, str],
    resume: bool,
    on_progress: Callable[[Progress], None],
) -> Trained:
    """Trains where `plan` says, keeping the state and TensorBoard's scalars; rank 0 alone writes."""
    world = plan.world
    world.agree(identity)
    state, kept = world.from_first(lambda: _state_to_resume(plan, identity)) if resume else (None, {})
    log = lines_from_text(kept.get("log", ""))
    if plan.recipe.deterministic and "threads" in kept:
        torch.set_num_threads(int(kept["threads"]))  # sums over another number of threads round differently
    board = TensorBoard(plan.tensorboard_folder, log) if plan.tensorboard and world.first else None

    def on_epoch(trainer: Trainer) -> None:
        if world.first:
            _keep_state(plan, trainer, identity)
        if board is not None:
            board.add(trainer.log[-1])

    try:
        trained = train(
            classifier, plan.dataset, preprocessing, plan.recipe, plan.device,
            on_progress=on_progress if world.first else lambda progress: None,
            on_epoch=on_epoch, resume=state, log=log, world=world,
        )  # fmt: skip
    except BaseException:
        if board is not None:
            board.discard()
        raise
    if board is not None:
        board.close()
    return trained


def _written(
    plan: Plan,
    classifier: Classifier,
    preprocessing: Preprocessing,
    trained: Trained,
    config: ResNetConfig,
    quantized: dict[str, Any] | None = None,
) -> Outcome:
    """Judges the model on the test images and writes card, weights, log and learning curve: rank 0 alone.

    Args:
        quantized: what the same weights reached with fake quantization, for the card.
    """
    judged = plan.world.first and not trained.interrupted
    accuracy = _accuracy(classifier.to(plan.device), plan) if judged else None
    simulated = {} if quantized is None else {"fake_quantised_accuracy": quantized | {"precision": "int8, simulated"}}
    card = Card(
        name=plan.name,
        arch=arch_from_config(config),
        labels=plan.dataset.train.classes,
        preprocessing=preprocessing,
        weights_sha256="",
        accuracy=accuracy,
        training=_training(plan, trained) | simulated,
    )
    if not plan.world.first:
        return Outcome(card, trained, plan.folder)
    counts = np.bincount(plan.dataset.train.labels)
    curve = curve_png(trained.log, plan.name, trained.best_epoch, 100 * int(counts.max()) / int(counts.sum()))
    beside = {LOG: text_from_lines(trained.log).encode(), CURVE: curve}
    if accuracy is not None:
        classes = Classes.from_dict(accuracy["classes"])
        beside[CONFUSION] = confusion_png(classes, f"{plan.name} on {accuracy['images']:,} test images")
    card = save_model(plan.folder, card, classifier.net.state_dict(), beside)
    if plan.tensorboard:
        move_scalars(plan.tensorboard_folder, plan.folder)
    if not trained.interrupted:
        plan.state_file.unlink(missing_ok=True)
    return Outcome(card, trained, plan.folder)


def _keep_state(plan: Plan, trainer: Trainer, identity: dict[str, str]) -> None:
    with needs("keep the state of a run"):
        from safetensors.torch import save
    beside = {"log": text_from_lines(trainer.log), "threads": str(torch.get_num_threads())}
    write_bytes(plan.state_file, save(trainer.state(), metadata=identity | beside))


def _state_to_resume(plan: Plan, identity: dict[str, str]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    if not plan.state_file.is_file():
        raise ModelError(
            f"there is no interrupted run of '{plan.name}' to resume",
            found=f"no {plan.state_file}",
            fix="leave `resume=` out to start",
        )
    state, kept = tensors_from_file(plan.state_file)
    changed = [part for part, value in identity.items() if kept.get(part) != value]
    if changed:
        raise ModelError(
            f"the interrupted run of '{plan.name}' was another one",
            found=f"other {', '.join(changed)}",
            allowed="the same architecture, recipe, seed and images",
            fix="repeat the options of that run, or start anew with `replace=True`",
        )
    return state, kept


def _accuracy(classifier: Classifier, plan: Plan) -> dict[str, Any]:
    """Top-1 over all test images, and each class by itself, in float32, looked at this once."""
    test = plan.dataset.test
    logits = [  # torch.tensor copies: the arrays may be read-only
        logits_of(classifier, torch.tensor(part).to(plan.device)).cpu().numpy()
        for part in (test.images_nhwc[i : i + 1000] for i in range(0, len(test), 1000))
    ]
    answers = answers_of(np.concatenate(logits))
    correct = int((answers == test.labels).sum())
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
        "classes": classes_from_answers(answers, test.labels, plan.dataset.train.classes).as_dict(),
    }


def _training(plan: Plan, trained: Trained) -> dict[str, Any]:
    cuda = plan.device.type == "cuda"
    return {
        "command": plan.command,
        "data": plan.dataset.train.source,
        "data_sha256": plan.dataset.train.sha256,
        "images": len(plan.dataset.train),
        "images_dropped": plan.dropped,
        "from": {"name": plan.start.card.name, "weights_sha256": plan.start.card.weights_sha256}
        if plan.start is not None
        else None,
        "recipe": plan.recipe.as_dict(),
        "options": plan.options,
        "processes": plan.world.size,
        "threads": torch.get_num_threads(),
        "epochs_done": trained.epochs_done,
        "seconds": round(sum(line.seconds for line in trained.log), 1),
        "best_epoch": trained.best_epoch,
        "holdout_top1_percent": round(100 * trained.holdout_top1, 4),
        "amp": trained.amp,
        "device": torch.cuda.get_device_name(plan.device) if cuda else platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "toolkit": __version__,
    }
