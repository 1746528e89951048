"""`toolkit train`: images become a model with a card, and the images that will calibrate and judge it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from toolkit.cli.train_config import options_of_train, read_config

if TYPE_CHECKING:
    import torch

    from toolkit.contracts import Dataset
    from toolkit.data.model_images import ModelImages
    from toolkit.models.checkpoint import LoadedModel
    from toolkit.training.distributed import World
    from toolkit.training.recipe import Recipe
    from toolkit.training.session import Outcome, Plan
    from toolkit.training.train import Progress


def command(
    context: typer.Context,
    name: str | None = typer.Argument(None, help="The model's name in models/. (default: ARCH-DATA)"),
    arch: str | None = typer.Option(
        None, "--arch", help="resnet32x32, or resnet20, 32, 44, 56 (any depth 6n + 2). (default: resnet32x32)"
    ),
    data: str = typer.Option(
        "fashion-mnist", "--data", help="fashion-mnist, cifar10, a folder of class folders, a .npz."
    ),
    start: str | None = typer.Option(
        None, "--from", metavar="MODEL", help="Fine-tune this model: its weights, architecture and input; a new head."
    ),
    qat: bool = typer.Option(
        False, "--qat", help="Fine-tune --from MODEL with fake quantization; toolkit export then takes its scales."
    ),
    config: str | None = typer.Option(
        None,
        "--config",
        metavar="FILE.toml",
        is_eager=True,
        callback=read_config,
        help="Options by their long names; the command line wins.",
    ),
    epochs: int | None = typer.Option(
        None, "--epochs", help="Passes over the training images. (default: 20; with --from 10)"
    ),
    device: str = typer.Option("auto", "--device", help="auto, cpu or cuda."),
    seed: int = typer.Option(0, "--seed", help="Of weights, order, augmentation and draws of images."),
    batch: int | None = typer.Option(
        None, "--batch", help="Images a step, of all processes. (default: 128; with --from and under 2,560 images 16)"
    ),
    lr: float | None = typer.Option(
        None, "--lr", help="Peak learning rate (Nesterov momentum 0.9). (default: 0.1; with --from 0.01)"
    ),
    weight_decay: float = typer.Option(5e-4, "--weight-decay", help="On weights; norms and biases have none."),
    label_smoothing: float = typer.Option(0.1, "--label-smoothing", help="0 to 0.9."),
    warmup: float = typer.Option(0.15, "--warmup", help="Part of the steps in which the rate rises; then a cosine."),
    crop: int = typer.Option(4, "--crop", help="Pixels of a random shift; 0 turns it off."),
    flip: bool = typer.Option(True, "--flip/--no-flip", help="Mirror half of the images."),
    ema: float = typer.Option(0.998, "--ema", help="Decay of the averaged weights, a step."),
    holdout: int = typer.Option(1000, "--holdout", help="Training images kept back to choose the best epoch."),
    amp: str = typer.Option("auto", "--amp", help="bfloat16: auto (where the device has it), bf16 or off."),
    deterministic: bool = typer.Option(
        False, "--deterministic", help="Only operations that repeat bit for bit, on a GPU too; slower there."
    ),
    widths: str | None = typer.Option(None, "--widths", help="Channels of each stage, as in 64,64,64."),
    blocks: str | None = typer.Option(None, "--blocks", help="Blocks of each stage, as in 2,2,2."),
    strides: str | None = typer.Option(None, "--strides", help="Stride of each stage, as in 1,2,2."),
    stem_kernel: int | None = typer.Option(None, "--stem-kernel", help="3 or 1."),
    images: int = typer.Option(512, "--images", help="Training images kept for calibration."),
    download: bool = typer.Option(False, "--download", help="Fetch a named set that is not installed, and verify it."),
    size: str | None = typer.Option(
        None, "--size", help="Height x width x channels, as in 28x28x1. (default: the images'; with --convert 32x32x3)"
    ),
    convert: bool = typer.Option(False, "--convert", help="Resize and convert images that do not fit --size."),
    skip_bad: bool = typer.Option(False, "--skip-bad", help="Leave damaged files of a folder out, aloud."),
    tensorboard: bool = typer.Option(False, "--tensorboard", help="Scalars in models/NAME/tensorboard/ too."),
    resume: bool = typer.Option(False, "--resume", help="Go on with an interrupted run of the same name."),
) -> dict[str, Any] | int:
    """Train a ResNet for small images and write models/NAME: card, weights, training.jsonl and training.png.

    Ctrl-C leaves the best epoch so far, and --resume goes on. The test images are looked at once, at the end; the
    best epoch is chosen on images held out of the training part. Several GPUs or machines: docs/scale.md.

    Examples:
      toolkit train --arch resnet32x32 --data fashion-mnist --epochs 20

      toolkit train my-net --arch resnet20 --data photos/ --epochs 50 --convert

      toolkit train my-net --from resnet32x32-fashion --data photos/ --convert

      toolkit train my-net-qat --from my-net --data photos/ --qat

      toolkit train my-net --config my-net.toml --lr 0.05

      torchrun --nproc-per-node 4 -m toolkit train my-net --data cifar10 --batch 512 --lr 0.2
    """
    from toolkit.errors import ToolkitError
    from toolkit.lazy import needs

    with needs("train"):
        from toolkit.training.devices import device_from_name
        from toolkit.training.distributed import joined, world_from_environment
    options = {key: value for key, value in context.params.items() if key not in ("config", "resume")}
    world = world_from_environment()
    with joined(world, device_from_name(device)) as chosen:
        if world.first:
            return _train(options, chosen, world, resume)
        from toolkit.cli.console import console

        console().quiet = True  # rank 0 speaks for all
        try:
            return 0 if _train(options, chosen, world, resume)["ok"] else 1
        except ToolkitError:
            return 1


def _train(options: dict[str, Any], device: torch.device, world: World, resume: bool) -> dict[str, Any]:
    """Prepares on every process, trains on all of them, writes on rank 0; returns what is printed."""
    from toolkit.cli.train_qat import write_qat_record
    from toolkit.data.model_images import write_images
    from toolkit.training.result import TrainingResult
    from toolkit.training.session import run_training
    from toolkit.workspace import workspace

    prepared = world.together(lambda: _prepared(options, device, world))
    plan, name = prepared.plan, prepared.plan.name
    with _Bars(plan.recipe.epochs) as bars:
        outcome = run_training(plan, resume=resume, on_progress=bars)
    if world.first:
        folder = workspace() / "calibration" / name
        write_images(folder, prepared.images)
        if outcome.qat_scales:
            write_qat_record(folder, outcome, prepared.plan, prepared.images)
        _report(outcome, name)
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
        data=prepared.facts,
        next=None if trained.interrupted else f"toolkit export {name} --int8 --fp16",
    ).as_dict()


@dataclass(frozen=True)
class _Prepared:
    """A plan, the images that will calibrate and judge its model, and what is in the data."""

    plan: Plan
    images: ModelImages
    facts: dict[str, Any]


def _prepared(options: dict[str, Any], device: torch.device, world: World) -> _Prepared:
    from pathlib import Path

    from toolkit.cli.console import note
    from toolkit.cli.train_data import show_summary, without_test_images
    from toolkit.cli.train_qat import recipe_of_qat
    from toolkit.data import summary
    from toolkit.data.model_images import Recipe as ImageRecipe
    from toolkit.data.model_images import images_from_dataset
    from toolkit.training.session import Plan
    from toolkit.workspace import require_name, workspace

    data, seed = options["data"], options["seed"]
    start = _start(options)
    arch = options["arch"] or (start.card.name if start is not None else "resnet32x32")
    name = require_name(options["name"] or f"{arch}-{Path(data).stem if data != 'fashion-mnist' else 'fashion'}")
    changes = _changes(options)
    recipe = _recipe(options, None)  # refuses what is out of range before a long read
    whole = _dataset(options, start)
    facts = summary(whole)
    dataset, dropped = without_test_images(whole, facts["test_images_also_in_train"])
    recipe = _recipe(options, len(dataset.train) if start is not None else None)
    if options["qat"]:
        recipe = recipe_of_qat(recipe, options, start, dataset.train.classes)
    show_summary(facts, dropped)
    for reason in whole.skipped:
        note(f"left out: {reason}")
    different = len({image.tobytes() for image in dataset.train.images_nhwc})
    images = images_from_dataset(
        dataset, ImageRecipe(data, min(options["images"], different), seed), most_evaluation=2000
    )
    qat = None
    if start is not None and options["qat"]:
        from toolkit.exporting.qat_scales import fake_quantization_of_model

        qat = fake_quantization_of_model(start, images.calibration)
    effective = options | {"name": name, "arch": None if start is not None else arch}
    effective |= {"epochs": recipe.epochs, "batch": recipe.batch, "lr": recipe.lr}
    plan = Plan(
        name, arch, changes, dataset, recipe, device, workspace() / "models" / name, _command_line(),
        start=start, world=world, tensorboard=options["tensorboard"], dropped=dropped, qat=qat,
        options={
            long: effective[option.parameter]
            for long, option in options_of_train().items()
            if option.parameter in effective
        },
    )  # fmt: skip
    return _Prepared(plan, images, facts | {"training_images_dropped": dropped})


def _start(options: dict[str, Any]) -> LoadedModel | None:
    """The model to fine-tune, where one was named.

    Raises:
        ToolkitError: options of an architecture beside it, which it has already.
    """
    from toolkit.errors import ToolkitError
    from toolkit.models.checkpoint import folder_of_model, load_model

    if options["start"] is None:
        return None
    shapes = ("arch", "widths", "blocks", "strides", "stem_kernel", "size")
    given = [f"--{name.replace('_', '-')}" for name in shapes if options[name] is not None]
    if given:
        raise ToolkitError(
            "--from brings its own architecture",
            found=" ".join(["--from", options["start"], *given]),
            fix=f"leave {' and '.join(given)} out, or leave --from out to train from nothing",
        )
    return load_model(folder_of_model(options["start"]))


def _changes(options: dict[str, Any]) -> dict[str, Any]:
    from toolkit.cli.options import numbers_within

    changes: dict[str, Any] = {}
    for key, low, high in (("widths", 1, 4096), ("blocks", 1, 256), ("strides", 1, 8)):
        if options[key] is not None:
            changes[key] = numbers_within(options[key], f"--{key}", low=low, high=high)
    if options["stem_kernel"] is not None:
        changes["stem_kernel"] = options["stem_kernel"]
    return changes


def _recipe(options: dict[str, Any], fine_tuned_on: int | None) -> Recipe:
    """The recipe, with the defaults of fine-tuning on so many images, or of a run from nothing."""
    from dataclasses import asdict, fields

    from toolkit.training.recipe import FROM_NOTHING, Recipe, fine_tuning_defaults

    defaults = asdict(FROM_NOTHING if fine_tuned_on is None else fine_tuning_defaults(fine_tuned_on))
    names = {field.name for field in fields(Recipe)}
    given = {key: value for key, value in options.items() if key in names and value is not None}
    return Recipe(**(defaults | given))


def _dataset(options: dict[str, Any], start: LoadedModel | None) -> Dataset:
    from toolkit.cli.console import steps
    from toolkit.cli.options import size_from_text
    from toolkit.data import dataset_from_spec

    shape = size_from_text(options["size"]) or ((32, 32, 3) if options["convert"] else None)
    with steps() as step:
        return dataset_from_spec(
            options["data"],
            seed=options["seed"],
            shape=shape if start is None else start.card.preprocessing.shape,
            convert=options["convert"],
            skip_bad=options["skip_bad"],
            download=options["download"],
            on_progress=lambda done, total: step("read images", done, total),
        )


def _command_line() -> str:
    import shlex

    words = [word for word in sys.argv[1:] if word != "--resume"]
    return shlex.join(["toolkit", *words])


def _report(outcome: Outcome, name: str) -> None:
    from toolkit.cli.console import say

    trained, accuracy = outcome.trained, outcome.card.accuracy
    if trained.interrupted or accuracy is None:
        why = "Another process ended; stopped" if trained.lost else "Interrupted"
        say(
            f"[yellow]{why}[/yellow] after {trained.epochs_done} epochs. {outcome.folder} holds epoch "
            f"{trained.best_epoch}, {100 * trained.holdout_top1:.2f} % on the held-out images. Go on with --resume."
        )
        return
    low, high = accuracy["interval95_percent"]
    say(f"[bold]{outcome.folder}[/bold]: top-1 {accuracy['top1_percent']:.2f} % ({low:.2f} to {high:.2f}) on "
        f"{accuracy['images']:,} test images, epoch {trained.best_epoch} of {trained.epochs_done}.")  # fmt: skip
    say("training.png there is the learning curve, training.jsonl its numbers.")
    say(f"Next: [bold]toolkit export {name} --int8 --fp16[/bold]")


class _Bars:
    """A progress bar with loss, held-out top-1, images/s and time left; a line an epoch where there is no terminal."""

    def __init__(self, epochs: int) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        from toolkit.cli.console import console

        self.terminal = console().is_terminal
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn(
                "loss {task.fields[loss]:.3f}  held-out {task.fields[top1]}  {task.fields[speed]:,.0f} images/s"
            ),
            TimeRemainingColumn(),
            console=console(),
            disable=not self.terminal,
            transient=True,
        )
        self.task = self.bar.add_task("train", total=None, epoch=f"0/{epochs}", loss=float("nan"), top1="-", speed=0.0)

    def __enter__(self) -> _Bars:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def __call__(self, p: Progress) -> None:
        shown: dict[str, Any] = {} if p.holdout_top1 is None else {"top1": f"{100 * p.holdout_top1:.2f} %"}
        self.bar.update(
            self.task, completed=p.step, total=p.steps, epoch=f"{p.epoch}/{p.epochs}", loss=p.loss,
            speed=p.images_per_s, **shown,
        )  # fmt: skip
        if p.holdout_top1 is not None and not self.terminal:
            from toolkit.cli.console import note

            note(f"epoch {p.epoch}/{p.epochs}: loss {p.loss:.3f}, held-out {100 * p.holdout_top1:.2f} %, "
                 f"{p.images_per_s:,.0f} images/s, {p.seconds:.0f} s")  # fmt: skip
