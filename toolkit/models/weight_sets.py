"""Every set of weights in one checkpoint, and which of them is the model: the averaged ones, unless told otherwise.

Training scripts keep an exponential moving average (EMA) beside the raw weights, and it is the average whose accuracy
is reported: timm, torchvision and YOLO evaluate and publish it. Under which names it lies differs from script to
script, so sets are told by what they hold: the tensors of the network, by name and shape.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from torch import Tensor

from toolkit.errors import ModelError

# Where weights usually are; the first that fits is taken where none is an average.
USUAL = ("", "state_dict", "model", "model_state_dict", "net", "ema", "model_ema", "state_dict_ema")
AVERAGES = re.compile(r"(^|[._])(ema|swa|averaged?|avg|polyak)\d*([._]|$)|^ema|ema$", re.IGNORECASE)
NO_WEIGHTS = re.compile(r"optim|sched|scaler|hparam|hyper_param|args|config", re.IGNORECASE)
MOST_DICTS = 10_000  # that are looked into
DEEPEST = 4  # RT-DETR's {"ema": {"module": {...}}}, and one more
WHOLE = "the file itself"


@dataclass(frozen=True)
class Weights:
    """Tensors by name, and where in the checkpoint they were: keys with dots between them, "" for the file itself.

    Attributes:
        listed: a list without names, in the order of the network's parameters, as torch_ema keeps them.
        beside: where what this set lacks was taken from: averages of the parameters alone keep no running means.
        versions: what `torch.save` keeps of each module's version, by the module's name; modules that changed what
            their weights mean read it.
    """

    tensors: dict[str, Tensor]
    place: str
    listed: bool = False
    beside: str = ""
    versions: dict[str, Any] = field(default_factory=dict)

    @property
    def found_as(self) -> str:
        """The place in words."""
        return (self.place or WHOLE) + (f" with the buffers of {self.beside}" if self.beside else "")

    @property
    def is_average(self) -> bool:
        """Whether its place says that it is a moving average of the weights."""
        return any(AVERAGES.search(part) for part in self.place.split("."))


def weight_sets(content: Any) -> tuple[Weights, ...]:
    """Every dict with tensors in it, the usual places first.

    A state dict that holds two networks side by side, `model.*` and `ema_model.*`, is taken apart too.
    """
    found = list(_sets(content, "", (), count()))
    for whole in tuple(found):
        found += _side_by_side(whole)
    return tuple(sorted(found, key=lambda entry: USUAL.index(entry.place) if entry.place in USUAL else len(USUAL)))


def _sets(content: Any, place: str, around: tuple[int, ...], turns: Iterator[int]) -> Iterator[Weights]:
    if isinstance(content, list | tuple) and content and all(isinstance(value, Tensor) for value in content):
        yield Weights({str(index): value for index, value in enumerate(content)}, place, listed=True)
    if not isinstance(content, Mapping) or next(turns) > MOST_DICTS:  # one may hold another many times, and so on
        return
    if len(around) > DEEPEST or id(content) in around:  # or itself
        return
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if tensors:
        yield Weights(tensors, place, versions=dict(getattr(content, "_metadata", None) or {}))
    for key, value in content.items():
        if not NO_WEIGHTS.search(str(key)):
            yield from _sets(value, f"{place}.{key}" if place else str(key), (*around, id(content)), turns)


def _side_by_side(whole: Weights) -> Iterator[Weights]:
    """An average under a prefix of its own, and what is left without it."""
    prefixes = dict.fromkeys(name.partition(".")[0] for name in whole.tensors if "." in name)
    averages = [prefix for prefix in prefixes if AVERAGES.search(prefix)]
    if not averages or len(averages) == len(prefixes):
        return
    place = f"{whole.place}." if whole.place else ""
    for prefix in averages:
        part = {n.removeprefix(f"{prefix}."): v for n, v in whole.tensors.items() if n.startswith(f"{prefix}.")}
        yield Weights(part, f"{place}{prefix}")
    rest = {n: v for n, v in whole.tensors.items() if n.partition(".")[0] not in averages}
    yield Weights(rest, f"{place}{next(p for p in prefixes if p not in averages)}")


def completed(average: Weights, raw: Weights, parameters: tuple[str, ...]) -> Weights | None:
    """An average of the parameters alone, by name or in their order, with the rest of the raw set; None if it is none.

    Args:
        raw: a set that fits, by the network's names.
        parameters: names of the network's parameters, in order.
    """
    tensors = average.tensors
    if average.listed and len(tensors) == len(parameters):
        tensors = dict(zip(parameters, tensors.values(), strict=True))
    if not set(parameters) <= set(tensors) <= set(raw.tensors) or len(tensors) == len(raw.tensors):
        return None
    if any(tensors[name].shape != raw.tensors[name].shape for name in parameters):
        return None
    return Weights({**raw.tensors, **tensors}, average.place, beside=raw.found_as, versions=raw.versions)


def chosen_set(
    fitting: tuple[Weights, ...], every: tuple[Weights, ...], key: str | None, path: Path
) -> tuple[Weights, tuple[Weights, ...]]:
    """The set to load, and those that would fit as well.

    Args:
        fitting: the sets that hold the network's tensors; of `every` set that is there.
        key: the place that was asked for: whole, or its last part; None prefers an average.

    Raises:
        ModelError: there is no set under `key`.
    """
    if key is None:
        best = next((entry for entry in fitting if entry.is_average), None) or (fitting or every)[0]
    else:
        named = [entry for entry in (*fitting, *every) if key in (entry.place, entry.found_as)]
        named += [entry for entry in (*fitting, *every) if f".{entry.place}".endswith(f".{key}")]
        named += [entry for entry in fitting if entry.place.startswith(f"{key}.")]
        if not named:
            raise ModelError(
                f"{path} has no weights called '{key}'",
                found=", ".join(dict.fromkeys(entry.found_as for entry in every)),
                fix="`weights=` with one of these",
            )
        best = named[0]
    return best, tuple(entry for entry in fitting if entry is not best and not _same(entry, best))


def _same(one: Weights, other: Weights) -> bool:
    """Whether two sets have the very same tensors, as a part of a dict that was taken apart, and the whole of it."""
    return {id(value) for value in one.tensors.values()} <= {id(value) for value in other.tensors.values()}


def words_of_choice(best: Weights, others: tuple[Weights, ...]) -> str:
    """Where the weights were, and where else there were some: "state_dict_ema, the average; raw ones in ..."."""
    if not others:
        return best.found_as
    also = ", ".join(dict.fromkeys(entry.found_as for entry in others))
    average = ", a moving average" if best.is_average and not all(entry.is_average for entry in others) else ""
    return f"{best.found_as}{average} (others are in {also}: `weights=` takes them)"
