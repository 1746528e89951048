"""Every set of weights in one checkpoint, and which of them is the model: the averaged ones, unless told otherwise.

Training scripts keep an exponential moving average (EMA) beside the raw weights, and it is the average whose accuracy
is reported: timm, torchvision and YOLO evaluate and publish it. Under which names it lies differs from script to
script, so sets are told by what they hold: the tensors of the network, by name and shape.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toolkit.errors import ModelError

# Where weights usually are; the first that fits is taken where none is an average.
USUAL = ("", "state_dict", "model", "model_state_dict", "net", "ema", "model_ema", "state_dict_ema")
AVERAGES = re.compile(r"(^|[._])(ema|swa|averaged?|avg|polyak)\d*([._]|$)|^ema|ema$", re.IGNORECASE)
NO_WEIGHTS = re.compile(r"optim|sched|scaler|hparam|hyper_param|args|config", re.IGNORECASE)
MOST_DICTS = 10_000  # that are looked into
DEEPEST = 4  # RT-DETR's {"ema": {"module": {...}}}, and one more
WHOLE = "the file itself"
FLAT = "ema_"  # before the names of mmcv's buffers


@dataclass(frozen=True, eq=False)
class Weights:
    """Tensors by name, and where in the checkpoint they were: keys with dots between them, "" for the file itself.

    Attributes:
        listed: a list without names, in the order of the network's parameters, as torch_ema keeps them.
        swaps: which of two sets is the average depends on when the file was written.
        averaged: whether it is a moving average; None where its place alone says so.
        beside: where what this set lacks was taken from: averages of the parameters alone keep no running means.
        versions: what `torch.save` keeps of each module's version, by the module's name; modules that changed what
            their weights mean read it.
    """

    tensors: dict[str, Tensor]
    place: str
    listed: bool = False
    swaps: bool = False
    averaged: bool | None = None
    beside: str = ""
    versions: dict[str, Any] = field(default_factory=dict)

    @property
    def found_as(self) -> str:
        """The place in words."""
        return (self.place or WHOLE) + (f" with the buffers of {self.beside}" if self.beside else "")

    @property
    def is_average(self) -> bool:
        """Whether its place says that it is a moving average of the weights."""
        return (
            self.averaged if self.averaged is not None else any(AVERAGES.search(part) for part in self.place.split("."))
        )


def weight_sets(content: Any) -> tuple[Weights, ...]:
    """Every dict with tensors in it, the usual places first.

    A state dict that holds two networks side by side, `model.*` and `ema_model.*`, is taken apart too.
    """
    found = list(_sets(content, "", (), count()))
    for whole in tuple(found):
        found += [*_side_by_side(whole), *_twins(whole), *_among_buffers(whole)]
    if _is_of_mmengine(content) and "ema_state_dict" in content:
        averaged = {"state_dict": True, "ema_state_dict": False}  # its EMAHook saves the two under each other's names
        found = [replace(entry, averaged=averaged.get(entry.place)) for entry in found]
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


def _twins(whole: Weights) -> Iterator[Weights]:
    """Networks of one form under a prefix each, none of which says that it is an average: `student.*`, `teacher.*`."""
    start, parts = _parts(whole.tensors)
    forms = {prefix: {name: tuple(value.shape) for name, value in part.items()} for prefix, part in parts.items()}
    place = f"{whole.place}." if whole.place else ""
    for prefix, part in parts.items():
        alike = sum(form == forms[prefix] for form in forms.values())
        if alike > 1 and not AVERAGES.search(prefix) and len(part) > 1:
            versions = {
                n.removeprefix(f"{start}{prefix}."): v for n, v in whole.versions.items() if n.startswith(start)
            }
            yield Weights(part, f"{place}{start}{prefix}", versions=versions)


def _parts(tensors: dict[str, Tensor]) -> tuple[str, dict[str, dict[str, Tensor]]]:
    """What stands before all names, and the tensors by the part of their names behind it."""
    start = ""
    while len(firsts := {name[len(start) :].partition(".")[0] for name in tensors}) == 1:
        if not all(name.startswith(f"{start}{min(firsts)}.") for name in tensors):
            break
        start += f"{min(firsts)}."
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        prefix, _, rest = name[len(start) :].partition(".")
        if rest:
            parts.setdefault(prefix, {})[rest] = value
    return start, parts


def _among_buffers(whole: Weights) -> Iterator[Weights]:
    """What the EMAHook of mmcv keeps as buffers of the network itself: `ema_body_0_weight` for `body.0.weight`.

    It swaps the two before each evaluation and back before the next epoch, and files are written at either time.
    """
    flat = {n: v for n, v in whole.tensors.items() if n.startswith(FLAT) and "." not in n}
    rest = {n: v for n, v in whole.tensors.items() if n not in flat}
    averages = _spelled_out({name.removeprefix(FLAT): value for name, value in flat.items()}, rest)
    if averages and averages.keys() <= rest.keys():
        place = f"{whole.place}." if whole.place else ""
        yield Weights(averages, f"{place}{FLAT}", swaps=True)
        yield Weights(rest, f"{place}plain", swaps=True, versions=whole.versions)


def _is_of_mmengine(content: Any) -> bool:
    meta = content.get("meta") if isinstance(content, Mapping) else None
    return isinstance(content, Mapping) and (
        "message_hub" in content or (isinstance(meta, Mapping) and "mmengine_version" in meta)
    )


def _spelled_out(tensors: dict[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """By names with dots what is kept by names without, as buffers have to be."""
    for joint in ("_", ""):
        flat = {name.replace(".", joint): name for name in names}
        if tensors.keys() <= flat.keys():
            return {flat[name]: value for name, value in tensors.items()}
    return tensors


def completed(average: Weights, raw: Weights, parameters: tuple[str, ...]) -> Weights | None:
    """An average of the parameters alone, by name or in their order, with the rest of the raw set; None if it is none.

    Args:
        raw: a set that fits, by the network's names.
        parameters: names of the network's parameters, in order.
    """
    tensors = average.tensors
    if average.listed and len(tensors) == len(parameters):
        tensors = dict(zip(parameters, tensors.values(), strict=True))
    tensors = _spelled_out(tensors, raw.tensors)
    if not set(parameters) <= set(tensors) <= set(raw.tensors) or len(tensors) == len(raw.tensors):
        return None
    if any(tensors[name].shape != raw.tensors[name].shape for name in parameters):
        return None
    whole = {**raw.tensors, **tensors}
    return Weights(whole, average.place, swaps=average.swaps, beside=raw.found_as, versions=raw.versions)


def chosen_set(
    fitting: tuple[Weights, ...], every: tuple[Weights, ...], key: str | None, path: Path
) -> tuple[Weights, tuple[Weights, ...]]:
    """The set to load, and those that would fit as well.

    Args:
        fitting: the sets that hold the network's tensors; of `every` set that is there.
        key: the place that was asked for: whole, or its last part; None prefers an average.

    Raises:
        ModelError: there is no set under `key`, or several are as likely.
    """
    asked = fitting if key is None else _asked(fitting, every, key, path)
    best = next((entry for entry in asked if entry.is_average), None) or (asked or every)[0]
    others = tuple(entry for entry in fitting if entry is not best and not _same(entry, best))
    rivals = [best, *(entry for entry in asked if entry in others)]
    if len(rivals) > 1 and _is_a_guess(rivals):
        raise ModelError(
            f"{path} holds several sets of weights that fit, and does not say which is the model",
            found=", ".join(dict.fromkeys(entry.found_as for entry in rivals))
            + (": mmcv swaps the two for each evaluation" if best.swaps else ""),
            allowed="one set",
            fix="`weights=` with one of these",
        )
    return best, others


def _asked(fitting: tuple[Weights, ...], every: tuple[Weights, ...], key: str, path: Path) -> tuple[Weights, ...]:
    """The sets that `key` may mean, the likeliest meaning alone."""
    meanings = (
        [entry for entry in fitting if key in (entry.place, entry.found_as)],
        [entry for entry in fitting if f".{entry.place}".endswith(f".{key}")],
        [entry for entry in fitting if entry.place.startswith(f"{key}.") or (key == WHOLE and entry.place)],
        [entry for entry in every if key in (entry.place, entry.found_as) or entry.place.endswith(f".{key}")],
    )
    found = next((tuple(meaning) for meaning in meanings if meaning), ())
    if not found:
        raise ModelError(
            f"{path} has no weights called '{key}'",
            found=", ".join(dict.fromkeys(entry.found_as for entry in every)),
            fix="`weights=` with one of these",
        )
    return found


def _is_a_guess(rivals: list[Weights]) -> bool:
    """Whether nothing about the first speaks for it: no average, no usual place."""
    best, *others = rivals
    if best.swaps:
        return True
    if best.is_average:
        return False
    return best.place not in USUAL and not any(_same(best, other) for other in others)


def parts_alone(fitting: tuple[Weights, ...]) -> tuple[Weights, ...]:
    """Without dicts that are there in parts as well, of which each holds the network."""

    def parts(whole: Weights) -> list[Weights]:
        return [part for part in fitting if _is_within(part, whole) and not _is_within(whole, part)]

    return tuple(whole for whole in fitting if len(parts(whole)) < 2 and not any(part.swaps for part in parts(whole)))


def _is_within(one: Weights, other: Weights) -> bool:
    """Whether a set has no tensors but another's, as a part of a dict that was taken apart."""
    return {id(value) for value in one.tensors.values()} <= {id(value) for value in other.tensors.values()}


def _same(one: Weights, other: Weights) -> bool:
    """Whether two sets have the very same tensors, or a copy of each."""
    return _is_within(one, other) or (
        set(one.tensors) == set(other.tensors) and all(_equal(v, other.tensors[n]) for n, v in one.tensors.items())
    )


def _equal(one: Tensor, other: Tensor) -> bool:
    plain = all(
        value.layout == torch.strided and not value.is_meta and not value.is_quantized for value in (one, other)
    )
    return plain and one.dtype == other.dtype and torch.equal(one, other)


def words_of_choice(best: Weights, others: tuple[Weights, ...]) -> str:
    """Where the weights were, and where else there were some: "state_dict_ema, the average; raw ones in ..."."""
    if not others:
        return best.found_as
    also = ", ".join(dict.fromkeys(entry.found_as for entry in others))
    average = ", a moving average" if best.is_average and not all(entry.is_average for entry in others) else ""
    return f"{best.found_as}{average} (others are in {also}: `weights=` takes them)"
