"""Weights from any training script: found in the checkpoint, brought to the network's names, explained where not."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from toolkit.errors import ModelError
from toolkit.files import os_errors
from toolkit.models.checkpoint import require_finite, tensors_from_file

NESTED = ("state_dict", "model", "model_state_dict", "net", "ema", "model_ema", "state_dict_ema")
WRAPPERS = ("module.", "_orig_mod.")  # DataParallel and torch.compile put them before any module's names
LOSSES = ("criterion.", "loss")  # what a training script keeps beside its network
# Counters that decide nothing in evaluation mode, and that old checkpoints lack.
HARMLESS = ("num_batches_tracked", "n_averaged")
CONVERT = (
    'where you trust the file, once, in the project that wrote it: python -c "import torch; '
    "from safetensors.torch import save_file; c = torch.load('{name}', weights_only=False); "
    "save_file(c.state_dict() if hasattr(c, 'state_dict') else c['state_dict'], 'weights.safetensors')\""
)
# What torch's restricted unpickler says of code; anything else that it says is of damage.
CODE = ("unrecognized function", "object for class", "BUILD is only")


@dataclass(frozen=True)
class Weights:
    """Tensors by name, and how they were found: "state_dict, without 'module.'".

    Attributes:
        versions: what `torch.save` keeps of each module's version, by the module's name; modules that changed their
            weights' meaning read it.
    """

    tensors: dict[str, Tensor]
    found_as: str
    versions: dict[str, Any] = field(default_factory=dict)


def weights_from_checkpoint(path: Path) -> Weights:
    """The tensors of a .safetensors file, or of a .pth, .pt or .ckpt that holds no code.

    Raises:
        ModelError: damaged, a pickle that would run code, or without tensors. Nothing of the file has run.
    """
    if path.suffix == ".safetensors":
        return Weights(tensors_from_file(path)[0], "safetensors")
    content, place = _loaded(path), []
    while not _tensors(content):
        inner = next((key for key in NESTED if isinstance(content, dict) and key in content), None)
        if inner is None:
            raise _no_weights(path, content)
        place.append(inner)
        content = content[inner]
    versions = dict(getattr(content, "_metadata", None) or {})
    return Weights(_tensors(content), ".".join(place) or "the file itself", versions)


def _loaded(path: Path) -> Any:
    """`torch.load` that refuses every pickle which could run code."""
    with os_errors(path, "read"):
        other = _other_kind(path)
    if other is not None:
        raise other
    try:
        with os_errors(path, "read"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old storage formats
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _unsafe(path, str(error)) from error
    except (RuntimeError, ValueError, EOFError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise _damaged(path, str(error)) from error


def _other_kind(path: Path) -> ModelError | None:
    """Whole files that hold more than weights, or come from elsewhere; None where it may be a checkpoint."""
    names = zipfile.ZipFile(path).namelist() if zipfile.is_zipfile(path) else []
    parts = {part for name in names for part in name.split("/")[1:]}
    allowed = "a state dict: torch.save(net.state_dict(), 'weights.pth'), or a .safetensors file"
    if {"constants.pkl", "code"} <= parts:
        fix = f"torch.save(torch.jit.load('{path.name}').state_dict(), 'weights.pth')"
        return ModelError(f"{path} is a TorchScript program", found="code beside the weights", allowed=allowed, fix=fix)
    if any("exported_program" in part or part == "archive_format" for part in parts | set(names)):
        fix = f"torch.save(torch.export.load('{path.name}').state_dict, 'weights.pth')"
        return ModelError(f"{path} is an ExportedProgram of torch.export", found="a program", allowed=allowed, fix=fix)
    with path.open("rb") as stream:
        first = stream.read(8)
    kinds = {b"\x89HDF\r\n\x1a\n": "an HDF5 file, as Keras writes it", b"\x93NUMPY": "a numpy array"}
    kind = next((words for magic, words in kinds.items() if first.startswith(magic)), None)
    kind = "an ONNX file" if path.suffix == ".onnx" else kind
    return None if kind is None else ModelError(f"{path} is no PyTorch checkpoint", found=kind, allowed=allowed)


def _unsafe(path: Path, text: str) -> ModelError:
    asks = re.search(r"GLOBAL ([\w.]+)", text)
    if asks is None and not any(words in text for words in CODE):
        return _damaged(path, text)
    return ModelError(
        f"{path} is a pickle that would run code, so it is not opened",
        found=f"it asks for {asks[1]}" if asks else "it asks for more than tensors",
        allowed="tensors in lists and dicts: torch.save(net.state_dict(), 'weights.pth'), or a .safetensors file",
        fix=CONVERT.format(name=path.name),
    )


def _damaged(path: Path, text: str) -> ModelError:
    return ModelError(
        f"{path} is not a whole PyTorch checkpoint",
        found=" ".join(text.split())[:150] or "an unexpected end",
        allowed="what torch.save(net.state_dict(), 'weights.pth') writes, or a .safetensors file",
        fix="restore the file from its source",
    )


def _tensors(content: Any) -> dict[str, Tensor]:
    """The tensors of a state dict; none where a dict holds something else under the usual names."""
    if not isinstance(content, dict):
        return {}
    return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}


def _no_weights(path: Path, content: Any) -> ModelError:
    found = f"a dict with {', '.join(map(str, list(content)[:8]))}" if isinstance(content, dict) else type(content)
    return ModelError(
        f"{path} holds no weights where they usually are",
        found=found,
        allowed=f"tensors by name, or such a dict as an entry: {', '.join(NESTED)}",
        fix="torch.save(net.state_dict(), 'weights.pth')",
    )


def load_user_weights(net: nn.Module, weights: Weights, path: Path, build: Any = None) -> str:
    """Copies the tensors into a network; returns how they were found.

    Args:
        build: what made the network, to name its argument for the number of classes where that is wrong.

    Raises:
        ModelError: names or shapes differ, or a value is NaN or infinite; names the first few, counts the rest.
    """
    wanted = {name: value for name, value in net.state_dict().items() if isinstance(value, Tensor)}
    if any(isinstance(value, (UninitializedParameter, UninitializedBuffer)) for value in wanted.values()):
        raise ModelError(
            "the network has layers whose shape is still open (torch.nn.Lazy...)",
            fix="run one forward pass in the function that builds it",
        )
    renaming = renaming_to(set(weights.tensors), set(wanted))
    inside, left = renaming.of_all(weights.tensors, set(wanted))
    tensors = {name: v for name, v in inside.items() if name in wanted or not name.endswith(HARMLESS)}
    state = _with_versions(tensors, renaming.of_modules(weights.versions))
    if not _loads_by_version(net, state):
        _require_names(wanted, tensors, path)
        _require_shapes(wanted, tensors, path, build)
    for name, value in tensors.items():
        require_finite(name, value, path, fix="use the checkpoint of an earlier epoch")
    try:
        net.load_state_dict(state, strict=False)
    except Exception as error:  # what a module's own reading of old weights raises
        found = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(f"{path} cannot be loaded into this network", found=found) from error
    said = [f"without '{part}'" for part in (*renaming.wrappers, renaming.prefix) if part]
    said += [f"{_few(left)} left out"] if left else []
    return ", ".join([weights.found_as, *said])


def _with_versions(tensors: dict[str, Tensor], versions: dict[str, Any]) -> dict[str, Tensor]:
    """A state dict that says which version each module was of, where the checkpoint says so."""
    state: Any = OrderedDict(tensors)
    if versions:
        state._metadata = versions
    result: dict[str, Tensor] = state
    return result


def _loads_by_version(net: nn.Module, state: dict[str, Tensor]) -> bool:
    """Whether the modules' own reading of an older version finds every tensor, under whatever names."""
    if not hasattr(state, "_metadata") or set(state) == set(net.state_dict()):
        return False
    try:
        copy.deepcopy(net).load_state_dict(state, strict=True)
    except Exception:  # RuntimeError of torch, and what a module raises
        return False
    return True


@dataclass(frozen=True)
class Renaming:
    """From a checkpoint's names to the network's.

    Attributes:
        wrappers: taken out wherever they stand.
        prefix: what stands before all that the network has, once those are out.
    """

    wrappers: tuple[str, ...]
    prefix: str

    def of(self, name: str) -> str | None:
        """The network's name; None for what stands beside the network."""
        for wrapper in self.wrappers:
            name = name.replace(wrapper, "")
        return name.removeprefix(self.prefix) if name.startswith(self.prefix) else None

    def of_all(self, tensors: dict[str, Tensor], wanted: set[str]) -> tuple[dict[str, Tensor], list[str]]:
        """The network's tensors, and the names of those that stand beside it: a loss with weights, a teacher."""
        inside = {new: value for name, value in tensors.items() if (new := self.of(name)) is not None}
        left = [name for name in tensors if self.of(name) is None]
        losses = [name for name in inside if name.startswith(LOSSES) and name not in wanted]
        return {name: value for name, value in inside.items() if name not in losses}, left + losses

    def of_modules(self, versions: dict[str, Any]) -> dict[str, Any]:
        """The same for names of modules, which end before the dot."""
        named = {self.of(f"{name}." if name else ""): value for name, value in versions.items()}
        whole = {"": versions[""]} if "" in versions else {}
        return {**whole, **{name.rstrip("."): value for name, value in named.items() if name is not None}}


def renaming_to(names: set[str], wanted: set[str]) -> Renaming:
    """How tensors come to the network's names: without what wrappers put in, and what stands before all of them."""
    wrappers = tuple(w for w in WRAPPERS if any(w in n for n in names) and not any(w in n for n in wanted))
    plain = {Renaming(wrappers, "").of(name) or "" for name in names}
    return Renaming(wrappers, _prefix(plain, {name for name in wanted if not name.endswith(HARMLESS)}))


def _prefix(names: set[str], needed: set[str]) -> str:
    """What stands before every name that the network needs; "" where nothing does, or nothing fits."""
    if not needed or needed <= names:
        return ""
    first = min(needed)
    ends = [name.removesuffix(first) for name in names if name.endswith(f".{first}")]
    whole = [prefix for prefix in ends if all(prefix + name in names for name in needed)]
    usual = [word for word in ("model.", "net.") if all(name.startswith(word) for name in names)]
    return min(whole, key=len) if whole else next((w for w in usual if not any(n.startswith(w) for n in needed)), "")


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
        fix="build the network that was trained: another name, or other --kwargs",
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
            fix=f"--kwargs '{{\"{_classes_argument(build)}\": {there}}}'",
        )
    shapes = [f"{name} {tuple(tensors[name].shape)} instead of {tuple(wanted[name].shape)}" for name in wrong[:3]]
    raise ModelError(
        f"{path} holds tensors of other shapes than the network",
        found=f"{len(wrong)} of {len(wanted)}: {'; '.join(shapes)}" + ("; ..." if len(wrong) > 3 else ""),
        fix="build the network that was trained: other --kwargs",
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
