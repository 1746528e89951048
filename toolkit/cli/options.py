"""Options that several commands have, in the same words, and what is typed as values of Python."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

import typer

from toolkit.errors import ToolkitError

if TYPE_CHECKING:
    from toolkit.exporting.options import UserModel

PANEL = "For FILE.onnx"
SKIP_BAD = typer.Option(False, "--skip-bad", help="Leave damaged files of a --data folder out, aloud.")
CONVERT = typer.Option(False, "--convert", help="Resize and convert --data images that do not fit.")
RESIZE = typer.Option(
    None,
    "--resize",
    help="With other proportions: squash, crop or pad. (default: the model's own way, or squash)",
)
KEY = typer.Option(None, "--key", help="A public key that must have signed it. (default: as toolkit.toml says)")
MIN_VERSION = typer.Option(None, "--min-version", min=1, help="The least version that its signature may say.")
NAME = typer.Option(None, "--name", help="What to call it. (default: from FILE)", rich_help_panel=PANEL)
LABELS = typer.Option(
    None, "--labels", help="One a logit, with commas. (default: the images' classes)", rich_help_panel=PANEL
)
MEAN = typer.Option(
    None, "--mean", help="Of the pixels that it sees, a channel each or one for all.", rich_help_panel=PANEL
)
STD = typer.Option(None, "--std", help="Likewise.", rich_help_panel=PANEL)
SIZE = typer.Option(
    None,
    "--size",
    help="Of a file that leaves it open, or takes rows of pixels: 28x28x1.",
    rich_help_panel=PANEL,
)
PIXELS = typer.Option(
    None, "--pixels", help="What FILE.onnx sees before mean and std: 0-1 or 0-255.", rich_help_panel=PANEL
)
LAYOUT = typer.Option(
    None, "--layout", help="Of FILE.onnx: nchw or nhwc. (default: by its input's shape)", rich_help_panel=PANEL
)
OUTPUT_NAME = typer.Option(
    None, "--output-name", help="Of FILE.onnx with several outputs: the logits.", rich_help_panel=PANEL
)
BGR = typer.Option(
    False, "--bgr", help="The network wants blue first; --mean and --std are in that order.", rich_help_panel=PANEL
)


def user_model(
    *, mean: str | None, std: str | None, size: str | None, labels: str | None, kwargs: str | None = None, **others: Any
) -> UserModel | None:
    """What was typed about a user's network; None where nothing was.

    Raises:
        ToolkitError: a text that cannot be read.
    """
    from toolkit.exporting.options import UserModel

    user = UserModel(
        mean=numbers_from_text(mean, "--mean"),
        std=numbers_from_text(std, "--std"),
        size=size_from_text(size),
        labels=labels_from_text(labels),
        kwargs=kwargs_from_text(kwargs),
        **others,
    )
    return user if user.said() else None


def kwargs_from_text(text: str | None) -> dict[str, Any] | None:
    """The JSON object of `--kwargs`.

    Raises:
        ToolkitError: it is not one.
    """
    if text is None:
        return None
    try:
        values = json.loads(text)
    except ValueError as error:
        values = error
    if not isinstance(values, dict):
        raise ToolkitError("--kwargs cannot be read", found=values, allowed="a JSON object: '{\"pretrained\": false}'")
    return values


def numbers_from_text(text: str | None, option: str) -> tuple[float, ...] | None:
    """`0.49,0.48,0.45` as numbers; None where nothing was said."""
    if text is None:
        return None
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(map(math.isfinite, numbers)):
        raise ToolkitError(f"{option} cannot be read", found=text, allowed="a number a channel: 0.49,0.48,0.45")
    return numbers


def size_from_text(text: str | None) -> tuple[int, int, int] | None:
    """`32x32x3` as (H, W, C); None where nothing was said."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,4})x(\d{1,4})x([13])", text)
    if found is None:
        raise ToolkitError(
            "--size cannot be read", found=text, allowed="height x width x channels: 32x32x3, or 28x28x1 for grayscale"
        )
    height, width, channels = map(int, found.groups())
    return height, width, channels


def part_from_percent(text: str) -> float:
    """Per cent, with or without the sign, to a part: 3% to 0.03.

    Raises:
        ToolkitError: no such number.
    """
    try:
        value = float(text.removesuffix("%")) / 100
    except ValueError:
        value = -1.0
    if not 0 <= value <= 10:
        raise ToolkitError("--max-regression cannot be read", found=text, allowed="0% to 1000%, as in 3%")
    return value


def labels_from_text(text: str | None) -> tuple[str, ...] | None:
    """`a,b,c` as labels; None where nothing was said."""
    if text is None:
        return None
    labels = tuple(part.strip() for part in text.split(","))
    if len(set(labels)) != len(labels) or not all(labels) or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ToolkitError("--labels cannot be read", found=text, allowed="different names with commas: cat,dog,bird")
    return labels


def batch_from_text(text: str | None) -> tuple[int, int, int] | None:
    """`1:8:64` as a batch profile; None where nothing was said."""
    if text is None:
        return None
    try:
        smallest, best, largest = (int(part) for part in text.split(":"))
    except ValueError as error:
        raise ToolkitError(
            "--batch cannot be read", found=text, allowed="smallest:best:largest, as in 1:8:64"
        ) from error
    return smallest, best, largest


def numbers_within(text: str, option: str, *, low: int, high: int) -> tuple[int, ...]:
    """Whole numbers with commas, within limits.

    Raises:
        ToolkitError: names the option, what was found and what is allowed.
    """
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(low <= value <= high for value in values):
        raise ToolkitError(
            f"{option} cannot be read", found=text, allowed=f"numbers from {low} to {high}, as in 1,8,64"
        )
    return values
