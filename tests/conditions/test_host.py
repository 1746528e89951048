"""Claims about the host's state: recorded trees of /proc and /sys, and this machine's own."""

from __future__ import annotations

import json
import mmap
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from toolkit.conditions.device import device_fingerprint
from toolkit.conditions.energy import rapl_meter
from toolkit.conditions.host import disturbances, host_conditions, jiffies, peak_resident_mib, resident_mib
from toolkit.runtime.driver import Device, Driver


def plant(root: Path, files: dict[str, str]) -> Path:
    """Writes files under a root; names as on the machine."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


CPU = "sys/devices/system/cpu"
LAPTOP = {
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: A CPU @ 3 GHz\nprocessor\t: 1\nmodel name\t: A CPU @ 3 GHz",
    "proc/loadavg": "0.42 0.30 0.20 1/234 5678",
    f"{CPU}/cpu0/cpufreq/scaling_governor": "powersave",
    f"{CPU}/cpu1/cpufreq/scaling_governor": "performance",
    f"{CPU}/cpu0/cpufreq/scaling_cur_freq": "800000",
    f"{CPU}/cpu1/cpufreq/scaling_cur_freq": "3000000",
    "sys/class/thermal/thermal_zone0/temp": "45000",
    "sys/class/thermal/thermal_zone1/temp": "61000",
    "sys/fs/cgroup/cpu.max": "150000 100000",
}


def test_a_laptop_says_what_a_latency_depends_on(tmp_path: Path) -> None:
    found = host_conditions(plant(tmp_path, LAPTOP))
    assert found.cores is not None
    assert found.cores >= 1
    assert found.as_dict() == {
        "cores": found.cores,
        "cpu": "A CPU @ 3 GHz",
        "load_1min": 0.42,
        "governor": "performance, powersave",
        "cpu_mhz": 3000,
        "cpu_celsius": 61,
        "cpu_quota_cores": 1.5,
        "absent": {},
    }


def test_what_cannot_be_read_is_none_with_a_reason(tmp_path: Path) -> None:
    found = host_conditions(tmp_path)
    assert {key for key, value in vars(found).items() if value is None} == set(found.absent)
    assert "cpufreq" in found.absent["governor"]


def _stat(name: str, user: int, system: int, started: int = 1) -> str:
    return f"7 ({name}) S " + " ".join(["0"] * 10) + f" {user} {system} 0 0 20 0 1 0 {started} 0 0"


def test_other_processes_stolen_time_and_a_quota_are_seen_between_two_moments(tmp_path: Path) -> None:
    files = {
        "proc/stat": "cpu  1 0 0 9 0 0 0 100 0 0",
        "proc/7/stat": _stat("a (strange) name", 1000, 0),
        "proc/8/stat": _stat("calm", 50, 0),
        "proc/9/stat": _stat("ours", 0, 0),
        "proc/10/stat": _stat("kworker/1:2-events", 0, 9000),
        "proc/11/stat": _stat("has ended", 9000, 0),
        "sys/fs/cgroup/cpu.stat": "nr_periods 10\nnr_throttled 3\nthrottled_usec 5",
    }
    before = jiffies(plant(tmp_path, files))
    files["proc/stat"] = "cpu  1 0 0 9 0 0 0 120 0 0"
    files |= {"proc/7/stat": _stat("a (strange) name", 1100, 50), "proc/9/stat": _stat("ours", 900, 0)}
    files |= {"proc/10/stat": _stat("kworker/1:2-mm", 0, 9001), "proc/11/stat": _stat("has its number", 40, 0, 2)}
    files["sys/fs/cgroup/cpu.stat"] = "nr_periods 20\nnr_throttled 8\nthrottled_usec 5"
    after = replace(jiffies(plant(tmp_path, files)), at_s=before.at_s + 2)
    assert disturbances(before, after, own=9).as_dict() == {
        "seconds": 2,
        "busy_processes": {"a (strange) name (7)": 0.75, "has its number (11)": 0.2},
        "busy_cores": 0.95,
        "stolen_cores": 0.1,
        "throttled_periods": 5,
    }


def test_this_machine_answers_in_json_and_does_not_accuse_this_process() -> None:
    before = jiffies()
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        pass
    found = disturbances(before, jiffies())
    json.dumps([host_conditions().as_dict(), found.as_dict()], allow_nan=False)
    assert f"({os.getpid()})" not in " ".join(found.busy_processes)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_grows_with_an_array_and_its_peak_stays() -> None:
    before = resident_mib()
    array = np.frombuffer(mmap.mmap(-1, 64 << 20), np.uint8)  # of the system: training makes malloc keep what was freed
    array[:] = 1
    after = resident_mib()
    assert before is not None
    assert after is not None
    assert after - before == pytest.approx(64, abs=8)
    del array
    peak = peak_resident_mib()
    assert peak is not None
    assert peak >= after - 1


def test_rapl_counts_the_packages_only_and_needs_to_be_readable(tmp_path: Path) -> None:
    zone = "sys/class/powercap/intel-rapl:"
    files = {f"{zone}0/name": "package-0", f"{zone}0/energy_uj": "5000000", f"{zone}0:0/name": "core"}
    meter = rapl_meter(plant(tmp_path, files | {f"{zone}0:0/energy_uj": "1"}))
    assert meter is not None
    assert meter.joules() == 5
    assert rapl_meter(tmp_path / "none") is None


def test_a_fingerprint_is_the_hardware_and_not_its_versions() -> None:
    gpu = Device("Orin", "SM87", 7000)
    one = device_fingerprint(Driver(True, "", "12.6", (gpu,)))
    assert one == device_fingerprint(Driver(True, "", "13.0", (gpu,)))
    assert one.gpu == "Orin"
    assert device_fingerprint(Driver(False, "no driver")).gpu == ""
