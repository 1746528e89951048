"""A user's network: imported by path, called, and asked with real images whether it is a classifier."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.errors import ModelError, ToolkitError
from toolkit.models.resnet import logits_alone
from toolkit.workspace import nearest

EXAMPLE = "package.module:build, such as mynet:ResNet"
# Two runs on the same images; convolutions may add up in another order at another batch.
RELATIVE_TOLERANCE, HALF_TOLERANCE = 1e-4, 5e-3
WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, torch.optim.swa_utils.AveragedModel)


def is_import_path(model: str) -> bool:
    """Whether MODEL names Python rather than a model folder."""
    return ":" in model and not Path(model).exists()


def network_from_import_path(spec: str, kwargs: dict[str, Any]) -> tuple[nn.Module, Any]:
    """The network that `package.module:name` stands for, in evaluation mode and float32 on the CPU.

    The current folder is importable. `name` is a callable that returns an nn.Module (a class is one), or an
    nn.Module; of DataParallel, torch.compile and their like what they wrap is taken. **This runs the code it names.**

    Args:
        kwargs: given to the callable.

    Returns:
        The network, and what the path names.

    Raises:
        ModelError: no such module or name, the call raises, or what comes back is no nn.Module.
    """
    module_name, _, name = spec.partition(":")
    if not module_name or not all(part.isidentifier() for part in [*module_name.split("."), *name.split(".")]):
        raise ModelError(f"'{spec}' is not the import path of a network", allowed=EXAMPLE)
    found = _attribute(_module(module_name), module_name, name)
    net = found if isinstance(found, nn.Module) else _called(found, spec, kwargs)
    if not isinstance(net, nn.Module):
        raise ModelError(f"{spec} is no network", found=type(net).__name__, allowed="a torch.nn.Module")
    return _unwrapped(net).cpu().float().eval(), found


def _unwrapped(net: nn.Module) -> nn.Module:
    """What DataParallel, an average of weights and torch.compile stand around: names in checkpoints lack them."""
    while True:
        inner = getattr(net, "_orig_mod", net.module if isinstance(net, WRAPPERS) else None)
        if not isinstance(inner, nn.Module):
            return net
        net = inner


@contextmanager
def _user_code(what: str, fix: str | None = None) -> Iterator[None]:
    """Whatever a user's code raises becomes a sentence; Ctrl-C passes."""
    try:
        yield
    except ToolkitError:
        raise
    except (Exception, SystemExit) as error:  # a script without a main guard may call exit()
        text = " ".join(str(error).split())[:300]
        raise ModelError(what, found=f"{type(error).__name__}: {text}".removesuffix(": "), fix=fix) from error


def _module(name: str) -> Any:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    importlib.invalidate_caches()
    with _user_code(f"importing {name} failed", fix="mend that file, or name another module"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise _not_found(name, error) from error


def _not_found(name: str, error: ModuleNotFoundError) -> ModelError:
    """The module itself is missing, or a package that it needs."""
    missing = error.name or ""
    if name != missing and not name.startswith(f"{missing}."):
        return ModelError(
            f"{name} needs the package '{missing}', which is not installed here", fix=f"pip install {missing}"
        )
    here = [path.stem for path in Path.cwd().iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    meant = nearest(name, here)
    return ModelError(
        f"there is no Python module '{missing}'",
        found=f"neither in {Path.cwd()} nor installed",
        allowed=EXAMPLE,
        fix=f"did you mean {meant}?" if meant else "run this in the folder that holds it",
    )


def _attribute(module: Any, module_name: str, name: str) -> Any:
    value = module
    for part in name.split("."):
        if not hasattr(value, part):
            public = [entry for entry in dir(value) if not entry.startswith("_")]
            meant = nearest(part, public)
            raise ModelError(
                f"{module_name} has no '{name}'",
                found=", ".join(public[:8]) or "nothing",
                fix=f"{module_name}:{meant}" if meant else None,
            )
        value = getattr(value, part)
    return value


def _called(build: Any, spec: str, kwargs: dict[str, Any]) -> Any:
    if not callable(build):
        raise ModelError(f"{spec} is no network", found=type(build).__name__, allowed="a callable or an nn.Module")
    words = ", ".join(f"{key}={value!r}" for key, value in kwargs.items())
    with _user_code(f"{spec}({words}) failed", fix=f"`kwargs=...` gives it arguments; it takes {_taken(build)}"):
        return build(**kwargs)


def _taken(build: Any) -> str:
    try:
        return str(inspect.signature(build))[:200]
    except (TypeError, ValueError):
        return "what its documentation says"


def classes_of_network(net: nn.Module, shape: tuple[int, int, int]) -> int:
    """How many logits the network gives, by a forward pass over noise.

    Args:
        shape: (H, W, C) of the images.

    Raises:
        ModelError: it does not take this size, answers with anything but (N, classes), or answers differently when
            asked again or in other company.
    """
    height, width, channels = shape
    images = torch.randn((3, channels, height, width), generator=torch.Generator().manual_seed(0))
    logits = _logits(net, images, shape)
    _require_same(logits, _logits(net, images, shape), "gives another answer when it is asked again")
    alone = torch.cat([_logits(net, image[None], shape) for image in images])
    _require_same(logits, alone, "gives an image another answer when other images are beside it")
    return logits.shape[1]


def _logits(net: nn.Module, images: Tensor, shape: tuple[int, int, int]) -> Tensor:
    height, width, channels = shape
    what = f"the network does not take images of {height}x{width}x{channels}"
    try:
        with _user_code(what, fix=_size_hint(net, shape)), torch.inference_mode():
            answer = logits_alone(net(images))
    except ModelError as error:
        raise _otherwise_explained(error) from error.__cause__
    if isinstance(answer, Tensor) and answer.ndim == 2 and len(answer) == len(images) and answer.shape[1] >= 2:
        return answer
    fix = "wrap it: a module whose forward returns the logits alone"
    if isinstance(answer, Tensor) and answer.ndim == 1 and len(images) == 1:
        fix = "`squeeze()` takes the batch away, too, where it is 1: write flatten(1) instead"
    if isinstance(answer, Tensor) and answer.ndim == 4:
        fix = "put torch.nn.AdaptiveAvgPool2d(1) and torch.nn.Flatten() behind it"
    raise ModelError(
        f"the network is no classifier of images of {height}x{width}x{channels}",
        found=f"for {len(images)} images it answers with {_described(answer)}",
        allowed="one tensor of logits, (images, classes) with at least 2 classes",
        fix=fix,
    )


def _otherwise_explained(error: ModelError) -> ModelError:
    """The same error, with what to do where it is not about the size of the images."""
    cause, found = error.__cause__, str(error.found)
    if isinstance(cause, TypeError) and ("argument" in found or "forward" in found):
        return ModelError("the network takes more than images", found=found, fix="wrap it: forward takes images alone")
    if "scalar type" in found or "same dtype" in found or "HalfTensor" in found or "BFloat16" in found:
        fix = "build it in float32, without half() and bfloat16() inside: the precision is chosen at export"
        return ModelError("the network computes with another type than float32 inside", found=found, fix=fix)
    return error


def _described(answer: Any) -> str:
    if isinstance(answer, Tensor):
        return f"a tensor of {tuple(answer.shape)}"
    if isinstance(answer, dict):
        return f"a {type(answer).__name__} of {', '.join(map(str, list(answer)[:4]))}"
    if isinstance(answer, (tuple, list)):
        return f"a {type(answer).__name__} of {len(answer)}: {', '.join(_described(part) for part in answer[:3])}"
    return f"a {type(answer).__name__}"


def _size_hint(net: nn.Module, shape: tuple[int, int, int]) -> str:
    """The channels of the first convolution, where those are what is wrong."""
    first = next((module for module in net.modules() if isinstance(module, nn.Conv2d)), None)
    if first is not None and first.in_channels != shape[2] and first.in_channels in (1, 3):
        size = (*shape[:2], first.in_channels)
        return f"it begins with a convolution of {first.in_channels} channels: `size={size}, convert=True`"
    return "give the size that it was trained with: `size=(H, W, C), convert=True`"


def _require_same(one: Tensor, other: Tensor, what: str) -> None:
    tolerance = HALF_TOLERANCE if torch.equal(one, one.half().to(one.dtype)) else RELATIVE_TOLERANCE
    if not float((one - other).abs().max()) <= tolerance * float(one.abs().max().clamp(min=1e-30)):
        raise ModelError(
            f"the network {what}",
            found=f"logits of evaluation mode differ by {float((one - other).abs().max()):.2g}",
            allowed="the same answer for the same image, whenever and with whatever else it is asked",
            fix="dropout and BatchNorm as modules that eval() switches, track_running_stats=True; nothing over a batch",
        )
