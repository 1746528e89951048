"""Checkpoint files of PyTorch, read so that nothing in them runs: their tensors, and stand-ins for what lies beside."""

from __future__ import annotations

import os
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toolkit.errors import ModelError
from toolkit.models.weight_sets import AVERAGES, NO_WEIGHTS, USUAL
from toolkit.storage.files import open_regular, os_errors, require_size
from toolkit.storage.limits import CHECKPOINT_BYTES, IMAGE_BYTES

CONVERT = "where you trust the file, once, in the project that wrote it: "
PACKED = 4  # times its size that a file may unpack to; torch.save packs nothing
# What torch's restricted unpickler says of code; anything else that it says is of damage.
CODE = ("unrecognized function", "object for class", "BUILD is only", "blocked")
A_STATE_DICT = "a state dict: torch.save(net.state_dict(), 'weights.pth'), or a .safetensors file"


class StandIn:
    """For an object that is no tensor: takes whatever it would be made with, and does nothing.

    Attributes:
        is_module: what it stands for is a network.
    """

    is_module = False

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        self.is_module = isinstance(state, dict) and "_modules" in state


def _dict(*_: Any) -> OrderedDict[Any, Any]:
    return OrderedDict()


def _list(*_: Any) -> list[Any]:
    return []


# What training scripts keep beside their weights: options, paths, figures, times. Under these names a file gets the
# stand-ins, never what the names mean.
NUMPY = [f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")]
PATHS = [
    f"pathlib.{local}{kind}"
    for local in ("", "_local.")
    for kind in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
]
DATA = [
    *NUMPY, *PATHS, "numpy.dtype", "numpy.ndarray", "argparse.Namespace", "types.SimpleNamespace",
    "datetime.datetime", "datetime.date", "datetime.time", "datetime.timedelta", "datetime.timezone",
    *(f"builtins.{name}" for name in ("list", "dict", "int", "float", "str", "frozenset", "slice", "range", "getattr")),
    "mmengine.logging.history_buffer.HistoryBuffer",
]  # fmt: skip
DICTS = [
    "lightning.fabric.utilities.data.AttributeDict", "lightning_fabric.utilities.data.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict", "pytorch_lightning.utilities.parsing.AttributeDict",
    "mmengine.config.config.ConfigDict", "easydict.EasyDict", "yacs.config.CfgNode", "addict.addict.Dict",
]  # fmt: skip
BESIDE: list[Any] = [
    *((StandIn, name) for name in DATA), *((OrderedDict, name) for name in DICTS),
    (_dict, "collections.defaultdict"), (_list, "collections.deque"),
]  # fmt: skip


def content_of_checkpoint(path: Path) -> Any:
    """What `torch.save` wrote: tensors, numbers and words; data of other kinds as a `StandIn`.

    Raises:
        ModelError: damaged, of another kind, or a pickle that would run code. Nothing of the file has run.
    """
    with os_errors(path, "read"), open_regular(path, ModelError) as stream:
        require_size(path, os.fstat(stream.fileno()).st_size, CHECKPOINT_BYTES, ModelError)
        other = _other_kind(path)
    if other is not None:
        raise other
    try:
        return _loaded(path, BESIDE)
    except pickle.UnpicklingError as error:
        raise _unsafe(path, str(error)) from error
    except (RuntimeError, ValueError, EOFError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise _damaged(path, str(error)) from error


def _loaded(path: Path, beside: list[Any], device: str = "cpu") -> Any:
    """`torch.load` that refuses every pickle which could run code."""
    with os_errors(path, "read"), warnings.catch_warnings(), torch.serialization.safe_globals(beside):
        warnings.simplefilter("ignore")  # of old storage formats
        return torch.load(path, map_location=device, weights_only=True)


def _other_kind(path: Path) -> ModelError | None:
    """Whole files that hold more than weights, or come from elsewhere; None where it may be a checkpoint."""
    entries = zipfile.ZipFile(path).infolist() if zipfile.is_zipfile(path) else []
    names = [entry.filename for entry in entries]
    require_size(
        path, sum(entry.file_size for entry in entries), max(IMAGE_BYTES, PACKED * path.stat().st_size), ModelError
    )
    parts = {part for name in names for part in name.split("/")[1:]}
    if {"constants.pkl", "code"} <= parts:
        fix = f"torch.save(torch.jit.load('{path.name}').state_dict(), 'weights.pth')"
        found = "code beside the weights"
        return ModelError(f"{path} is a TorchScript program", found=found, allowed=A_STATE_DICT, fix=fix)
    if any("exported_program" in part or part == "archive_format" for part in parts | set(names)):
        fix = f"torch.save(torch.export.load('{path.name}').state_dict, 'weights.pth')"
        what = f"{path} is an ExportedProgram of torch.export"
        return ModelError(what, found="a program", allowed=A_STATE_DICT, fix=fix)
    with path.open("rb") as stream:
        first = stream.read(8)
    kinds = {b"\x89HDF\r\n\x1a\n": "an HDF5 file, as Keras writes it", b"\x93NUMPY": "a numpy array"}
    kind = next((words for magic, words in kinds.items() if first.startswith(magic)), None)
    kind = "an ONNX file" if path.suffix == ".onnx" else kind
    return None if kind is None else ModelError(f"{path} is no PyTorch checkpoint", found=kind, allowed=A_STATE_DICT)


def _unsafe(path: Path, text: str) -> ModelError:
    asks = re.search(r"GLOBAL ([\w.]+)", text)
    if asks is None and not any(words in text for words in CODE):
        return _damaged(path, text)
    expression = _weights_inside(path)
    saved = f"import torch; c = torch.load({path.name!r}, weights_only=False); torch.save({expression}, 'weights.pth')"
    return ModelError(
        f"{path} is a pickle that would run code, so it is not opened",
        found=f"it asks for {asks[1]}" if asks else "it asks for more than tensors",
        allowed="tensors in lists and dicts: torch.save(net.state_dict(), 'weights.pth'), or a .safetensors file",
        fix=CONVERT + (f'python -c "{saved}"' if expression else "torch.save(net.state_dict(), 'weights.pth')"),
    )


def _weights_inside(path: Path) -> str:
    """Where in a file that would run code its weights are, as Python says it of what `torch.load` gives; "" unknown."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        content = _loaded(path, [*BESIDE, *((StandIn, name) for name in names)], "meta")
    except Exception:  # whatever such a file makes of it
        return ""
    places = sorted(_places(content, "c", ""), key=lambda place: _rank(place[0]))
    return places[0][1] if places else ""


def _rank(place: str) -> tuple[bool, int]:
    averaged = any(AVERAGES.search(part) for part in place.split("."))
    return not averaged, USUAL.index(place) if place in USUAL else len(USUAL)


def _places(content: Any, expression: str, place: str) -> Iterator[tuple[str, str]]:
    """Where there are weights, with dots, and as Python writes it."""
    if isinstance(content, StandIn) and content.is_module:
        yield place, f"{expression}.state_dict()"
    if not isinstance(content, dict) or expression.count("[") > 2:
        return
    if content and all(isinstance(value, Tensor) for value in content.values()):
        yield place, expression
    for key, value in content.items():
        if not NO_WEIGHTS.search(str(key)):
            yield from _places(value, f"{expression}[{key!r}]", f"{place}.{key}" if place else str(key))


def _damaged(path: Path, text: str) -> ModelError:
    return ModelError(
        f"{path} is not a whole PyTorch checkpoint",
        found=" ".join(text.split())[:150] or "an unexpected end",
        allowed="what torch.save(net.state_dict(), 'weights.pth') writes, or a .safetensors file",
        fix="restore the file from its source",
    )
