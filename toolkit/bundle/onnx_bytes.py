"""An ONNX file's bytes, read as far as it takes to say whether all its weights are in it; `onnx` is not needed.

ONNX lets a tensor name another file by path. Such a file is bound by no hash of a manifest, and the path may lead
anywhere. Protobuf says of each field its number, its kind and its length, so that weights are stepped over, not read.
"""

from __future__ import annotations

from toolkit.errors import BundleError, ToolkitError
from toolkit.storage.files import Content
from toolkit.storage.limits import ONNX_DEPTH, ONNX_FIELDS

# Which numbered field of a message holds which message, of all that can hold a tensor or repeat (onnx.proto, IR 13).
MESSAGES = {
    "model": {7: "graph", 20: "training", 25: "function", 26: "device"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute", 12: "value"},
    "graph": {1: "node", 5: "tensor", 11: "value", 12: "value", 13: "value", 14: "annotation", 15: "sparse"},
    "node": {5: "attribute", 10: "placement"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 14: "type", 15: "type", 22: "sparse",
                  23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
    "value": {2: "type"},
    "type": {1: "tensor_type", 4: "element", 5: "map", 8: "tensor_type", 9: "element"},
    "tensor_type": {2: "shape"},
    "shape": {},
    "element": {1: "type"},
    "map": {2: "type"},
    "annotation": {},
    "device": {},
    "placement": {2: "sharding"},
    "sharding": {3: "group", 4: "sharded"},
    "group": {},
    "sharded": {},
}  # fmt: skip
EXTERNAL_DATA, DATA_LOCATION, EXTERNAL = 13, 14, 1  # fields of a tensor, and the location that is another file
VARINT, EIGHT_BYTES, WITH_LENGTH, FOUR_BYTES = 0, 1, 2, 5  # kinds of a field


def require_self_contained(content: Content) -> None:
    """Refuses an ONNX file that keeps weights in other files, or that is none.

    Raises:
        BundleError: it does; or its bytes are no protobuf, or more parts than any network has.
    """
    if has_external_data(content, BundleError, "copy the bundle again, or export again"):
        raise BundleError(
            f"{content.path} keeps weights in another file, which no hash of the bundle covers",
            allowed="ONNX files that hold all their weights",
            fix="onnx.save(onnx.load(FILE), FILE) puts them in; then export again",
        )


def has_external_data(content: Content, error: type[ToolkitError], fix: str = "export again") -> bool:
    """Whether a tensor of an ONNX file lies in another file; counts its parts, before anybody makes objects of them.

    Raises:
        ToolkitError: as `error`, its bytes are no protobuf, or more parts than any network has.
    """
    try:
        return _has_external_data(memoryview(content.data))
    except (ValueError, IndexError) as fault:
        raise error(f"{content.path} is not a whole ONNX file", found=fault, fix=fix) from fault


def _has_external_data(data: memoryview) -> bool:
    todo, fields, outside = [("model", 0, len(data), 0)], 0, False
    while todo:
        message, at, end, depth = todo.pop()
        if depth > ONNX_DEPTH:
            raise ValueError(f"parts inside one another, deeper than {ONNX_DEPTH}")
        while at < end:
            fields += 1
            if fields > ONNX_FIELDS:
                raise ValueError(f"more than {ONNX_FIELDS:,} parts")
            tag, at = _varint(data, at)
            number, kind = tag >> 3, tag & 7
            start, at, value = _field(data, at, kind)
            if message == "tensor" and (number == EXTERNAL_DATA or (number == DATA_LOCATION and value == EXTERNAL)):
                outside = True
            if kind == WITH_LENGTH and number in MESSAGES[message]:
                todo.append((MESSAGES[message][number], start, at, depth + 1))
        if at != end:
            raise ValueError("a part of it ends elsewhere than it says")
    return outside


def _field(data: memoryview, at: int, kind: int) -> tuple[int, int, int | None]:
    """Where a field's content starts and ends, and its value where that is a number."""
    if kind == VARINT:
        value, end = _varint(data, at)
        return at, end, value
    if kind == WITH_LENGTH:
        size, at = _varint(data, at)
        return at, at + size, None
    if kind in (EIGHT_BYTES, FOUR_BYTES):
        return at, at + (8 if kind == EIGHT_BYTES else 4), None
    raise ValueError(f"a field of kind {kind}, which no ONNX file has")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
