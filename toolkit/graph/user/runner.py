"""An ONNX file as it came, run as its own users run it: pixels normalized outside, in batches that it takes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.contracts import Float32, Preprocessing, UInt8
from toolkit.errors import ModelError, ToolkitError
from toolkit.graph.edit import add_constants, set_nodes
from toolkit.graph.user_file import OnnxFile
from toolkit.runtime.ort.runner import OrtRunner
from toolkit.runtime.runner import ClosesItself
from toolkit.storage.limits import INPUT_BATCH, INPUT_NUMBERS, INPUT_SIDE

if TYPE_CHECKING:
    import onnx

LAYOUTS = ("nchw", "nhwc")
Numbers = tuple[float, ...]


@dataclass(frozen=True)
class Form:
    """What the file's input is.

    Attributes:
        batch: that the file insists on; 0 where it takes any.
        nchw: else NHWC.
    """

    height: int
    width: int
    channels: int
    batch: int
    nchw: bool

    @property
    def size(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return self.height, self.width, self.channels

    def shape(self, batch: Any) -> list[Any]:
        """The input's shape with some batch."""
        image = [self.channels, self.height, self.width] if self.nchw else [self.height, self.width, self.channels]
        return [batch, *image]


def with_images(file: OnnxFile, layout: str | None, size: tuple[int, int, int] | None) -> OnnxFile:
    """A file that takes rows of pixels, or images without channels, as one that takes images; any other as it is.

    Args:
        size: (H, W, C) that a row is of; of colors `layout` says whether they come one after the other ("nchw").

    Raises:
        ModelError: a row is of another length, or nothing says where the colors are.
    """
    value = file.model.graph.input[0]
    dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    if size is None or len(dims) not in (2, 3):
        return file
    height, width, channels = size
    whole = dims[1] if len(dims) == 2 else dims[1] * dims[2]
    if whole not in (0, height * width * channels):
        raise ModelError(f"{file.path} takes {whole} pixels", found=size, allowed="`size=` of as many")
    if channels > 1 and layout is None:
        fix = "`layout='nchw'` where one color follows the other, else `layout='nhwc'`"
        raise ModelError(f"{file.path} takes rows of pixels and colors", found=dims, fix=fix)
    return replace(file, model=_reshaping(file.model, size, layout != "nhwc", len(dims)))


def _reshaping(model: onnx.ModelProto, size: tuple[int, int, int], nchw: bool, rank: int) -> onnx.ModelProto:
    import onnx
    from onnx import TensorProto, helper

    height, width, channels = size
    image = [channels, height, width] if nchw else [height, width, channels]
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    old, batch = graph.input[0].name, graph.input[0].type.tensor_type.shape.dim[0]
    sizes = [0, height, width] if rank == 3 else [0, -1]
    add_constants(graph, {f"{old}_sizes": np.array(sizes, np.int64)})
    row = helper.make_node("Reshape", [f"{old}_images", f"{old}_sizes"], [old], f"{old}_row")
    set_nodes(graph, [row, *graph.node])
    shape = [batch.dim_value or batch.dim_param or "batch", *image]
    graph.input[0].CopyFrom(helper.make_tensor_value_info(f"{old}_images", TensorProto.FLOAT, shape))
    return result


def form_of_file(file: OnnxFile, layout: str | None, size: tuple[int, int, int] | None) -> Form:
    """Reads batch, size and layout off the input.

    Args:
        layout: "nchw" or "nhwc"; None finds it by where the 1 or 3 channels are.
        size: (H, W, C) for a file that leaves height and width open.

    Raises:
        ModelError: no images, or a size that stays open.
    """
    if layout not in (None, *LAYOUTS):
        raise ToolkitError("`layout=` cannot be read", found=layout, allowed=" or ".join(LAYOUTS))
    value = file.model.graph.input[0]
    tensor = value.type.tensor_type
    dims = [max(dim.dim_value, 0) if dim.HasField("dim_value") else 0 for dim in tensor.shape.dim]  # -1 is open, too
    words = [dim.dim_value or dim.dim_param or "?" for dim in tensor.shape.dim]
    allowed = "(batch, C, H, W) or (batch, H, W, C), C 1 or 3"
    if len(dims) != 4:
        raise ModelError(
            f"the input '{value.name}' of {file.path} takes no images",
            found=words,
            allowed=allowed,
            fix="`size=(28, 28, 1)` says how rows of pixels become an image" if len(dims) in (2, 3) else None,
        )
    fits = [place for place, name in ((1, "nchw"), (3, "nhwc")) if dims[place] in (1, 3) and layout in (None, name)]
    if not fits and size is not None and not (dims[1] and dims[3]):  # all open: the layout must be said
        fits = [{"nchw": 1, "nhwc": 3}[layout]] if layout else []
    if len(fits) != 1:
        raise ModelError(
            f"the input '{value.name}' of {file.path} " + ("may be of either layout" if fits else "takes no images"),
            found=words,
            allowed=allowed,
            fix="`layout='nchw'` or `layout='nhwc'` says which it is"
            if fits or layout is None
            else "leave out `layout=`",
        )
    nchw = fits[0] == 1
    channels, height, width = (dims[1], dims[2], dims[3]) if nchw else (dims[3], dims[1], dims[2])
    if not (channels and height and width):
        if size is None:
            raise ModelError(
                f"{file.path} leaves the size of its images open",
                found=words,
                allowed="a fixed height and width: INT8 ranges and engines are for one size",
                fix="`size=(32, 32, 3)` fixes it",
            )
        height, width, channels = (own or asked for own, asked in zip((height, width, channels), size, strict=True))
    if size not in (None, (height, width, channels)):
        raise ModelError(f"{file.path} takes images of another size", found=words, allowed="`size=` of its input")
    if max(height, width) > INPUT_SIDE or height * width * channels > INPUT_NUMBERS or dims[0] > INPUT_BATCH:
        raise ModelError(
            f"the input '{value.name}' of {file.path} is larger than images are",
            found=words,
            allowed=f"sides up to {INPUT_SIDE:,}, {INPUT_NUMBERS:,} values an image, batches up to {INPUT_BATCH:,}",
        )
    return Form(height, width, channels, dims[0], nchw)


def preprocessing_of_pixels(
    form: Form, pixels: str | None, mean: Numbers | None, std: Numbers | None, bgr: bool = False
) -> Preprocessing:
    """What a file's users do to pixels before they call it.

    Args:
        pixels: "0-1" or "0-255": the scale that the network sees before mean and std, and that these are of.
        mean, std: a number a channel, in the network's order, or one for all; None for no normalization.
        bgr: the network wants blue first.

    Raises:
        ToolkitError: numbers that do not belong to that scale.
    """
    if pixels not in (None, "0-1", "0-255"):
        raise ToolkitError("`pixels=` cannot be read", found=pixels, allowed="0-1 or 0-255")
    if (mean is None) != (std is None):
        alone = "`mean=` alone" if std is None else "`std=` alone"
        raise ToolkitError("mean and std belong together", found=alone, fix="give both as they were in training")
    unit = 255.0 if pixels == "0-255" else 1.0
    largest = max(map(abs, mean or (0.0,)))
    if largest > unit or (unit > 1 and 0 < largest <= 1):
        raise ToolkitError(
            f"`mean=` is not of pixels scaled to {pixels or '0-1'}",
            found=", ".join(f"{m:g}" for m in mean or ()),
            allowed="mean and std of pixels as `pixels=` says they are",
            fix="add `pixels='0-255'`" if unit == 1 else "leave out `pixels='0-255'`",
        )
    means, stds = ((given or (default,)) for given, default in ((mean, 0.0), (std, 1.0)))
    per_channel = [tuple(v / unit for v in (values * form.channels if len(values) == 1 else values))
                   for values in (means, stds)]  # fmt: skip
    means, stds = (values[::-1] if bgr else values for values in per_channel)
    return Preprocessing(*form.size, means, stds, bgr)


class UserRunner(ClosesItself):
    """The file as it came.

    Args:
        model: its graph, or one that gives the logits before its Softmax.
    """

    name = "ort"

    def __init__(self, file: OnnxFile, model: onnx.ModelProto, form: Form, preprocessing: Preprocessing) -> None:
        self.form, self.factors, self.bgr = form, preprocessing.scale_and_shift(), preprocessing.bgr
        self.inner = OrtRunner(model.SerializeToString(), label=str(file.path))
        self.description = f"{file.path} as it came"

    def logits(self, images_nhwc: UInt8) -> Float32:
        """Images uint8 (N, H, W, C) to logits float32 (N, classes), in calls of the size that the file takes."""
        values = self._normalized(images_nhwc)
        step, count = self.form.batch or len(values), len(values)
        values = values[np.arange(-(-count // step) * step) % count]  # whole calls
        answers = [self.raw(values[at : at + step]).reshape(step, -1) for at in range(0, len(values), step)]
        return np.concatenate(answers)[:count]

    def values(self, images_nhwc: UInt8) -> Float32:
        """What the file is given for images: normalized, in its layout."""
        return self._laid_out(self._normalized(images_nhwc))

    def _normalized(self, images_nhwc: UInt8) -> Float32:
        scale, shift = self.factors
        values: Float32 = images_nhwc.astype(np.float32) * scale + shift
        return values[..., ::-1] if self.bgr else values

    def _laid_out(self, values_nhwc: Float32) -> Float32:
        return np.ascontiguousarray(values_nhwc.transpose(0, 3, 1, 2) if self.form.nchw else values_nhwc)

    def raw(self, values_nhwc: Float32) -> Float32:
        """One call with normalized pixels; the output as it is.

        Raises:
            ModelError: the file cannot be run.
        """
        values = self._laid_out(values_nhwc)
        try:
            return np.asarray(self.inner.session.run(self.inner.outputs[:1], {self.inner.input: values})[0])
        except Exception as error:  # onnxruntime raises types of its own
            found = " ".join(str(error).split())[:300]
            raise ModelError(f"{self.description} fails in ONNX Runtime", found=found) from error

    def close(self) -> None:
        """Drops the session."""
        self.inner.close()


def classes_of_file(file: OnnxFile, form: Form) -> int:
    """How many logits the file answers an image with, by asking it.

    Raises:
        ModelError: it answers with something else than a row of logits.
    """
    preprocessing = Preprocessing(*form.size, (0.0,) * form.channels, (1.0,) * form.channels)
    batch = form.batch or 2
    with UserRunner(file, file.model, form, preprocessing) as runner:
        shape = runner.raw(np.zeros((batch, *form.size), np.float32)).shape
    if len(shape) > 2 and max(shape[1:]) == np.prod(shape[1:]):  # a row with sizes of 1 around it
        shape = (shape[0], max(shape[1:]))
    if len(shape) != 2 or shape[0] != batch or shape[1] < 2:
        raise ModelError(
            f"{file.path} is not a classifier",
            found=f"an answer of shape {tuple(shape)} to {batch} image{'s' if batch > 1 else ''}",
            allowed="(batch, classes): a row of logits an image, two classes or more",
        )
    return int(shape[1])
