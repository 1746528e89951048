"""Screens of 80 columns as files: what people see, with numbers, dates and what a machine adds masked.

`python -m tests.cli.test_first_hour` writes them anew.
"""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).parent / "screens"
MACHINE = ("not shown at 80", "not run here")  # what a machine adds: other words elsewhere
DATE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d")
HASH = re.compile(r"\b[0-9a-f]{16,}\b")
NUMBER = re.compile(r"(?<![\w.])(?<![A-Za-z]-)[-+]?\d[\d.,]*(?:e[-+]?\d+)?(?!\w)")  # not the 32 of fp32, not 32x32x3


def masked(screen: str, workspace: Path) -> str:
    """A screen without its bars, with `#` for every number, two spaces for more, and no line of the machine's."""
    lines = []
    for line in screen.replace(str(workspace), "WORKSPACE").splitlines():
        if "━" in line or line.strip().startswith(MACHINE):
            continue
        line = NUMBER.sub("#", HASH.sub("HASH", DATE.sub("DATE", line)))
        lines.append(re.sub(r"─+", "──", re.sub(r" {2,}", "  ", line)).rstrip())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"


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
