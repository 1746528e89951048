"""What the commands that take somebody's ONNX file ask about it, in the same words: export, calibrate, sensitivity."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from toolkit.errors import ToolkitError

if TYPE_CHECKING:
    from toolkit.exporting.subject import Subject
    from toolkit.exporting.user_onnx import OnnxRequest

PANEL = "For FILE.onnx"
SKIP_BAD = typer.Option(False, "--skip-bad", help="Leave damaged files of a --data folder out, aloud.")
NAME = typer.Option(None, "--name", help="What to call it. (default: from FILE)", rich_help_panel=PANEL)
LABELS = typer.Option(
    None, "--labels", help="One a logit, with commas. (default: the images' classes)", rich_help_panel=PANEL
)
MEAN = typer.Option(
    None, "--mean", help="Of the pixels that it sees, a channel each or one for all.", rich_help_panel=PANEL
)
STD = typer.Option(None, "--std", help="Likewise.", rich_help_panel=PANEL)
SIZE = typer.Option(None, "--size", help="Of a file that leaves it open: 32x32x3.", rich_help_panel=PANEL)
PIXELS = typer.Option(
    None, "--pixels", help="What FILE.onnx sees before mean and std: 0-1 or 0-255.", rich_help_panel=PANEL
)
LAYOUT = typer.Option(
    None, "--layout", help="Of FILE.onnx: nchw or nhwc. (default: by its input's shape)", rich_help_panel=PANEL
)
BGR = typer.Option(
    False, "--bgr", help="The network wants blue first; --mean and --std are in that order.", rich_help_panel=PANEL
)
RESIZE = typer.Option(
    None, "--resize", help="How --convert treats other proportions: squash, crop or pad. (default: squash)"
)
Own = dict[str, Any]  # the options above by their names, None where nothing was said


def onnx_request(model: str, data: str | None, own: Own, verb: str) -> OnnxRequest:
    """What was asked for of somebody's ONNX file.

    Raises:
        ToolkitError: options of another kind of model, or no images.
    """
    from toolkit.exporting.user_onnx import OnnxRequest, Pixels
    from toolkit.exporting.user_torch import labels_from_text, numbers_from_text, size_from_text

    alien = [f"--{option}" for option in ("checkpoint", "kwargs", "weights") if own.get(option) is not None]
    if alien:
        raise ToolkitError(f"{', '.join(alien)} does not go with an ONNX file", found=model, fix="leave it out")
    if data is None:
        raise ToolkitError(
            f"{model} needs --data",
            found="no --data",
            allowed="images to calibrate with and to judge on",
            fix=f"toolkit {verb} {model} --data FOLDER (or FILE.npz, cifar10, fashion-mnist)",
        )
    mean, std = (numbers_from_text(own[option], f"--{option}") for option in ("mean", "std"))
    pixels = Pixels(mean, std, own["pixels"], own["layout"], size_from_text(own["size"]), bool(own.get("bgr")))
    return OnnxRequest(Path(model), data, pixels, own["name"], labels_from_text(own["labels"]))


def subject_from_words(
    model: str | None,
    data: str | None,
    own: Own,
    verb: str,
    *,
    count: int | None,
    convert: bool,
    skip_bad: bool,
    on_progress: Callable[[int, int], None],
) -> Subject:
    """What to calibrate: a model of the workspace, a bundle's fp32 file, or a file of somebody else's.

    Raises:
        ToolkitError: there is none, its images do not fit, or options that only somebody else's file has.
    """
    from toolkit.exporting.subject import is_user_file, subject_of, subject_of_user_file

    reading: Any = {"count": count, "convert": convert, "skip_bad": skip_bad, "on_progress": on_progress}
    if model is not None and is_user_file(model):
        return subject_of_user_file(onnx_request(model, data, own, verb), **reading)
    given = [f"--{option}" for option, value in own.items() if value is not None]
    if given:
        raise ToolkitError(
            f"{', '.join(given)} is for somebody else's ONNX file",
            found=model or "the shipped default",
            fix="leave it out: the model says it itself",
        )
    return subject_of(model, data=data, **reading)
