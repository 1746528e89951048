"""What a mutant changed, read off the copy in which it lies; and why one that survives may."""

from __future__ import annotations

import ast
import difflib
import re
from functools import lru_cache
from pathlib import Path

import tomllib
from rooms import BUILD

COPY = re.compile(r"__mutmut_(orig|\d+)\b")  # what a copy's name ends with


@lru_cache(None)
def _functions(path: Path) -> dict[str, list[str]]:
    """Every function of a file with mutants, by its name there: its lines."""
    text = path.read_text()
    lines = text.splitlines()
    found = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef))
    return {node.name: [COPY.sub("", line) for line in lines[node.lineno - 1 : node.end_lineno]] for node in found}


def change_of(room: str, name: str) -> str:
    """Lines that are gone, with `-`, and those in their place, with `+`."""
    module, _, mutant = name.rpartition(".")
    functions = _functions(BUILD / room / (module.replace(".", "/") + ".py"))
    before, after = functions[f"{mutant.rpartition('__mutmut_')[0]}__mutmut_orig"], functions[mutant]
    lines = difflib.unified_diff(before, after, n=0, lineterm="")
    return "\n".join(f"    {line}" for line in lines if not line.startswith(("---", "+++", "@@")))


@lru_cache(None)
def _explained() -> tuple[tuple[str, str, str], ...]:
    """(reason, function, pattern of the changed line)."""
    text = (Path(__file__).parent / "explained.toml").read_text()
    groups = tomllib.loads(text).get("group", [])
    return tuple((group["why"], where, line) for group in groups for where, line in group["changes"])


def explanation(room: str, name: str) -> str:
    """Why a mutant may survive; empty where it may not."""
    function = name.rpartition("__mutmut_")[0].removeprefix("toolkit.")
    added = "\n".join(line[5:] for line in change_of(room, name).splitlines() if line.startswith("    +"))
    for why, where, line in _explained():
        if re.fullmatch(where, function) and re.search(line, added):
            return str(why)
    return ""
