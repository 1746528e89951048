"""Every other way to read a model's images: channels turned about, another normalization; and what to type for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from toolkit.compare.parity import logits_in_batches
from toolkit.compare.readings import SWAPPED, hypotheses_for
from toolkit.contracts import Float32, Preprocessing, UInt8, preprocessing_from_images
from toolkit.errors import DataError
from toolkit.graph.preprocessing import renormalized
from toolkit.runtime.ort.runner import OrtRunner

if TYPE_CHECKING:
    import onnx

PIXELS = 1 / 255
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
USUAL = {
    "pixels from 0 to 1 (it normalizes them itself, or not at all)": (0.0, 1.0),
    "pixels as they are, 0-255 (it scales them itself)": (0.0, PIXELS),
    "pixels from -1 to 1": (0.5, 0.5),
}
USUAL_OF_CHANNELS: dict[int, dict[str, tuple[tuple[float, ...], tuple[float, ...]]]] = {
    3: {
        "ImageNet's mean and std": IMAGENET,
        "pixels from 0 to 255 less ImageNet's mean, as Caffe has them": (IMAGENET[0], (PIXELS,) * 3),
        "CIFAR-10's mean and std": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    },
    1: {"MNIST's mean and std": ((0.1307,), (0.3081,))},
}
Ask = Callable[[UInt8], Float32]
ONNX, TORCH, CARD = "onnx", "torch", "card"  # who says what a model's pixels are, and how


@dataclass(frozen=True)
class Reading:
    """Another way to read the images.

    Attributes:
        name: what the network then is said to take.
        fix: the arguments that say so; "" where nothing does.
        ask: logits of uint8 images, read so.
    """

    name: str
    fix: str
    ask: Ask


def readings_of(
    graph: onnx.ModelProto, runner: OrtRunner, here: Preprocessing, pixels: UInt8, says: str
) -> Iterator[Reading]:
    """Every other one: changes of the images, normalizations, and these with the channels turned about.

    Args:
        runner: of the graph as it is.
        pixels: images, for the mean and std that they have themselves.
        says: `ONNX`, `TORCH` or `CARD`.
    """
    ask, turned = runner_asks(runner), replace(here, bgr=not here.bgr and here.channels == 3)
    for change in hypotheses_for(here.shape):
        if change.name == SWAPPED:
            yield Reading(_order(turned), _order_option(turned, says), _changed(ask, _reversed))
        else:
            yield Reading(change.name, change.fix, _changed(ask, change.apply))
    for name, other in _normalizations(here, pixels).items():
        model = renormalized(graph, other)
        if model is None:
            return
        asked = _opened(model)
        yield Reading(f"it takes {name}", _pixel_options(other, says), asked)
        if here.channels == 3:
            both = replace(other, bgr=turned.bgr)
            yield Reading(
                f"it takes {name}, and {_order(both)}", _pixel_options(both, says), _changed(asked, _reversed)
            )


def runner_asks(runner: OrtRunner) -> Ask:
    """A runner as a function of images in any number and any layout of memory."""
    return lambda images: logits_in_batches(runner, np.ascontiguousarray(images))


def _changed(ask: Ask, change: Callable[[UInt8], UInt8]) -> Ask:
    return lambda images: ask(change(images))


def _reversed(images_nhwc: UInt8) -> UInt8:
    return images_nhwc[..., ::-1]


def _opened(model: onnx.ModelProto) -> Ask:
    """Asks a graph that is opened for each question: a dozen sessions at once would hold the weights a dozen times."""

    def ask(images_nhwc: UInt8) -> Float32:
        with OrtRunner(model.SerializeToString(), label="model.onnx, normalizing otherwise") as runner:
            return runner_asks(runner)(images_nhwc)

    return ask


def _normalizations(here: Preprocessing, pixels: UInt8) -> dict[str, Preprocessing]:
    """The usual ones that are not the one here, each once."""
    count = here.channels
    pairs = dict(USUAL_OF_CHANNELS[count])
    pairs |= {name: ((mean,) * count, (std,) * count) for name, (mean, std) in USUAL.items()}
    with contextlib.suppress(DataError):  # images that are constant in a channel have no std
        own = preprocessing_from_images(pixels)
        pairs["the mean and std of these images"] = (own.mean, own.std)
    pairs["mean and std in the reverse order"] = (here.mean[::-1], here.std[::-1])
    known, found = [(here.mean, here.std)], {}
    for name, (mean, std) in pairs.items():
        if not any(np.allclose((mean, std), pair, rtol=0.02, atol=1e-4) for pair in known):
            known.append((mean, std))
            found[name] = replace(here, mean=mean, std=std)
    return found


def _order(wanted: Preprocessing) -> str:
    return "it takes BGR, blue first" if wanted.bgr else "it takes RGB, red first"


def _order_option(wanted: Preprocessing, says: str) -> str:
    if says == CARD:
        return "image[..., ::-1] where the images are loaded"
    return "`bgr=True`" if wanted.bgr else "leave out `bgr=`"


def _pixel_options(wanted: Preprocessing, says: str) -> str:
    """The arguments that say so, with mean and std in the network's order of channels; "" for a model with a card."""
    if says == CARD:
        return ""
    mean, std = (values[::-1] if wanted.bgr else values for values in (wanted.mean, wanted.std))
    scale = says == ONNX and set(std) in ({1.0}, {PIXELS})
    unit = 255.0 if set(std) == {PIXELS} and scale else 1.0
    words = [f"pixels='{'0-255' if unit > 1 else '0-1'}'"] if scale else []
    if not scale or any(mean):
        words += [f"mean={_numbers(mean, unit)}", f"std={_numbers(std, unit)}"]
    return f"`{', '.join([*words, *(['bgr=True'] if wanted.bgr else [])])}`"


def _numbers(values: tuple[float, ...], unit: float) -> str:
    return f"({', '.join(f'{value * unit:.6g}' for value in values)},)"
