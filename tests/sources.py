"""Source files as a tree: many tests look through the whole package, and each file is parsed once for all of them."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path


@cache
def nodes_of(file: Path) -> tuple[ast.AST, ...]:
    """Every node of a file; the first is the module."""
    return tuple(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
