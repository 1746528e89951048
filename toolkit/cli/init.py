"""`toolkit init`: an empty workspace with the three rooms."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import typer

# What a walk leaves that is made again, or, as private keys, must go nowhere.
IGNORED = """bundles/
model_repository/
report.html
/*.json
*.tar
*.tar.sig
*.pem
*.part
.*.lock
.*.training.safetensors
"""


def command(
    folder: Path = typer.Argument(Path("."), help="Where to make the rooms."),
) -> dict[str, Any]:
    """Make a workspace: the rooms models/, calibration/ and export/, and a .gitignore for what is made again.

    Example: toolkit init my-project
    """
    from toolkit.cli.console import bold, say
    from toolkit.storage.files import os_errors, write_bytes
    from toolkit.workspace import ROOMS, NewWorkspace

    with os_errors(folder, "make"):
        for room in ROOMS:
            (folder / room).mkdir(parents=True, exist_ok=True)
    if not (folder / ".gitignore").exists():
        write_bytes(folder / ".gitignore", IGNORED.encode())
    there = "" if folder.resolve() == Path.cwd() else f"cd {shlex.quote(str(folder))} && "
    say(
        bold(f"{folder}"),
        " is a workspace. Next: ",
        bold(f"{there}toolkit train my-net --data fashion-mnist --download"),
    )
    return NewWorkspace(True, folder.resolve()).as_dict()
