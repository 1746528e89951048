"""A Jetson's own files: power mode, rails of its INA3221 monitors, thermal zones, what slows its clocks.

Jetson Linux Developer Guide, "Platform Power and Performance" (R32 to R36). Every reader takes
the root of a file system.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.conditions.host import ROOT, number_of, text_of
from toolkit.storage.documents import Document
from toolkit.storage.hints import NotNegative

# Rails that together are what the module draws; the first set that a board has whole is taken. VDD_IN is the module's
# input. AGX boards have no such rail. On the Orin, VDDQ_VDD2_1V8AO is fed by VIN_SYS_5V0 and must not be counted twice.
TOTALS = (
    ("VDD_IN",),
    ("POM_5V_IN",),
    ("5V_IN",),
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
    ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),
)


@dataclass(frozen=True)
class JetsonState(Document):
    """What a Jetson's files showed at one moment.

    Attributes:
        power_mode: the name of the mode that nvpmodel has set.
        celsius: by thermal zone.
        rails_watts: by rail of its INA3221 monitors.
        watts: of the module, without its carrier board.
        slowed_by: cooling devices that held clocks down.
        over_current_events: how often the board held clocks down meanwhile because too much current flowed.
        absent: by field, the reason why it is null.
    """

    model: str | None
    power_mode: str | None
    gpu_mhz: NotNegative | None
    gpu_most_mhz: NotNegative | None
    celsius: dict[str, float] | None
    rails_watts: dict[str, float] | None
    watts: NotNegative | None
    slowed_by: list[str]
    over_current_events: int
    absent: dict[str, str]

    @property
    def hottest_celsius(self) -> float:
        """Of all zones; 0 where none is known."""
        return max((self.celsius or {}).values(), default=0.0)


def is_jetson(root: Path = ROOT) -> bool:
    """Whether this is one."""
    model = text_of(root / "proc/device-tree/model") or ""
    return (root / "etc/nv_tegra_release").is_file() or "jetson" in model.lower()


def state(root: Path = ROOT, events_before: int = 0) -> JetsonState:
    """What can be read now, with the over-current events beyond those that there were before."""
    rails = rails_watts(root)
    found: dict[str, Any] = {
        "model": text_of(root / "proc/device-tree/model"),
        "power_mode": power_mode(root),
        "gpu_mhz": _gpu_mhz(root, "cur_freq"),
        "gpu_most_mhz": _gpu_mhz(root, "max_freq"),
        "celsius": zones_celsius(root) or None,
        "rails_watts": rails or None,
        "watts": watts(root),
        "slowed_by": slowed_by(root),
        "over_current_events": over_current_events(root) - events_before,
    }
    reasons = {
        "model": "no device tree in /proc",
        "power_mode": "nvpmodel has left no /var/lib/nvpmodel/status",
        "gpu_mhz": "no GPU in /sys/class/devfreq",
        "gpu_most_mhz": "no GPU in /sys/class/devfreq",
        "celsius": "no thermal zone in /sys",
        "rails_watts": "no INA3221 in /sys/bus/i2c/drivers",
        "watts": f"no set of rails that is known to be the whole module: {', '.join(rails) or 'none'}",
    }
    return JetsonState(**found, absent={key: reason for key, reason in reasons.items() if found[key] is None})


def power_mode(root: Path = ROOT) -> str | None:
    """The mode that nvpmodel has set, by its name in nvpmodel.conf, such as "MAXN" or "15W"."""
    number = re.search(r"pmode:(\d+)", text_of(root / "var/lib/nvpmodel/status") or "")
    if not number:
        return None
    names = re.findall(r"POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)", text_of(root / "etc/nvpmodel.conf") or "")
    return next((name for key, name in names if int(key) == int(number[1])), f"mode {int(number[1])}")


def rails_watts(root: Path = ROOT) -> dict[str, float]:
    """Watts of each rail that has a name. JetPack 5 and later give volts and amperes, JetPack 4 gives milliwatts."""
    drivers = root / "sys/bus/i2c/drivers"
    found = {}
    for label in sorted(drivers.glob("ina3221/*/hwmon/hwmon*/in[0-9]*_label")):
        channel = label.name.removeprefix("in").removesuffix("_label")
        millivolts = number_of(label.with_name(f"in{channel}_input"))
        milliamperes = number_of(label.with_name(f"curr{channel}_input"))
        if millivolts is not None and milliamperes is not None:
            found[text_of(label) or channel] = millivolts * milliamperes / 1e6
    for label in sorted(drivers.glob("ina3221x/*/iio*/rail_name_[0-9]*")):
        milliwatts = number_of(label.with_name(f"in_power{label.name.rpartition('_')[2]}_input"))
        if milliwatts is not None:
            found[text_of(label) or label.name] = milliwatts / 1e3
    return {name: power for name, power in found.items() if name not in ("NC", "sum of shunt voltages")}


def watts(root: Path = ROOT) -> float | None:
    """What the module draws now, without its carrier board; None where the rails do not say."""
    rails = rails_watts(root)
    for names in TOTALS:
        if all(name in rails for name in names):
            return sum(rails[name] for name in names)
    return None


def zones_celsius(root: Path = ROOT) -> dict[str, float]:
    """The temperature of each thermal zone that gives one."""
    found = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        name, millidegrees = text_of(zone / "type"), number_of(zone / "temp")
        if name and millidegrees is not None:
            found[name] = millidegrees / 1000
    return found


def slowed_by(root: Path = ROOT) -> list[str]:
    """Cooling devices that hold clocks down now; a fan slows nothing."""
    found = []
    for device in sorted((root / "sys/class/thermal").glob("cooling_device*")):
        name, step = text_of(device / "type") or "", number_of(device / "cur_state")
        if step and "fan" not in name:
            found.append(name)
    return found


def over_current_events(root: Path = ROOT) -> int:
    """How often the board has held clocks down since it started because too much current flowed."""
    counts = [number_of(path) for path in (root / "sys/class/hwmon").glob("hwmon*/oc[0-9]*_event_cnt")]
    return sum(count or 0 for count in counts)


def _gpu_mhz(root: Path, name: str) -> float | None:
    for device in sorted((root / "sys/class/devfreq").glob("*")):
        if re.search(r"gpu|gv11b|ga10b|gp10b|gm20b|gb10b", device.name):
            hertz = number_of(device / name)
            return None if hertz is None else hertz / 1e6
    return None
