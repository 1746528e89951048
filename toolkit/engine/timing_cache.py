"""How long each kernel took on this device, kept between builds: one file per device, TensorRT kind and version.

A second build of the same network then takes seconds instead of minutes. The file is only a memory: one that cannot be
read is set aside, one that cannot be written is left unwritten, and a sentence says so; no build fails for it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from toolkit.errors import ToolkitError
from toolkit.runtime.driver import Driver
from toolkit.runtime.trt.module import NEEDS_NO_GPU, Log, TensorRT
from toolkit.storage.files import os_errors, write_bytes
from toolkit.storage.folders import locked, make_private


def timing_cache_file(folder: Path, tensorrt: TensorRT, driver: Driver) -> Path:
    """The file of this device, kind and version: timings of another are not its own."""
    device = driver.devices[0]
    words = (tensorrt.kind, tensorrt.version, device.compute_capability, device.name)
    return folder / (re.sub(r"[^A-Za-z0-9._]+", "-", "_".join(words)) + ".cache")


def why_no_timing_cache(tensorrt: TensorRT, driver: Driver) -> str:
    """Why timings are not kept; empty where they are. TensorRT-RTX's cache is a no-op (seen on 1.7.1)."""
    if tensorrt.kind == NEEDS_NO_GPU:
        return f"{tensorrt.name} times no kernels, so there is nothing to keep"
    if not hasattr(tensorrt.module, "ITimingCache"):
        return f"{tensorrt.name} has no ITimingCache"
    return "" if driver.devices else "there is no device that timings could belong to"


def use_timing_cache(config: Any, file: Path, log: Log) -> str:
    """Gives the config what earlier builds measured; a sentence where the file was no use.

    `ignore_mismatch` is False: with True TensorRT would take the timings of another device or version.
    """
    note = ""
    try:
        data = file.read_bytes() if file.is_file() else b""
    except OSError as error:
        data, note = b"", f"the timing cache {file} cannot be read ({error.strerror}): every kernel is timed anew"
    with _quiet(log):
        cache = config.create_timing_cache(data)
        if cache is not None and config.set_timing_cache(cache, False):
            return note
    note = _set_aside(file) if data else note
    config.set_timing_cache(config.create_timing_cache(b""), False)
    return note


def keep_timing_cache(config: Any, file: Path, log: Log) -> str:
    """Merges what this build measured into the file, whole and under a lock: two builds at once lose nothing."""
    note, measured = "", config.get_timing_cache()
    try:
        with os_errors(file):
            make_private(file.parent)
            with locked(file.with_name(f".{file.name}.lock")), _quiet(log):
                data = file.read_bytes() if file.is_file() else b""
                others = config.create_timing_cache(data) if data else None
                if data and (others is None or not measured.combine(others, False)):
                    note = _set_aside(file)
                write_bytes(file, bytes(measured.serialize()))
    except ToolkitError as error:
        return f"the timing cache was not kept: {error.found}"
    return note


def _set_aside(file: Path) -> str:
    aside = file.with_suffix(".unusable")
    try:
        os.replace(file, aside)
    except OSError as error:
        return f"the timing cache {file} is not of this TensorRT and device, or broken ({error.strerror} to move it)"
    return f"the timing cache was not of this TensorRT and device, or broken: it is now {aside}, and a new one begins"


@contextmanager
def _quiet(log: Log) -> Iterator[None]:
    """What TensorRT says about a cache is no error of the build: "Magic tag does not match" would be taken for one."""
    before = len(log.lines)
    try:
        yield
    finally:
        log.lines[before:] = [("INFO", message) for _, message in log.lines[before:]]
