"""What `toolkit.export` and `toolkit.calibrate` are told: an option class each, and what a user's model leaves open."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from toolkit.calibration.record import Record
from toolkit.data.model_images import Recipe
from toolkit.errors import ToolkitError
from toolkit.target import DEFAULT_TARGET, Target, require_batch, target_from_name

PathLike = str | os.PathLike[str]
Step = Callable[[str, int, int], None]
PERCENTILE = "percentile"


@dataclass(frozen=True, kw_only=True)
class CalibrateOptions:
    """How ranges are measured; None takes what the model's recipe says.

    Attributes:
        images: how many calibrate.
        method: "auto", "minmax", "percentile", "mse" or "entropy".
        percentile: for the method of that name, which it implies.
        force: go on although the images look wrong.
        convert: resize and convert images that do not fit.
        resize: how images of other proportions come to the model's: "squash", "crop" or "pad"; implies `convert`.
            None is as the model was trained or exported, else "squash".
        skip_bad: leave damaged files of a folder out.
    """

    images: int | None = None
    method: str | None = None
    percentile: float | None = None
    force: bool = False
    convert: bool = False
    resize: str | None = None
    skip_bad: bool = False

    def reading(self, on_step: Step) -> dict[str, Any]:
        """How images are read, as every function that reads them takes it; `resize` None is the model's own way."""
        return {
            "count": self.images,
            "convert": self.convert or self.resize is not None,
            "resize": self.resize,
            "skip_bad": self.skip_bad,
            "on_progress": lambda done, total: on_step("read images", done, total),
        }

    def measuring(self, recipe: Recipe) -> tuple[str, float]:
        """The method and its percentile."""
        named = self.method or (PERCENTILE if self.percentile is not None else recipe.method)
        return named, self.percentile if self.percentile is not None else recipe.percentile


@dataclass(frozen=True, kw_only=True)
class ExportOptions(CalibrateOptions):
    """What goes into a bundle, beside how ranges are measured.

    Attributes:
        data: images to calibrate with and to judge on: a named set, a folder or an .npz; None takes the model's own.
        int8: every INT8 file: Q/DQ for TensorRT, the form for ONNX Runtime's CPU kernels, the calib.cache.
        fp16: the FP16 file, in typed tensors.
        record: ranges measured before, as a value or the path of a record.json.
        max_drop: points of agreement with fp32 that INT8 may lose; layers stay in float until it does not.
        expect_top1: the percentage of the images that fp32 must have right.
        target: what engines and calib.cache are for: a file in export/, or a value.
        batch: the engines' smallest, best served and largest batch; None takes the target's.
        engines: build with the TensorRT that is installed here, where it serves the target.
        force: go on although images or answers look wrong.

    Raises:
        ToolkitError: `max_drop` without `int8`. EngineError: sizes of a batch that do not rise.
    """

    data: PathLike | None = None
    int8: bool = False
    fp16: bool = False
    record: Record | PathLike | None = None
    max_drop: float | None = None
    expect_top1: float | None = None
    target: str | Target = DEFAULT_TARGET
    batch: tuple[int, int, int] | None = None
    engines: bool = True

    def __post_init__(self) -> None:
        if self.max_drop is not None and not self.int8:
            raise ToolkitError("`max_drop=` is about INT8", found="no `int8=True`", fix="add `int8=True`")
        if self.batch is not None:
            require_batch(*self.batch)

    @property
    def as_the_recipe_says(self) -> bool:
        """Whether nothing was said about images and ranges, so that what training has learned is taken."""
        return all(value is None for value in (self.record, self.method, self.percentile, self.data, self.images))

    def built_for(self) -> Target:
        """The target as a value, with the batch that was asked for."""
        from dataclasses import replace

        target = self.target if isinstance(self.target, Target) else target_from_name(self.target)
        return target if self.batch is None else replace(target, batch=self.batch)


@dataclass(frozen=True, kw_only=True)
class UserModel:
    """What a network that the toolkit did not build leaves open.

    Attributes:
        checkpoint: of `package.module:build`: weights, .safetensors or a .pth of tensors.
        kwargs: of the call of `build`.
        weights: which set of a checkpoint with several; None prefers a moving average.
        pixels: of FILE.onnx: "0-1" or "0-255", the pixels that it sees before mean and std.
        layout: of FILE.onnx: "nchw" or "nhwc"; None goes by its input's shape.
        output_name: of FILE.onnx: which of several outputs holds the logits.
        mean, std: of the pixels that it sees, a channel each in its order, or one; None measures them for PyTorch.
        size: (H, W, C) of a file that leaves it open, or to which `convert` brings images.
        labels: one a logit; None takes the classes of the images.
        name: what to call it; None takes that of the module or file.
        bgr: it wants blue first.
    """

    checkpoint: PathLike | None = None
    kwargs: Mapping[str, Any] | None = None
    weights: str | None = None
    pixels: str | None = None
    layout: str | None = None
    output_name: str | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    size: tuple[int, int, int] | None = None
    labels: Sequence[str] | None = None
    name: str | None = None
    bgr: bool = False

    def said(self) -> list[str]:
        """The names of what was said."""
        return [field.name for field in fields(self) if getattr(self, field.name) not in (None, False)]
