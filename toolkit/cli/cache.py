"""`toolkit cache`: what is kept for this user, how much of it there is, and its end"""

from __future__ import annotations

from typing import Any

import typer


def command(clear: bool = typer.Option(False, "--clear", help="Remove all of it; it is made again.")) -> dict[str, Any]:
    """Say what is kept between runs: unpacked tars, timings of kernels, engines of ONNX Runtime, downloads.

    It lies in TOOLKIT_CACHE, else in trt-edge-toolkit in XDG_CACHE_HOME or ~/.cache, for this user alone.

    Examples:
      toolkit cache

      toolkit cache --clear
    """
    from toolkit.cli.console import say, table
    from toolkit.storage.cache import cleared, inventory

    found = cleared() if clear else inventory()
    rows = [(name, f"{size / 2**20:,.1f} MiB") for name, size in found.kept.items()]
    table(str(found.folder), ("kept", "size"), rows)
    say(f"{found.bytes / 2**20:,.1f} MiB {'removed' if clear else 'in all'}")
    return found.as_dict()
