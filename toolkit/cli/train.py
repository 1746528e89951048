"""`toolkit train`: images become a model with a card; options also from a TOML file, checked at once."""

from __future__ import annotations

import inspect
import shlex
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from toolkit.cli.options import RESIZE
from toolkit.errors import ToolkitError

if TYPE_CHECKING:
    from toolkit.training.train import TrainingData

KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "bool": ((bool,), "true or false"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "str": ((str,), "a string"),
}
LISTS = ("widths", "blocks", "strides")  # [64, 64, 64] is how TOML says "64,64,64"


def read_config(context: typer.Context, file: str | None) -> str | None:
    """Makes the values of a file the defaults of a command; eager, so that the other options see them.

    Raises:
        ToolkitError: not TOML, an unknown key (names the closest one), or a value of the wrong type.
    """
    if file is None or context.resilient_parsing:
        return file
    options = options_of_train()
    defaults: dict[str, Any] = {}
    for key, value in _document(file).items():
        option = options.get(key.replace("_", "-"))
        if option is None:
            raise _unknown(file, key, sorted(options))
        defaults[option.parameter] = _value(file, key, value, option.kind)
    context.default_map = defaults
    return file


@dataclass(frozen=True)
class Option:
    """One option of `toolkit train`: the name of its parameter, and which of `KINDS` it takes."""

    parameter: str
    kind: str


def options_of_train() -> dict[str, Option]:
    """Every option of the command by its long name, but --config itself; read off the command's own signature."""
    found = {}
    for name, parameter in inspect.signature(command).parameters.items():
        words = getattr(parameter.default, "param_decls", None) or ()
        if words and name != "config":
            long = words[0].partition("/")[0].removeprefix("--")
            found[long] = Option(name, str(parameter.annotation).removesuffix(" | None"))
    return found


def _document(file: str) -> dict[str, Any]:
    from toolkit.storage.files import read_toml

    return read_toml(Path(file), ToolkitError, 'lines such as lr = 0.05 or amp = "off"')


def _unknown(file: str, key: str, allowed: list[str]) -> ToolkitError:
    from toolkit.workspace import nearest

    close = nearest(key, allowed)
    return ToolkitError(
        f"{file} has a key that is no option of this command",
        found=key,
        allowed=", ".join(allowed),
        fix=f"{close} = ..." if close else "toolkit train --help",
    )


def _value(file: str, key: str, value: Any, kind: str) -> Any:
    if key in LISTS and isinstance(value, list):
        return ",".join(map(str, value))
    types, words = KINDS[kind]
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise ToolkitError(f"{file}: {key} has a value of the wrong type", found=repr(value), allowed=words)
    return value


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
        None, "--epochs", min=1, max=10_000, help="Passes over the training images. (default: 20; with --from 10)"
    ),
    device: str = typer.Option("auto", "--device", help="auto, cpu or cuda."),
    seed: int = typer.Option(
        0, "--seed", min=0, max=2_147_483_647, help="Of weights, order, augmentation and draws of images."
    ),
    batch: int | None = typer.Option(
        None,
        "--batch",
        min=2,
        max=65_536,
        help="Images a step, of all processes. (default: 128; of small sets less, down to 16)",
    ),
    lr: float | None = typer.Option(
        None,
        "--lr",
        min=1e-08,
        max=100,
        help="Peak learning rate (Nesterov momentum 0.9). (default: 0.1; with --from 0.01)",
    ),
    weight_decay: float = typer.Option(
        5e-4, "--weight-decay", min=0, max=1, help="On weights; norms and biases have none."
    ),
    label_smoothing: float = typer.Option(
        0.1, "--label-smoothing", min=0, max=0.9, help="Part of the answer that the other classes share."
    ),
    warmup: float = typer.Option(
        0.15, "--lr-warmup", min=0, max=0.9, help="Part of the steps in which the rate rises; then a cosine."
    ),
    crop: int | None = typer.Option(
        None,
        "--crop",
        min=0,
        max=64,
        help="Pixels of a random shift; 0 turns it off. (default: an eighth of the image, at most 4)",
    ),
    flip: bool | None = typer.Option(
        None, "--flip/--no-flip", help="Mirror half of the images. (default: unless that changes classes, as of digits)"
    ),
    balance: bool = typer.Option(False, "--balance", help="Weigh images so that rare classes count as much as others."),
    patience: int = typer.Option(
        0, "--patience", min=0, max=10_000, help="End after so many epochs without a better one. (0: never)"
    ),
    ema: float = typer.Option(0.998, "--ema", min=0, max=0.99999, help="Decay of the averaged weights, a step."),
    holdout: int = typer.Option(
        1000, "--holdout", min=1, max=1_000_000_000, help="Training images kept back to choose the best epoch."
    ),
    amp: str = typer.Option("auto", "--amp", help="bfloat16: auto (where the device has it), bf16 or off."),
    deterministic: bool = typer.Option(
        False, "--deterministic", help="Only operations that repeat bit for bit, on a GPU too; slower there."
    ),
    widths: str | None = typer.Option(None, "--widths", help="Channels of each stage, as in 64,64,64."),
    blocks: str | None = typer.Option(None, "--blocks", help="Blocks of each stage, as in 2,2,2."),
    strides: str | None = typer.Option(None, "--strides", help="Stride of each stage, as in 1,2,2."),
    stem_kernel: int | None = typer.Option(None, "--stem-kernel", min=1, max=3, help="3 or 1."),
    images: int = typer.Option(512, "--images", min=1, max=1_000_000_000, help="Training images kept for calibration."),
    download: bool = typer.Option(False, "--download", help="Fetch a named set that is not installed, and verify it."),
    size: str | None = typer.Option(
        None, "--size", help="Height x width x channels, as in 28x28x1. (default: the images'; with --convert 32x32x3)"
    ),
    convert: bool = typer.Option(False, "--convert", help="Resize and convert images that do not fit --size."),
    resize: str | None = RESIZE,
    skip_bad: bool = typer.Option(False, "--skip-bad", help="Leave damaged files of a folder out, aloud."),
    tensorboard: bool = typer.Option(False, "--tensorboard", help="Scalars in models/NAME/tensorboard/ too."),
    resume: bool = typer.Option(False, "--resume", help="Go on with an interrupted run of the same name."),
    replace_model: bool = typer.Option(False, "--replace", "--force", help="Replace a model of the same name."),
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
    from toolkit.cli.console import steps
    from toolkit.cli.options import numbers_within, size_from_text
    from toolkit.cli.train_tables import Bars, show_data, show_trained
    from toolkit.training.options import TrainOptions
    from toolkit.training.train import SaidByAnother, train
    from toolkit.workspace import workspace

    stages = {
        key: None if text is None else numbers_within(text, f"--{key}", low=1, high=high)
        for key, text, high in (("widths", widths, 4096), ("blocks", blocks, 256), ("strides", strides, 8))
    }
    options = TrainOptions(
        arch=arch, start=start, qat=qat, epochs=epochs, device=device, seed=seed, batch=batch, lr=lr,
        weight_decay=weight_decay, label_smoothing=label_smoothing, warmup=warmup, crop=crop, flip=flip,
        balance=balance, patience=patience, ema=ema,
        holdout=holdout, amp=amp, deterministic=deterministic, stem_kernel=stem_kernel, images=images,
        download=download, size=size_from_text(size), convert=convert, resize=resize, skip_bad=skip_bad,
        tensorboard=tensorboard, resume=resume, replace=replace_model, **stages,
    )  # fmt: skip
    with ExitStack() as reading, Bars() as bars:
        step = reading.enter_context(steps())

        def show(found: TrainingData) -> None:
            reading.close()  # one bar at a time
            show_data(found)

        try:
            trained = train(
                name, data, options, command=_typed(context.obj), on_step=step, on_data=show, on_progress=bars
            )
        except SaidByAnother:
            return 1
    from toolkit.training.distributed import world_from_environment

    if not world_from_environment().first:
        return 0 if trained.ok else 1
    following = f"toolkit export {trained.model.name} --int8 --fp16"
    show_trained(trained, workspace() / "models" / trained.model.name, following)
    return replace(trained, next=None if trained.interrupted else following).as_dict()


def _typed(words: list[str]) -> str:
    """The command line, for the card; what only goes on with a run, or makes room for it, is no part of it."""
    return shlex.join(["toolkit", *(word for word in words if word not in ("--resume", "--replace", "--force"))])
