"""`toolkit.train`: images become a model with a card, and the images that will calibrate and judge it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.calibration.record import RECORD
from toolkit.contracts import Dataset
from toolkit.data import dataset_from_spec, summary, without_test_images
from toolkit.data.fit import SQUASH
from toolkit.data.model_images import RECIPE, ModelImages, images_from_dataset, write_images
from toolkit.data.model_images import Recipe as ImageRecipe
from toolkit.errors import ToolkitError
from toolkit.lazy import needs
from toolkit.storage.files import write_json
from toolkit.storage.replacing import date_of
from toolkit.training.options import PathLike, TrainingResult, TrainOptions
from toolkit.training.recipe import crop_of, defaults_from_nothing, fine_tuning_defaults
from toolkit.workspace import require_name, usable_name, workspace

if TYPE_CHECKING:
    import torch

    from toolkit.models.checkpoint import LoadedModel
    from toolkit.training.distributed import World
    from toolkit.training.loop import Progress
    from toolkit.training.session import Outcome, Plan

FASHION = "fashion-mnist"
MOST_EVALUATION = 2000
Step = Callable[[str, int, int], None]


@dataclass(frozen=True)
class TrainingData:
    """What a run is about to learn from.

    Attributes:
        facts: counts, hashes, duplicates, mean and std, as `toolkit.data.summary` gives them.
        dropped: training images left out because they are also test images.
        skipped: damaged files that were left out, each with the reason.
        notes: what was done to the images, in sentences.
    """

    facts: dict[str, Any]
    dropped: int
    skipped: tuple[str, ...]
    notes: tuple[str, ...] = ()


class SaidByAnother(ToolkitError):
    """A fault of a run of several processes, which rank 0 raises as it is."""


def train(
    name: str | None = None,
    data: PathLike = FASHION,
    options: TrainOptions = TrainOptions(),
    *,
    command: str | None = None,
    on_step: Step = lambda what, done, total: None,
    on_data: Callable[[TrainingData], None] = lambda found: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> TrainingResult:
    """Trains a ResNet for small images and writes models/NAME: card, weights, training.jsonl and training.png.

    Ctrl-C leaves the best epoch so far. The test images are looked at once, at the end. Under torchrun the processes
    share every batch; rank 0 alone writes and calls back.

    Args:
        name: of the model in models/; None is made of architecture and data.
        data: a named set, a folder of class folders, or an .npz.
        command: what the card says that it was made with; None is this call.
        on_step: called with (what is being done, done, total) while the images are read.
        on_data: called with what is in the images, before the first epoch.
        on_progress: called with `toolkit.training.loop.Progress` after steps.

    Raises:
        ToolkitError: the images, the model to start from or the options cannot be used, or there is a model
            of that name. MissingPackage: no PyTorch.
    """
    with needs("train"):
        from toolkit.training.devices import device_from_name
        from toolkit.training.distributed import joined, world_from_environment
        from toolkit.training.session import run_training

    world = world_from_environment()
    with joined(world, device_from_name(options.device)) as device:
        try:
            call = _Call(name, os.fspath(data), options, command, on_step, on_data)
            plan, images, facts = world.together(
                lambda: _prepared(call if world.first else call.quiet(), device, world)
            )
            outcome = run_training(plan, resume=options.resume, on_progress=on_progress)
            if world.first:
                _write_images(outcome, plan, images)
        except ToolkitError as error:
            if world.first:
                raise
            raise SaidByAnother(error.what, found=error.found, allowed=error.allowed, fix=error.fix) from error
    trained = outcome.trained
    return TrainingResult(
        ok=not trained.interrupted,
        model=outcome.folder.resolve(),
        accuracy=outcome.card.accuracy,
        holdout_top1_percent=round(100 * trained.holdout_top1, 3),
        best_epoch=trained.best_epoch,
        epochs_done=trained.epochs_done,
        images_per_s=round(trained.images_per_s, 1),
        seconds=round(trained.seconds, 1),
        interrupted=trained.interrupted,
        data=facts,
        lost=trained.lost,
    )


@dataclass(frozen=True)
class _Call:
    name: str | None
    data: str
    options: TrainOptions
    command: str | None
    on_step: Step
    on_data: Callable[[TrainingData], None]

    def quiet(self) -> _Call:
        """The same without callbacks."""
        return _Call(
            self.name, self.data, self.options, self.command, lambda what, done, total: None, lambda found: None
        )

    def said(self) -> str:
        """For the card."""
        return self.command or f"toolkit.train({self.name!r}, {self.data!r}, {self.options.said()})"


def _prepared(call: _Call, device: torch.device, world: World) -> tuple[Plan, ModelImages, dict[str, Any]]:
    """A plan, the images that will calibrate and judge its model, and what is in the data."""
    from toolkit.models.checkpoint import folder_of_model, load_model
    from toolkit.training.augment import why_not_mirrored
    from toolkit.training.session import Plan

    options, data = call.options, call.data
    start = None if options.start is None else load_model(folder_of_model(os.fspath(options.start)))
    arch = options.arch or (start.card.name if start is not None else "resnet32x32")
    stem = "fashion" if data == FASHION else usable_name(Path(data).stem)
    name = require_name(call.name or f"{arch}-{stem}")
    if not (options.resume or options.replace):
        _require_free(name)
    whole = _dataset(call, start)
    facts = summary(whole)
    dataset, dropped = without_test_images(whole, facts["test_images_also_in_train"])
    if options.qat:
        _require_classes(start, dataset.train.classes)
    defaults = defaults_from_nothing if start is None else fine_tuning_defaults
    recipe, notes = options.recipe(defaults(len(dataset.train))), whole.notes
    if options.crop is None:
        recipe = replace(recipe, crop=crop_of(*dataset.train.images_nhwc.shape[1:3]))
    if options.flip is None and (reason := why_not_mirrored(dataset.train)):
        recipe = replace(recipe, flip=False)
        notes = (*notes, f"Images are not mirrored: {reason}; `flip=True` does it all the same.")
    call.on_data(TrainingData(facts, dropped, tuple(whole.skipped), notes))
    different = len({image.tobytes() for image in dataset.train.images_nhwc})
    images = images_from_dataset(
        dataset, ImageRecipe(data, min(options.images, different), options.seed), most_evaluation=MOST_EVALUATION
    )
    qat = None
    if start is not None and options.qat:
        from toolkit.training.qat_scales import fake_quantization_of_model

        qat = fake_quantization_of_model(start, images.calibration)
    said = _for_the_card(options, data)
    said |= {"arch": None if start is not None else arch, "epochs": recipe.epochs, "batch": recipe.batch}
    said |= {"lr": recipe.lr, "crop": recipe.crop, "flip": recipe.flip, "resize": _resize(options, start)}
    plan = Plan(
        name, arch, options.network(), dataset, recipe, device, workspace() / "models" / name, call.said(),
        start=start, world=world, tensorboard=options.tensorboard, dropped=dropped, qat=qat, options=said,
    )  # fmt: skip
    return plan, images, facts | {"training_images_dropped": dropped}


def _require_free(name: str) -> None:
    """Refuses to train over a model, or over images that belong to none.

    Raises:
        ToolkitError: says what is there, how good and of when.
    """
    from toolkit.models.card import CARD, card_from_folder

    model, images = workspace() / "models" / name, workspace() / "calibration" / name / RECIPE
    if (model / CARD).is_file():
        try:
            accuracy = card_from_folder(model).accuracy or {}
        except ToolkitError:
            accuracy = {}
        good = (
            f"top-1 {accuracy['top1_percent']} % on {accuracy.get('data', 'its images')}"
            if "top1_percent" in accuracy
            else "not judged"
        )
        found = f"{good}, {date_of(model / CARD)}"
    elif images.is_file():
        model, found = images.parent, f"{RECIPE}, {date_of(images)}, and no model of that name"
    else:
        return
    raise ToolkitError(
        f"{model} is there already",
        found=found,
        fix="choose another name, or `replace=True`; `resume=True` goes on with an interrupted run",
    )


def _dataset(call: _Call, start: LoadedModel | None) -> Dataset:
    options = call.options
    return dataset_from_spec(
        call.data,
        seed=options.seed,
        shape=options.shape() if start is None else start.card.preprocessing.shape,
        convert=options.converts,
        resize=_resize(options, start),
        skip_bad=options.skip_bad,
        download=options.download,
        on_progress=lambda done, total: call.on_step("read images", done, total),
    )


def _resize(options: TrainOptions, start: LoadedModel | None) -> str:
    return options.resize or (SQUASH if start is None else start.card.resize)


def _require_classes(start: LoadedModel | None, classes: tuple[str, ...]) -> None:
    """Fake quantization keeps the head, so the classes are those of the model."""
    assert start is not None
    if classes != start.card.labels:
        raise ToolkitError(
            "`qat=True` needs the classes that the model was trained on, in their order",
            found=", ".join(classes),
            allowed=", ".join(start.card.labels),
            fix="fine-tune with `start=` alone first",
        )


def _for_the_card(options: TrainOptions, data: str) -> dict[str, Any]:
    """Every option by its name on the command line, which `toolkit train --config` reads."""
    said: dict[str, Any] = {}
    for field in fields(options):
        value = getattr(options, field.name)
        if field.name in ("resume", "replace"):
            continue
        if isinstance(value, tuple):
            value = ("x" if field.name == "size" else ",").join(map(str, value))
        said["from" if field.name == "start" else field.name.replace("_", "-")] = (
            os.fspath(value) if isinstance(value, os.PathLike) else value
        )
        if field.name == "arch":
            said["data"] = data
    return said


def _write_images(outcome: Outcome, plan: Plan, images: ModelImages) -> None:
    """Recipe and images of the model; QAT scales as a record beside them: where `toolkit.export` looks."""
    folder = workspace() / "calibration" / plan.name
    write_images(folder, images)
    if not outcome.qat_scales:
        return
    from toolkit.models.checkpoint import load_model
    from toolkit.training.qat_scales import record_of_scales

    notes = {"learned": "fake quantization, by toolkit.train", "from": plan.start.card.name if plan.start else None}
    record = record_of_scales(load_model(outcome.folder), images.calibration, outcome.qat_scales, notes)
    write_json(folder / RECORD, record.as_dict())
