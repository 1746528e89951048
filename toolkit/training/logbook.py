"""What a run leaves for people and scripts: a JSON line an epoch, a learning curve, TensorBoard's scalars."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import MissingPackage, ModelError
from toolkit.lazy import needs, requirement
from toolkit.storage.files import os_errors

LOG, CURVE, CONFUSION, TENSORBOARD = "training.jsonl", "training.png", "confusion.png", "tensorboard"


@dataclass(frozen=True)
class EpochLine:
    """One epoch.

    Attributes:
        loss: mean over the epoch's steps, label smoothing included, on augmented images.
        holdout_top1: 0..1, of the averaged weights on the held-out training images.
        lr: of the epoch's last step.
        seconds: of this epoch, its measurement included.
    """

    epoch: int
    loss: float
    holdout_top1: float
    lr: float
    images_per_s: float
    seconds: float


def text_from_lines(lines: Sequence[EpochLine]) -> str:
    """JSON, one object a line; shares and seconds rounded to what they mean, the loss as it was."""
    rounded = (
        asdict(line)
        | {
            "holdout_top1": round(line.holdout_top1, 6),
            "images_per_s": round(line.images_per_s, 1),
            "seconds": round(line.seconds, 3),
        }
        for line in lines
    )
    return "".join(json.dumps(line, allow_nan=False) + "\n" for line in rounded)


def lines_from_text(text: str) -> tuple[EpochLine, ...]:
    """The inverse of `text_from_lines`.

    Raises:
        ModelError: a line is not an epoch's.
    """
    try:
        return tuple(EpochLine(**json.loads(line)) for line in text.splitlines())
    except (ValueError, TypeError) as error:
        raise ModelError("the log of the interrupted run cannot be read", found=error) from error


def require_plotting() -> None:
    """Says before a long run, not after it, that its learning curve could not be drawn."""
    with needs("draw the learning curve"):
        import matplotlib.figure  # noqa: F401


def curve_png(lines: Sequence[EpochLine], title: str, best_epoch: int, majority_percent: float | None = None) -> bytes:
    """A PNG of loss, learning rate and held-out top-1 over the epochs, the best epoch marked.

    Args:
        majority_percent: what the name of the largest class alone would have right: the line to leave behind.
    """
    with needs("draw the learning curve"):
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    figure = Figure(figsize=(8, 6), dpi=100)  # no pyplot: no display and no global state
    room = {"left": 0.13, "right": 0.89, "bottom": 0.09, "top": 0.94, "hspace": 0.08}  # constrained draws twice
    above, below = figure.subplots(2, 1, sharex=True, gridspec_kw=room)
    epochs = [line.epoch for line in lines]
    marker = "o" if len(lines) < 40 else None
    above.plot(epochs, [line.loss for line in lines], color="tab:red", marker=marker, markersize=4)
    above.set_ylabel("training loss, mean of the epoch")
    rate = above.twinx()
    rate.plot(epochs, [line.lr for line in lines], color="0.55", linestyle=":", linewidth=1)
    rate.set_ylabel("learning rate (dotted)", color="0.4")
    rate.set_ylim(bottom=0)
    above.set_title(title, parse_math=False)
    below.plot(epochs, [100 * line.holdout_top1 for line in lines], color="tab:blue", marker=marker, markersize=4)
    below.set_ylabel("held-out top-1 [%]")
    below.set_xlabel("epoch")
    if majority_percent is not None:
        label = f"largest class alone: {majority_percent:.1f} %"
        below.axhline(majority_percent, color="tab:orange", linestyle="--", linewidth=1, label=label)
    best = next((line for line in lines if line.epoch == best_epoch), None)
    if best is not None:
        label = f"best: {100 * best.holdout_top1:.2f} % in epoch {best.epoch}"
        below.axvline(best.epoch, color="0.6", linestyle="--", linewidth=1, label=label)
        below.legend(loc="best")
        below.set_ylim(top=min(below.get_ylim()[1], 100.5))
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (above, below):
        axes.grid(alpha=0.3)
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()


class TensorBoard:
    """Scalars of a run, written while it goes on beside the model's folder and moved into it at the end.

    The folder of a model is replaced as a whole; what is written meanwhile cannot lie in it.

    Raises:
        MissingPackage: the tensorboard package is not installed.
    """

    def __init__(self, folder: Path, earlier: Sequence[EpochLine] = ()) -> None:
        try:
            with needs("write TensorBoard's scalars"):
                from torch.utils.tensorboard import SummaryWriter
        except MissingPackage as error:
            raise MissingPackage(
                "`tensorboard=True` needs the tensorboard package, which cannot be imported here",
                found=error.found,
                fix=f"pip install {requirement('tensorboard')}, or leave `tensorboard=` out: "
                f"{LOG} and {CURVE} are written in any case",
            ) from error
        self.folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        self.writer: Any = SummaryWriter(str(folder))
        for line in earlier:
            self.add(line)

    def add(self, line: EpochLine) -> None:
        """One epoch's scalars."""
        for tag, value in (
            ("loss/train", line.loss),
            ("top1/holdout", line.holdout_top1),
            ("lr", line.lr),
            ("images_per_s", line.images_per_s),
        ):
            self.writer.add_scalar(tag, value, line.epoch)
        self.writer.flush()

    def close(self) -> None:
        """Ends the file."""
        self.writer.close()

    def discard(self) -> None:
        """Ends the file of a run that left no model, and removes it."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def move_scalars(folder: Path, model: Path) -> None:
    """Puts what TensorBoard shows into the model's folder."""
    with os_errors(model):
        shutil.rmtree(model / TENSORBOARD, ignore_errors=True)
        folder.rename(model / TENSORBOARD)
