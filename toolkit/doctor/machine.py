"""The machine that a person sits at: Python, disk, processor, board; and what a check answers."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path

from toolkit.storage.cache import inventory, private_folder

NEEDED_FREE_GIB = 1.0
CPU_FEATURES = {
    "avx2": "avx2",
    "avx512f": "avx512",
    "avx512_vnni": "avx512-vnni",
    "avx_vnni": "avx-vnni",
    "avx512_bf16": "avx512-bf16",
    "amx_bf16": "amx-bf16",
    "amx_int8": "amx-int8",
    "asimddp": "int8 dot product",
    "i8mm": "int8 matmul",
    "bf16": "bf16",
    "fphp": "fp16",
}


class Absent(Exception):
    """Something optional is not here: what, and the command that brings it."""

    def __init__(self, detail: str, fix: str | None = None) -> None:
        super().__init__(detail)
        self.fix = fix


Answer = tuple[str | None, str]  # version, detail


def expect(right: bool, wrong: str) -> None:
    """An `assert` that python -O keeps."""
    if not right:
        raise RuntimeError(f"wrong answer: {wrong}")


def python_version() -> Answer:
    """At least 3.10, which a checkout may not have: pip never saw it."""
    if tuple(sys.version_info) < (3, 10):
        raise RuntimeError(f"Python {platform.python_version()} is too old, 3.10 is needed")
    return platform.python_version(), sys.executable


def disk_space() -> Answer:
    """Room for a model in the current folder."""
    free_gib = shutil.disk_usage(".").free / 2**30
    if free_gib < NEEDED_FREE_GIB:
        raise RuntimeError(f"{free_gib:.1f} GiB free in {Path.cwd()}, {NEEDED_FREE_GIB:g} GiB are needed")
    return None, f"{free_gib:.1f} GiB free in {Path.cwd()}"


def cache_size() -> Answer:
    """How much is kept for this user, and whether it can be used: private to this user, or a temporary one."""
    found, used = inventory(), private_folder()
    if used != found.folder:
        raise Absent(f"{found.folder} is not private to this user, or cannot be written; a temporary one is used")
    return None, f"{found.bytes / 2**20:,.1f} MiB in {found.folder}"


def cpu_features() -> Answer:
    """The CPU with those of its features that make networks faster."""
    lines = _text("/proc/cpuinfo").splitlines()
    if not lines:
        raise Absent("/proc/cpuinfo cannot be read, so the CPU's features are unknown")
    words = {word for line in lines if line.lower().startswith(("flags", "features")) for word in line.split()}
    names = [name for flag, name in CPU_FEATURES.items() if flag in words]
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return None, f"{model}, {os.cpu_count()} cores, {', '.join(names) or 'none of the features that help'}"


def jetson_release() -> Answer:
    """The board and its L4T."""
    release = _text("/etc/nv_tegra_release").partition("\n")[0]
    model = _text("/proc/device-tree/model").strip("\0\n")
    if not release and "jetson" not in model.lower():
        raise Absent("this is not a Jetson")
    return l4t_version(release), model or "unknown model"


def l4t_version(release: str) -> str | None:
    """L4T's version from the first line of /etc/nv_tegra_release: "# R36 (release), REVISION: 4.3, ..." is 36.4.3."""
    words = release.replace(",", " ").split()
    if "REVISION:" not in words[:-1]:
        return None
    major = next((word[1:] for word in words if word[0] == "R" and word[1:].isdigit()), None)
    return f"{major}.{words[words.index('REVISION:') + 1]}" if major else None


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
