"""Screens of 80 columns as files: what people see, with numbers, dates and what a machine adds masked.

`python -m tests.cli.test_first_hour` writes them anew.
"""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).parent / "screens"
# What the machine says of itself, or of how a run went on it: other words elsewhere.
MACHINE = ("busy-machine", "stolen-time", "unsteady", "governor", "cpu-quota", "not shown at 80", "not run here", "(")
ENDINGS = (":", ".", ";")


def masked(screen: str, workspace: Path) -> str:
    """A screen without its bars, with `#` for every number, one space for several, and no line of the machine's."""
    lines = []
    for line in screen.replace(str(workspace), "WORKSPACE").splitlines():
        if "━" in line or line.strip().startswith(MACHINE):
            continue
        line = re.sub(r"\b[0-9a-f]{16,}\b", "HASH", line)
        line = re.sub(r"[-+]?\d[\d.,:e-]*\d|\d", "#", line)
        lines.append(re.sub(r"─+", "──", re.sub(r"(?<=\S) {2,}", "  ", line)).rstrip())
    return "\n".join(lines).strip() + "\n"


def read(name: str) -> str:
    """A screen as it is kept."""
    return (FOLDER / f"{name}.txt").read_text(encoding="utf-8")


def write(screens: dict[str, str]) -> None:
    """Keeps these and no others."""
    FOLDER.mkdir(exist_ok=True)
    for file in FOLDER.glob("*.txt"):
        file.unlink()
    for name, text in screens.items():
        (FOLDER / f"{name}.txt").write_text(text, encoding="utf-8")
