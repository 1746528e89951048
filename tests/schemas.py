"""JSON Schemas of the documents that commands print, from the dataclasses that describe them."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from toolkit.storage.documents import Document
from toolkit.storage.hints import FIGURE, FLAT, LEFT_OUT, Items, Limits, Pattern, entries_of, split, without_null

FOLDER = Path(__file__).parents[1] / "docs" / "schema"
TYPES = {str: "string", Path: "string", int: "integer", float: "number", bool: "boolean"}
KEYWORDS = {"least": "minimum", "above": "exclusiveMinimum", "most": "maximum"}


def name_of_schema(kind: type[Document]) -> str:
    """The file of a document: verify.v1.json of "toolkit/verify/1"."""
    _, name, version = kind.SCHEMA.split("/")
    return f"{name}.v{version}.json"


def text_of_schema(kind: type[Document]) -> str:
    """The file's content."""
    return json.dumps(schema_of_document(kind), indent=2) + "\n"


def require_schema(document: dict[str, Any]) -> None:
    """A document is what docs/schema says of its kind; jsonschema is in the dependency group oracles."""
    _, name, version = document["schema"].split("/")
    _validator(f"{name}.v{version}.json").validate(document)


@cache
def _validator(name: str) -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(json.loads((FOLDER / name).read_text(encoding="utf-8")))


def schema_of_document(kind: type[Document]) -> dict[str, Any]:
    """JSON Schema 2020-12 of a whole document, its parts under `$defs` by the names of their classes."""
    parts: dict[str, type] = {}
    schema = _object(kind, parts)
    described: dict[str, Any] = {}
    while len(described) < len(parts):
        for name, part in list(parts.items()):
            described.setdefault(name, _object(part, parts) if name not in described else None)
    schema["properties"] = {"schema": {"const": kind.SCHEMA}, **schema["properties"]}
    schema["required"] = ["schema", *schema["required"]]
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"https://trt-edge-toolkit.invalid/schema/{name_of_schema(kind)}",
        "title": kind.SCHEMA,
    }
    return {**head, **schema, **({"$defs": dict(sorted(described.items()))} if described else {})}


def _object(kind: type, parts: dict[str, type]) -> dict[str, Any]:
    text, said = descriptions_of(kind)
    properties, required = _properties(kind, parts, said)
    return {
        "description": text,
        "type": "object",
        "required": required,
        "properties": properties,
        "additionalProperties": False,
    }


def _properties(kind: type, parts: dict[str, type], said: dict[str, str]) -> tuple[dict[str, Any], list[str]]:
    properties: dict[str, Any] = {}
    required: list[str] = []
    for entry in entries_of(kind):
        if FLAT in entry.marks:
            inner = split(entry.hint)[0]
            kind_of_all = without_null(inner) or inner
            more, needed = _properties(kind_of_all, parts, descriptions_of(kind_of_all)[1])
            properties |= more
            required += needed if kind_of_all is inner else []
            continue
        schema = _schema(entry.hint, parts)
        properties[entry.name] = ({"description": said[entry.name]} if entry.name in said else {}) | schema
        required += [entry.name] if entry.required else []
    return properties, required


def _schema(hint: Any, parts: dict[str, type]) -> dict[str, Any]:
    kind, marks = split(hint)
    optional = without_null(kind)
    schema = _schema(optional, parts) if optional is not None else _of_kind(kind, parts)
    for mark in marks:
        schema |= _of_mark(mark)
    nullable = optional is not None and LEFT_OUT not in marks
    return _or_null(schema) if nullable or FIGURE in marks else schema


def _of_kind(kind: Any, parts: dict[str, type]) -> dict[str, Any]:
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return {}
    if origin is Literal:
        return {"const": inner[0]} if len(inner) == 1 else {"enum": list(inner)}
    if is_dataclass(kind):
        assert isinstance(kind, type)
        assert parts.setdefault(kind.__name__, kind) is kind, f"two parts are called {kind.__name__}"
        return {"$ref": f"#/$defs/{kind.__name__}"}
    if origin is dict:
        values = _schema(inner[1], parts)
        return {"type": "object", **({"additionalProperties": values} if values else {})}
    if origin in (tuple, list):
        return {"type": "array", **_items(inner, parts)}
    return {"type": TYPES[kind]}


def _items(inner: tuple[Any, ...], parts: dict[str, type]) -> dict[str, Any]:
    if len(inner) == 1 or inner[1] is Ellipsis:
        items = _schema(inner[0], parts)
        return {"items": items} if items else {}
    each = [_schema(part, parts) for part in inner]
    return {"prefixItems": each, "minItems": len(each), "maxItems": len(each)}


def _of_mark(mark: Any) -> dict[str, Any]:
    if isinstance(mark, Limits):
        return {word: getattr(mark, name) for name, word in KEYWORDS.items() if getattr(mark, name) is not None}
    if isinstance(mark, Pattern):
        return {"pattern": f"^{mark.text}$"}
    if isinstance(mark, Items):
        most = {"maxItems": mark.most} if mark.most is not None else {}
        return ({"minItems": mark.least} if mark.least else {}) | most
    return {}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    if isinstance(schema.get("type"), str):
        return schema | {"type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def descriptions_of(kind: type) -> tuple[str, dict[str, str]]:
    """What a class's docstring says of it, and of each field below "Attributes:"."""
    text, _, attributes = (inspect.getdoc(kind) or "").partition("\n\nAttributes:\n")
    found: dict[str, str] = {}
    for entry in re.split(r"\n    (?! )", "\n" + attributes):
        names, colon, words = entry.partition(": ")
        for name in names.split(", ") if colon else ():
            found[name.strip()] = " ".join(words.split())
    return " ".join(text.split()), found
