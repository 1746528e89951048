"""Weights in files beside an ONNX file, taken into it: regular files, no links, no larger than their tensors need."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import ModelError
from toolkit.storage.files import Content, content_of, os_errors
from toolkit.storage.limits import FILE_BYTES

if TYPE_CHECKING:
    import onnx

PADDING = 1 << 16  # bytes between one tensor and the next: writers align them to pages, of 64 KiB at most


def take_in(path: Path, model: onnx.ModelProto) -> tuple[Content, ...]:
    """Puts weights from other files into the model; returns those files, by name.

    Raises:
        ModelError: one is missing, is no regular file in the model's own folder, or larger or smaller than its tensors
            need; or a tensor that is no weight lies in another file.
    """
    tensors = [tensor for tensor in model.graph.initializer if _is_outside(tensor)]
    needed: dict[str, int] = {}
    for tensor in tensors:
        name = _told(tensor).get("location", "")
        needed[name] = needed.get(name, 0) + _bytes_of(path, tensor) + PADDING
    files = {name: _read(path, name, most) for name, most in sorted(needed.items())}
    for tensor in tensors:
        _fill(path, tensor, files[_told(tensor).get("location", "")])
    left = next((tensor for tensor in _tensors_of(model) if _is_outside(tensor)), None)
    if left is not None:
        raise ModelError(
            f"{path} keeps a tensor that is no weight in another file",
            found=left.name or "a constant without a name",
            allowed="initializers of the graph",
            fix="onnx.save(onnx.load(FILE), NEW_FILE) puts all of them in",
        )
    return tuple(files.values())


def _is_outside(tensor: Any) -> bool:
    return bool(tensor.external_data) or tensor.data_location == 1


def _told(tensor: Any) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _bytes_of(path: Path, tensor: Any) -> int:
    """What the tensor's type and shape take, 4-bit types in pairs."""
    from onnx import TensorProto, helper

    try:
        kind = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        size = int(math.prod(tensor.dims) * kind.itemsize)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: '{tensor.name}' has a type that is not known", found=tensor.data_type) from error
    if kind.hasobject or min(tensor.dims, default=0) < 0 or size > FILE_BYTES:
        raise ModelError(f"{path}: '{tensor.name}' cannot lie in another file", found=f"{kind} {list(tensor.dims)}")
    pairs = {getattr(TensorProto, name, None) for name in ("INT4", "UINT4", "FLOAT4E2M1")}
    return (int(math.prod(tensor.dims)) + 1) // 2 if tensor.data_type in pairs else size


def _read(path: Path, name: str, most: int) -> Content:
    beside = path.parent / name
    if os.path.basename(name) != name or name in ("", ".", "..") or "\\" in name or "\0" in name:
        raise ModelError(f"{path} wants weights from outside its folder", found=repr(name), allowed="files beside it")
    with os_errors(beside, "read"):  # a name that is too long for any system
        linked, there = beside.is_symlink(), beside.exists()
    if linked:
        raise ModelError(f"{path} has its weights behind a link", found=beside, fix="put the file itself there")
    if not there:
        raise ModelError(
            f"{path} has its weights in another file, which is missing",
            found=f"no {beside}",
            fix="put that file beside the model, under the name it was written with",
        )
    return content_of(beside, min(most, FILE_BYTES), ModelError)


def _fill(path: Path, tensor: Any, file: Content) -> None:
    told, size = _told(tensor), _bytes_of(path, tensor)
    try:
        start = int(told.get("offset", "0"))
        length = int(told.get("length", str(size)))
    except ValueError as error:
        raise ModelError(f"{path}: '{tensor.name}' says no place in {file.name}", found=error) from error
    if length != size or start < 0 or start + size > len(file.data):
        raise ModelError(
            f"{path}: '{tensor.name}' does not fit its place in {file.name}",
            found=f"bytes {start:,} to {start + length:,} of {len(file.data):,}",
            allowed=f"{size:,} bytes, as its shape says",
            fix="copy both files again, from the same export",
        )
    tensor.raw_data = file.data[start : start + size]
    del tensor.external_data[:]
    tensor.data_location = 0


def _tensors_of(model: Any) -> Iterator[Any]:
    """Every tensor wherever a graph can hold one."""
    todo = [model.graph, *model.functions]
    while todo:
        graph = todo.pop()
        yield from getattr(graph, "initializer", ())
        for sparse in getattr(graph, "sparse_initializer", ()):
            yield from (sparse.values, sparse.indices)
        for attribute in (attribute for node in graph.node for attribute in node.attribute):
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            todo += [attribute.g] if attribute.HasField("g") else []
            todo += list(attribute.graphs)
