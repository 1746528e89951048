"""What to type for the export that follows calibrate or sensitivity: their own words, or those of the bundle before."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Any

from toolkit.cli.console import Styled, bold

if TYPE_CHECKING:
    from toolkit.data.model_images import Origin

Line = tuple["str | Styled", ...]
OF_ITS_OWN = ("-o", "--output")  # says where this command writes


def next_export(model: str | None, words: list[str], *added: str, without: tuple[str, ...] = ()) -> Line:
    """A sentence, as `say` takes it, with a command that works as it stands, where there is one.

    A model, or a user's file, is exported with the options that were typed. A file of a bundle has what the
    network takes in it already, and is no network of anybody's: its model is exported, with the bundle's images.

    Args:
        words: as they were typed, the verb first.
        added: options that export is to have.
        without: options that it is not to have.
    """
    from toolkit.exporting.subject import is_file_of_a_bundle, origin_of_file, workspace_model_of

    kept = _kept(words[1:], (*OF_ITS_OWN, *without))
    if model is not None and is_file_of_a_bundle(model):
        name, origin = workspace_model_of(model), origin_of_file(model)
        if name is None:
            return ("Next: export its network again as you did for this bundle, with ", bold(shlex.join(added)), ".")
        kept[kept.index(model)] = name
        if origin is not None and not any(word.partition("=")[0] == "--data" for word in kept):
            kept += _reading(origin)
    return ("Next: ", bold(shlex.join(["toolkit", "export", *kept, *added])))


def _kept(words: list[str], dropped: tuple[str, ...]) -> list[str]:
    """The words less some options and their values."""
    kept: list[str] = []
    left = iter(words)
    for word in left:
        name, equals, _ = word.partition("=")
        if name in dropped:
            if not equals:
                next(left, None)
        elif word.startswith("--") or word[:2] not in dropped:
            kept.append(word)
    return kept


def _reading(origin: Origin) -> list[str]:
    from toolkit.data.fit import SQUASH

    said: dict[str, Any] = {"--data": origin.data, "--images": origin.calibration_images}
    said |= {"--resize": origin.resize} if origin.resize != SQUASH else {}
    flags = {"--convert": origin.convert, "--skip-bad": origin.skip_bad}
    given = [word for option, value in said.items() for word in (option, os.fspath(str(value)))]
    return given + [flag for flag, is_set in flags.items() if is_set]
