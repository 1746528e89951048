"""Weights from any training script: found in the checkpoint, brought to the network's names, explained where not."""

from __future__ import annotations

import copy
import inspect
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from toolkit.errors import ModelError
from toolkit.models.checkpoint import require_finite, require_float, tensors_from_file
from toolkit.models.checkpoint_file import content_of_checkpoint
from toolkit.models.renaming import COUNTERS, HARMLESS, renaming_to
from toolkit.models.weight_sets import USUAL, Weights, chosen_set, completed, parts_alone, weight_sets, words_of_choice


def weights_from_checkpoint(path: Path) -> tuple[Weights, ...]:
    """Every set of tensors in a .safetensors file, or in a .pth, .pt or .ckpt that holds no code.

    Raises:
        ModelError: damaged, a pickle that would run code, or without tensors. Nothing of the file has run.
    """
    content = tensors_from_file(path)[0] if path.suffix == ".safetensors" else content_of_checkpoint(path)
    found = weight_sets(content)
    if not found:
        raise _no_weights(path, content)
    return found


def _no_weights(path: Path, content: Any) -> ModelError:
    found = f"a dict with {', '.join(map(str, list(content)[:8]))}" if isinstance(content, dict) else type(content)
    return ModelError(
        f"{path} holds no weights where they usually are",
        found=found,
        allowed=f"tensors by name, or such a dict as an entry: {', '.join(USUAL[1:])}",
        fix="torch.save(net.state_dict(), 'weights.pth')",
    )


@dataclass(frozen=True)
class Found:
    """Where in a checkpoint the weights were.

    Attributes:
        place: keys with dots between them; "" is the file itself.
        words: the same for people, with prefixes that were stripped and what else was there.
        others: places of other weights that would fit.
    """

    place: str
    words: str
    others: tuple[str, ...] = ()


def load_user_weights(
    net: nn.Module, sets: tuple[Weights, ...], path: Path, build: Any = None, key: str | None = None
) -> Found:
    """Copies one of the sets into a network; returns where it was.

    Args:
        sets: what is in the checkpoint. Of those that fit a moving average is taken, where there is one.
        build: what made the network, to name its argument for the number of classes where that is wrong.
        key: the set that was asked for.

    Raises:
        ModelError: names, shapes or types differ, or a value is NaN or infinite; names the first few, counts the rest.
            There is no set of the name `key`.
    """
    wanted = {name: value for name, value in net.state_dict().items() if isinstance(value, Tensor)}
    if any(isinstance(value, (UninitializedParameter, UninitializedBuffer)) for value in wanted.values()):
        raise ModelError(
            "the network has layers whose shape is still open (torch.nn.Lazy...)",
            fix="run one forward pass in the function that builds it",
        )
    fitting = _fitting(sets, wanted, tuple(name for name, _ in net.named_parameters()))
    weights, others = chosen_set(fitting, sets, key, path)
    named, said = _named(weights, wanted)
    tensors, state = named.tensors, _state(named)
    if not _loads_by_version(net, named):
        _require_names(wanted, tensors, path)
        _require_shapes(wanted, tensors, path, build)
    for name, value in tensors.items():
        require_float(name, value, wanted.get(name, value), path)
        require_finite(name, value, path, fix="use the checkpoint of an earlier epoch")
    try:
        net.load_state_dict(state, strict=False)
    except Exception as error:  # what a module's own reading of old weights raises
        found = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(f"{path} cannot be loaded into this network", found=found) from error
    words = ", ".join([words_of_choice(weights, others), *said])
    return Found(weights.place, words, tuple(dict.fromkeys(entry.found_as for entry in others)))


def _state(named: Weights) -> dict[str, Tensor]:
    """A state dict that says which version each module was of, where the checkpoint says so."""
    state: Any = OrderedDict(named.tensors)
    if named.versions:
        state._metadata = named.versions
    result: dict[str, Tensor] = state
    return result


def _loads_by_version(net: nn.Module, named: Weights) -> bool:
    """Whether the modules' own reading of an older version finds every tensor, under whatever names."""
    if not named.versions or set(named.tensors) == set(net.state_dict()):
        return False
    try:
        copy.deepcopy(net).load_state_dict(_state(named), strict=True)
    except Exception:  # RuntimeError of torch, and what a module raises
        return False
    return True


def _fitting(sets: tuple[Weights, ...], wanted: dict[str, Tensor], parameters: tuple[str, ...]) -> tuple[Weights, ...]:
    """The sets that hold the network, and averages of its parameters alone, completed by the first of those."""
    whole = parts_alone(tuple(entry for entry in sets if _fits(entry, wanted)))
    if not whole:
        return ()
    raw = _named(whole[0], wanted)[0]
    averages = (_named(entry, wanted)[0] for entry in sets if entry.is_average)
    return (*whole, *(done for entry in averages if (done := completed(entry, raw, parameters)) is not None))


def _named(weights: Weights, wanted: dict[str, Tensor]) -> tuple[Weights, list[str]]:
    """The same by the network's names, and in words what was done to them."""
    renaming = renaming_to(set(weights.tensors), set(wanted))
    inside, left = renaming.of_all(weights.tensors, set(wanted))
    tensors = {name: v for name, v in inside.items() if name in wanted or not _counts(name, v)}
    said = [f"without '{part}'" for part in (*renaming.wrappers, renaming.prefix) if part]
    left = [name for name in left if not name.endswith(HARMLESS)]
    said += [f"{_few(left)} left out"] if left else []
    return replace(weights, tensors=tensors, versions=renaming.of_modules(weights.versions)), said


def _counts(name: str, value: Tensor) -> bool:
    return name.endswith(HARMLESS) or (name in COUNTERS and value.numel() == 1)


def _fits(weights: Weights, wanted: dict[str, Tensor]) -> bool:
    """Whether every tensor of the network is there, in its shape, and no other."""
    tensors = _named(weights, wanted)[0].tensors
    needed = {name for name in wanted if not name.endswith(HARMLESS)}
    return needed <= set(tensors) <= set(wanted) and all(tensors[n].shape == wanted[n].shape for n in needed)


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _require_names(wanted: dict[str, Tensor], tensors: dict[str, Tensor], path: Path) -> None:
    missing = [name for name in wanted if name not in tensors and not name.endswith(HARMLESS)]
    unknown = [name for name in tensors if name not in wanted]
    if not missing and not unknown:
        return
    parts = [f"{len(missing)} of {len(wanted)} tensors missing ({_few(missing)})"] if missing else []
    parts += [f"{len(unknown)} unknown ({_few(unknown)})"] if unknown else []
    raise ModelError(
        f"{path} belongs to another network",
        found="; ".join(parts),
        allowed=_few(list(wanted)),
        fix="build the network that was trained: another name, or other `kwargs=`",
    )


def _require_shapes(wanted: dict[str, Tensor], tensors: dict[str, Tensor], path: Path, build: Any) -> None:
    wrong = [name for name in wanted if name in tensors and tensors[name].shape != wanted[name].shape]
    if not wrong:
        return
    classes = _classes_of_heads(wrong, wanted, tensors)
    if classes is not None:
        here, there = classes
        raise ModelError(
            f"the head in {path} is of another number of classes than the network's",
            found=f"{there} classes in the file ({_few(wrong)})",
            allowed=f"{here}, as the network was built",
            fix=f"`kwargs={{{_classes_argument(build)!r}: {there}}}`",
        )
    shapes = [f"{name} {tuple(tensors[name].shape)} instead of {tuple(wanted[name].shape)}" for name in wrong[:3]]
    raise ModelError(
        f"{path} holds tensors of other shapes than the network",
        found=f"{len(wrong)} of {len(wanted)}: {'; '.join(shapes)}" + ("; ..." if len(wrong) > 3 else ""),
        fix="build the network that was trained: other `kwargs=`",
    )


def _classes_of_heads(
    wrong: list[str], wanted: dict[str, Tensor], tensors: dict[str, Tensor]
) -> tuple[int, int] | None:
    """(network's, file's) classes where nothing but the first size of the last module differs."""
    modules = {name.rpartition(".")[0] for name in wrong}
    sizes = {(len(wanted[name]), len(tensors[name])) for name in wrong if wanted[name].ndim and tensors[name].ndim}
    rest_alike = all(wanted[name].shape[1:] == tensors[name].shape[1:] for name in wrong)
    is_last = list(wanted)[-1].rpartition(".")[0] in modules
    return sizes.pop() if len(modules) == len(sizes) == 1 and rest_alike and is_last else None


def _classes_argument(build: Any) -> str:
    """What the builder calls its number of classes; "num_classes" where it does not say."""
    try:
        names = list(inspect.signature(build).parameters)
    except (TypeError, ValueError):
        names = []
    usual = ("num_classes", "n_classes", "classes", "nclass", "num_labels", "n_class")
    return next((name for name in usual if name in names), "num_classes")
