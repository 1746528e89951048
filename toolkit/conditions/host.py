"""The host: CPU, governor, load, who else is busy, and what the system took away, from /proc and /sys.

Every reader takes the root of a file system, so that a recorded tree can stand in for a machine. What cannot be read is
None, with the reason beside it.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.storage.documents import Document
from toolkit.storage.hints import NotNegative

ROOT = Path("/")
TICK_S = 0.01  # USER_HZ is 100 on every Linux that Python runs on here
BUSY = 0.1  # of one core, on average, for a process to be named


@dataclass(frozen=True)
class Jiffies:
    """Counters at a moment: seconds of CPU time by process, stolen by the hypervisor, and of the clock.

    Attributes:
        by_process: name and CPU seconds, by its number and the tick at which it started.
        throttled: periods in which the container's CPU quota stopped it; None outside one.
    """

    at_s: float
    by_process: dict[tuple[int, int], tuple[str, float]]
    stolen_s: float
    throttled: int | None


@dataclass(frozen=True)
class Host(Document):
    """What a latency on a host depends on.

    Attributes:
        cores: that this process may use.
        cpu_quota_cores: the container's CPU quota, in cores.
        absent: by field, the reason why it is null.
    """

    cpu: str | None
    cores: int | None
    load_1min: NotNegative | None
    governor: str | None
    cpu_mhz: NotNegative | None
    cpu_celsius: float | None
    cpu_quota_cores: NotNegative | None
    absent: dict[str, str]


@dataclass(frozen=True)
class Disturbances(Document):
    """What happened on a host while something was measured.

    Attributes:
        seconds: that it took.
        busy_processes: cores that others used, by name and process id.
        busy_cores: the sum of those.
        stolen_cores: taken away by the hypervisor for its other guests.
        throttled_periods: in which the container's CPU quota stopped it; null outside one.
    """

    seconds: NotNegative
    busy_processes: dict[str, NotNegative]
    busy_cores: NotNegative
    stolen_cores: float
    throttled_periods: int | None


def text_of(path: Path) -> str | None:
    """A small file's text, or None where it is absent or refused."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return None


def number_of(path: Path) -> int | None:
    """A file's whole number, or None."""
    text = text_of(path)
    try:
        return None if text is None else int(text)
    except ValueError:
        return None


def host_conditions(root: Path = ROOT) -> Host:
    """What a latency on this host depends on; `absent` has the reason for each None."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found: dict[str, Any] = {
        "cpu": cpu_name(root),
        "cores": cores,
        "load_1min": _load(root),
        "governor": _each_cpu(root, "scaling_governor"),
        "cpu_mhz": _mhz(root),
        "cpu_celsius": _hottest(root),
        "cpu_quota_cores": _quota(root),
    }
    reasons = {
        "cpu": "/proc/cpuinfo names no model",
        "load_1min": "/proc/loadavg cannot be read",
        "governor": "no cpufreq in /sys: a virtual machine, or a fixed clock",
        "cpu_mhz": "no cpufreq in /sys: a virtual machine, or a fixed clock",
        "cpu_celsius": "no thermal zone in /sys",
        "cpu_quota_cores": "no CPU quota in /sys/fs/cgroup",
    }
    return Host(**found, absent={key: reason for key, reason in reasons.items() if found[key] is None})


def cpu_name(root: Path = ROOT) -> str | None:
    """The CPU's marketing name; on ARM the board's, where the kernel has none."""
    for line in (text_of(root / "proc/cpuinfo") or "").splitlines():
        if line.lower().startswith(("model name", "hardware")):
            return line.partition(":")[2].strip()
    return text_of(root / "proc/device-tree/model")


def _load(root: Path) -> float | None:
    text = text_of(root / "proc/loadavg")
    return float(text.split()[0]) if text else None


def _each_cpu(root: Path, name: str) -> str | None:
    """What all cores say, or every different thing that they say."""
    found = [text_of(path) for path in sorted((root / "sys/devices/system/cpu").glob(f"cpu[0-9]*/cpufreq/{name}"))]
    return ", ".join(sorted({text for text in found if text})) or None


def _mhz(root: Path) -> float | None:
    found = [number_of(p) for p in (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq")]
    known = [khz for khz in found if khz is not None]
    return max(known) / 1000 if known else None


def _hottest(root: Path) -> float | None:
    found = [number_of(path) for path in (root / "sys/class/thermal").glob("thermal_zone*/temp")]
    known = [millidegrees for millidegrees in found if millidegrees is not None]
    return max(known) / 1000 if known else None


def _quota(root: Path) -> float | None:
    """Cores that the container may use, from cgroup v2's cpu.max: microseconds of a period, or "max"."""
    words = (text_of(root / "sys/fs/cgroup/cpu.max") or "").split()
    return int(words[0]) / int(words[1]) if len(words) == 2 and words[0].isdigit() else None


def jiffies(root: Path = ROOT) -> Jiffies:
    """The counters now; see `disturbances`."""
    stat = (text_of(root / "proc/stat") or "").partition("\n")[0].split()
    throttled = None
    for line in (text_of(root / "sys/fs/cgroup/cpu.stat") or "").splitlines():
        if line.startswith("nr_throttled "):
            throttled = int(line.split()[1])
    processes = {}
    for path in (root / "proc").glob("[0-9]*/stat"):
        entry = _process(text_of(path))
        if entry:
            name, started, spent_s = entry
            processes[int(path.parent.name), started] = name, spent_s
    # proc(5): the eighth figure of the line "cpu" is the time stolen by other guests of the hypervisor.
    return Jiffies(time.monotonic(), processes, int(stat[8]) * TICK_S if len(stat) > 8 else 0.0, throttled)


def _process(stat: str | None) -> tuple[str, int, float] | None:
    """Name, when it started, and CPU seconds, from /proc/PID/stat; the name is in brackets and may hold some itself.

    A process keeps its number and its start, not its name: a kernel worker is called after what it does.
    """
    if not stat or ")" not in stat:
        return None
    name, _, rest = stat.partition("(")[2].rpartition(")")
    words = rest.split()
    return (name, int(words[19]), (int(words[11]) + int(words[12])) * TICK_S) if len(words) > 19 else None


def disturbances(before: Jiffies, after: Jiffies, own: int | None = None) -> Disturbances:
    """What happened between two moments: other busy processes in cores, stolen time in cores, throttled periods.

    Args:
        own: the process that measured, this one by default.
    """
    passed = max(after.at_s - before.at_s, TICK_S)
    own = os.getpid() if own is None else own
    busy = {}
    for known, (name, spent_s) in after.by_process.items():
        cores = (spent_s - before.by_process.get(known, (name, 0.0))[1]) / passed
        if known[0] != own and cores >= BUSY:
            busy[f"{name} ({known[0]})"] = round(cores, 2)
    counted = before.throttled is not None and after.throttled is not None
    return Disturbances(
        seconds=round(passed, 2),
        busy_processes=dict(sorted(busy.items(), key=lambda entry: -entry[1])[:5]),
        busy_cores=round(sum(busy.values()), 2),
        stolen_cores=round((after.stolen_s - before.stolen_s) / passed, 3),
        throttled_periods=after.throttled - before.throttled if counted else None,  # type: ignore[operator]
    )


def resident_mib(root: Path = ROOT) -> float | None:
    """Resident memory of this process now."""
    return _status_mib(root, "VmRSS")


def peak_resident_mib(root: Path = ROOT) -> float | None:
    """The most that it has been."""
    return _status_mib(root, "VmHWM")


def _status_mib(root: Path, key: str) -> float | None:
    for line in (text_of(root / "proc/self/status") or "").splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024
    return None
