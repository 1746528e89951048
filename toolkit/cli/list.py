"""`toolkit list`: which models and bundles there are."""

from __future__ import annotations

from typing import Any


def command() -> dict[str, Any]:
    """Name the models and bundles that are here: accuracy, date, size, engines.

    Examples:
      toolkit list
    """
    from toolkit.cli.console import bold, note, say, table, yellow
    from toolkit.deployment.inventory import inventory

    found = inventory()
    models = [entry for entry in found.entries if entry.kind == "model"]
    bundles = [entry for entry in found.entries if entry.kind == "bundle"]
    rows = [
        (entry.name, _accuracy(entry.top1_percent, entry.images), entry.date, f"{entry.bytes / 1024:,.0f} KiB")
        for entry in models
    ]
    table("Models", ("name", "top-1", "date", "size"), rows)
    if bundles:
        lines = [
            (entry.name, _accuracy(entry.top1_percent, entry.images), entry.date, f"{entry.bytes / 1024:,.0f} KiB",
             f"{entry.engines}", ", ".join(entry.files))
            for entry in bundles
        ]  # fmt: skip
        table("Bundles", ("name", "top-1 of fp32", "date", "size", "engines", "files<"), lines)
    else:
        say("No bundles yet: ", bold("toolkit export --int8 --fp16"))
    for entry in found.entries:
        if entry.fault:
            say(yellow(f"{entry.kind} {entry.name} cannot be used"), f": {entry.fault}")
    note(f"workspace: {found.workspace}")
    return found.as_dict()


def _accuracy(percent: float | None, images: int | None) -> str:
    if percent is None:
        return "-"
    return f"{percent:.2f} %" + (f" of {images:,}" if images else "")
