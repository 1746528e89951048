"""Where named sets lie on this machine."""

from __future__ import annotations

import os
from pathlib import Path


def cache_home() -> Path:
    """Where downloads are kept: `trt-edge-toolkit` in $XDG_CACHE_HOME, else in ~/.cache.

    A relative $XDG_CACHE_HOME is ignored, as the XDG base directory specification asks.
    """
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    base = configured if configured.is_absolute() else Path("~/.cache").expanduser()
    return base / "trt-edge-toolkit"


def configured_home() -> list[Path]:
    """$TOOLKIT_DATA, if it is set."""
    value = os.environ.get("TOOLKIT_DATA")
    return [Path(value).expanduser()] if value else []


def listed(places: list[Path]) -> str:
    """Places as an error names them."""
    return ", ".join(map(str, places))
