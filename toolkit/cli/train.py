"""`toolkit train`: images become a model with a card, and the images that will calibrate and judge it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from toolkit.models.session import Outcome
    from toolkit.models.train import Progress


def command(
    name: str | None = typer.Argument(None, help="The model's name in models/. (default: ARCH-DATA)"),
    arch: str = typer.Option("resnet32x32", "--arch", help="resnet32x32, or resnet20, 32, 44, 56 (any depth 6n + 2)."),
    data: str = typer.Option(
        "fashion-mnist", "--data", help="fashion-mnist, cifar10, a folder of class folders, a .npz."
    ),
    epochs: int = typer.Option(20, "--epochs", help="Passes over the training images."),
    device: str = typer.Option("auto", "--device", help="auto, cpu or cuda."),
    seed: int = typer.Option(0, "--seed", help="Of weights, order, augmentation and draws of images."),
    batch: int = typer.Option(128, "--batch", help="Images a step."),
    lr: float = typer.Option(0.1, "--lr", help="Peak learning rate (Nesterov momentum 0.9)."),
    weight_decay: float = typer.Option(5e-4, "--weight-decay", help="On weights; norms and biases have none."),
    label_smoothing: float = typer.Option(0.1, "--label-smoothing", help="0 to 0.9."),
    warmup: float = typer.Option(0.15, "--warmup", help="Part of the steps in which the rate rises; then a cosine."),
    crop: int = typer.Option(4, "--crop", help="Pixels of a random shift; 0 turns it off."),
    flip: bool = typer.Option(True, "--flip/--no-flip", help="Mirror half of the images."),
    ema: float = typer.Option(0.998, "--ema", help="Decay of the averaged weights, a step."),
    holdout: int = typer.Option(1000, "--holdout", help="Training images kept back to choose the best epoch."),
    amp: str = typer.Option("auto", "--amp", help="bfloat16: auto (where the device has it), bf16 or off."),
    widths: str | None = typer.Option(None, "--widths", help="Channels of each stage, as in 64,64,64."),
    blocks: str | None = typer.Option(None, "--blocks", help="Blocks of each stage, as in 2,2,2."),
    strides: str | None = typer.Option(None, "--strides", help="Stride of each stage, as in 1,2,2."),
    stem_kernel: int | None = typer.Option(None, "--stem-kernel", help="3 or 1."),
    images: int = typer.Option(512, "--images", help="Training images kept for calibration."),
    download: bool = typer.Option(False, "--download", help="Fetch a named set that is not installed, and verify it."),
    convert: bool = typer.Option(False, "--convert", help="Make folders' images fit: 32x32, one colour mode."),
    resume: bool = typer.Option(False, "--resume", help="Go on with an interrupted run of the same name."),
) -> dict[str, Any]:
    """Train a ResNet for small images and write models/NAME: card.json and weights.safetensors.

    Ctrl-C leaves the best epoch so far, and --resume goes on. The test images are looked at once, at the end; the
    best epoch is chosen on images held out of the training part.

    Examples:
      toolkit train --arch resnet32x32 --data fashion-mnist --epochs 20

      toolkit train my-net --arch resnet20 --data photos/ --epochs 50 --convert
    """
    from pathlib import Path

    from toolkit.bundle.images import Recipe as ImageRecipe
    from toolkit.bundle.images import images_from_dataset, write_images
    from toolkit.cli.console import note, parse_list, steps
    from toolkit.data import dataset_from_spec, summary
    from toolkit.lazy import needs
    from toolkit.workspace import require_name, workspace

    with needs("train"):
        from toolkit.models.session import Plan, run_training
        from toolkit.models.train import Recipe, device_from_name

    name = require_name(name or f"{arch}-{Path(data).stem if data != 'fashion-mnist' else 'fashion'}")
    recipe = Recipe(
        epochs=epochs, batch=batch, lr=lr, weight_decay=weight_decay, label_smoothing=label_smoothing, warmup=warmup,
        crop=crop, flip=flip, ema=ema, holdout=holdout, amp=amp, seed=seed,
    )  # fmt: skip
    changes: dict[str, Any] = {}
    for key, text, low, high in (("widths", widths, 1, 4096), ("blocks", blocks, 1, 256), ("strides", strides, 1, 8)):
        if text is not None:
            changes[key] = parse_list(text, f"--{key}", low=low, high=high)
    if stem_kernel is not None:
        changes["stem_kernel"] = stem_kernel
    chosen = device_from_name(device)
    with steps() as step:
        dataset = dataset_from_spec(
            data,
            seed=seed,
            shape=None if not convert else (32, 32, 3),
            convert=convert,
            download=download,
            on_progress=lambda done, total: step("read images", done, total),
        )
    facts = summary(dataset)
    size = "x".join(map(str, dataset.train.images_nhwc.shape[1:]))
    note(
        f"{dataset.name}: {len(dataset.train):,} training and {len(dataset.test):,} test images of {size}, "
        f"{len(dataset.train.classes)} classes"
    )
    calibrating = images_from_dataset(
        dataset, ImageRecipe(data, min(images, len(dataset.train)), seed), most_evaluation=2000
    )
    plan = Plan(name, arch, changes, dataset, recipe, chosen, workspace() / "models" / name, _command_line())
    with _Bars(epochs) as bars:
        outcome = run_training(plan, resume=resume, on_progress=bars)
    write_images(workspace() / "calibration" / name, calibrating)
    _report(outcome, name)
    trained = outcome.trained
    return {
        "ok": not trained.interrupted,
        "model": str(outcome.folder.resolve()),
        "accuracy": outcome.card.accuracy,
        "holdout_top1_percent": round(100 * trained.holdout_top1, 3),
        "best_epoch": trained.best_epoch,
        "epochs_done": trained.epochs_done,
        "images_per_s": round(trained.images_per_s, 1),
        "seconds": round(trained.seconds, 1),
        "interrupted": trained.interrupted,
        "data": facts,
    } | ({} if trained.interrupted else {"next": f"toolkit export {name} --int8 --fp16"})


def _command_line() -> str:
    import shlex

    words = [word for word in sys.argv[1:] if word != "--resume"]
    return shlex.join(["toolkit", *words])


def _report(outcome: Outcome, name: str) -> None:
    from toolkit.cli.console import say

    trained, accuracy = outcome.trained, outcome.card.accuracy
    if trained.interrupted or accuracy is None:
        say(
            f"[yellow]Interrupted[/yellow] after {trained.epochs_done} epochs. {outcome.folder} holds epoch "
            f"{trained.best_epoch}, {100 * trained.holdout_top1:.2f} % on the held-out images. Go on with --resume."
        )
        return
    low, high = accuracy["interval95_percent"]
    say(f"[bold]{outcome.folder}[/bold]: top-1 {accuracy['top1_percent']:.2f} % ({low:.2f} to {high:.2f}) on "
        f"{accuracy['images']:,} test images, epoch {trained.best_epoch} of {trained.epochs_done}.")  # fmt: skip
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
