"""Where named sets lie on this machine."""

from __future__ import annotations

import os
from pathlib import Path


def configured_home() -> list[Path]:
    """$TOOLKIT_DATA, if it is set."""
    value = os.environ.get("TOOLKIT_DATA")
    return [Path(value).expanduser()] if value else []


def listed(places: list[Path]) -> str:
    """Places as an error names them."""
    return ", ".join(map(str, places))
