"""What the library says in Python's words, as it is typed: `convert=True` is --convert, `toolkit.build` a command.

The library knows no command line. It names arguments and functions of `toolkit`, in backticks; here stands what they
are called in a shell, once.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
from typing import Any

# Arguments whose option has another name than their own.
OPTIONS = {
    "backends": "backend",
    "precisions": "precision",
    "batches": "batch",
    "bundle": "output",
    "page": "output",
    "start": "from",
    "dla_core": "dla",
    "optimization_level": "opt-level",
    "repeats": "repeat",
    "version": "bundle-version",
    "warmup": "lr-warmup",
    "rate_hz": "rate",
    "warmup_s": "warmup",
}
BETWEEN = {"size": "x", "batch": ":"}  # of several numbers; a comma elsewhere
# What Python has no function for.
COMMANDS = {
    "look at what works on this machine": "toolkit doctor",
    "look at what there is": "toolkit list",
    "fetch the set": "toolkit data --download",
    "verify it again into": "toolkit verify >",
    "bench it again into": "toolkit bench >",
    "measure what each layer costs into": "toolkit sensitivity >",
    "measure what each layer costs": "toolkit sensitivity",
    "measure a new baseline into": "toolkit bench --save",
    "unpack the tar": "toolkit bundle unpack",
    "pack the folder": "toolkit bundle pack",
    "sign the tar": "toolkit bundle sign TAR --private-key KEY.pem",
}
CODE = re.compile(r"`((?:[a-z][a-z0-9_]*=|toolkit\.[a-z])[^`]*)`")


def typed(text: str) -> str:
    """A text of the library for people at a shell; other texts stay as they are."""
    for words, command in COMMANDS.items():
        text = text.replace(words, command)
    return CODE.sub(_as_typed, text)


def _as_typed(found: re.Match[str]) -> str:
    try:
        return _words(found[1])
    except (SyntaxError, ValueError, AssertionError):  # somebody's own text, such as a file's name
        return found[0]


def typed_document(value: Any) -> Any:
    """The same for every text of a JSON document."""
    if isinstance(value, str):
        return typed(value)
    if isinstance(value, dict):
        return {key: typed_document(entry) for key, entry in value.items()}
    return [typed_document(entry) for entry in value] if isinstance(value, list | tuple) else value


def option(name: str) -> str:
    """The option that sets an argument."""
    return "--" + OPTIONS.get(name, name).replace("_", "-")


def _words(code: str) -> str:
    if code.endswith("="):
        return option(code[:-1])
    call = code if code.startswith("toolkit.") else f"_({code})"
    tree = ast.parse(call, mode="eval").body
    if isinstance(tree, ast.Attribute):
        return f"toolkit {tree.attr}"
    assert isinstance(tree, ast.Call)
    command = [f"toolkit {tree.func.attr}"] if isinstance(tree.func, ast.Attribute) else []
    return " ".join(command + _arguments(tree))


def _arguments(call: ast.Call) -> list[str]:
    """Words and options in their order; an option class is the options that it holds."""
    words = [_value("", argument) for argument in call.args]
    for keyword in call.keywords:
        name, value = keyword.arg or "", keyword.value
        if isinstance(value, ast.Call):
            words += _arguments(value)
        elif isinstance(value, ast.Constant) and isinstance(value.value, bool):
            words.append(option(name) if value.value else option(f"no_{name}"))
        else:
            words.append(f"{option(name)} {_value(name, value)}")
    return words


def _value(name: str, node: ast.expr) -> str:
    """As it is typed; a name such as FOLDER stands for whatever there is."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Tuple):
        return BETWEEN.get(name, ",").join(_value("", part) for part in node.elts)
    value = ast.literal_eval(node)
    if value is Ellipsis:
        return "..."
    return shlex.quote(json.dumps(value) if isinstance(value, dict) else str(value))
