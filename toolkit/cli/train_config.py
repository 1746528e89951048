"""`toolkit train --config FILE.toml`: options by their long names, checked before anything else happens."""

from __future__ import annotations

import difflib
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from toolkit.errors import ToolkitError

KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "bool": ((bool,), "true or false"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "str": ((str,), "a string"),
}
LISTS = ("widths", "blocks", "strides")  # [64, 64, 64] is how TOML says "64,64,64"


def read_config(context: typer.Context, file: str | None) -> str | None:
    """Makes the values of a file the defaults of a command; eager, so that the other options see them.

    Raises:
        ToolkitError: not TOML, an unknown key (names the closest one), or a value of the wrong type.
    """
    if file is None or context.resilient_parsing:
        return file
    options = options_of_train()
    defaults: dict[str, Any] = {}
    for key, value in _document(file).items():
        option = options.get(key.replace("_", "-"))
        if option is None:
            raise _unknown(file, key, sorted(options))
        defaults[option.parameter] = _value(file, key, value, option.kind)
    context.default_map = defaults
    return file


@dataclass(frozen=True)
class Option:
    """One option of `toolkit train`: the name of its parameter, and which of `KINDS` it takes."""

    parameter: str
    kind: str


def options_of_train() -> dict[str, Option]:
    """Every option of the command by its long name, but --config itself; read off the command's own signature."""
    from toolkit.cli.train import command

    found = {}
    for name, parameter in inspect.signature(command).parameters.items():
        words = getattr(parameter.default, "param_decls", None) or ()
        if words and name != "config":
            long = words[0].partition("/")[0].removeprefix("--")
            found[long] = Option(name, str(parameter.annotation).removesuffix(" | None"))
    return found


def _document(file: str) -> dict[str, Any]:
    from pathlib import Path

    from toolkit.errors import ToolkitError
    from toolkit.files import read_toml

    return read_toml(Path(file), ToolkitError, 'lines such as lr = 0.05 or amp = "off"')


def _unknown(file: str, key: str, allowed: list[str]) -> ToolkitError:
    from toolkit.errors import ToolkitError

    close = difflib.get_close_matches(key, allowed, 1)
    return ToolkitError(
        f"{file} has a key that is no option of this command",
        found=key,
        allowed=", ".join(allowed),
        fix=f"{close[0]} = ..." if close else "toolkit train --help",
    )


def _value(file: str, key: str, value: Any, kind: str) -> Any:
    from toolkit.errors import ToolkitError

    if key in LISTS and isinstance(value, list):
        return ",".join(map(str, value))
    types, words = KINDS[kind]
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise ToolkitError(f"{file}: {key} has a value of the wrong type", found=repr(value), allowed=words)
    return value
