"""Claims about a Jetson's files, in trees of the forms that JetPack 4, 5 and 6 have."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.conditions import jetson
from toolkit.conditions.energy import JetsonMeter, energy_mj, idle_watts


def plant(root: Path, files: dict[str, str]) -> Path:
    """Writes files under a root; names as on the device."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


HWMON = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1"
ORIN_NANO = {
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic",
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
    "var/lib/nvpmodel/status": "pmode:0002",
    "etc/nvpmodel.conf": (
        "< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=1 NAME=25W >\n"
        "< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n"
    ),
    f"{HWMON}/in1_label": "VDD_IN", f"{HWMON}/in1_input": "4976", f"{HWMON}/curr1_input": "1200",
    f"{HWMON}/in2_label": "VDD_CPU_GPU_CV", f"{HWMON}/in2_input": "4976", f"{HWMON}/curr2_input": "400",
    f"{HWMON}/in3_label": "VDD_SOC", f"{HWMON}/in3_input": "4968", f"{HWMON}/curr3_input": "300",
    f"{HWMON}/in7_label": "sum of shunt voltages", f"{HWMON}/in7_input": "2", f"{HWMON}/curr7_input": "1",
    "sys/class/devfreq/17000000.gpu/cur_freq": "1020000000",
    "sys/class/devfreq/17000000.gpu/max_freq": "1020000000",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal", "sys/class/thermal/thermal_zone0/temp": "51250",
    "sys/class/thermal/thermal_zone1/type": "gpu-thermal", "sys/class/thermal/thermal_zone1/temp": "49500",
    "sys/class/thermal/cooling_device0/type": "pwm-fan", "sys/class/thermal/cooling_device0/cur_state": "2",
    "sys/class/thermal/cooling_device1/type": "gpu-throttle-alert", "sys/class/thermal/cooling_device1/cur_state": "0",
    "sys/class/hwmon/hwmon3/oc1_event_cnt": "0", "sys/class/hwmon/hwmon3/oc3_event_cnt": "5",
}  # fmt: skip


def test_an_orin_nano_says_its_mode_rails_clocks_and_heat(tmp_path: Path) -> None:
    root = plant(tmp_path, ORIN_NANO)
    assert jetson.is_jetson(root)
    found = jetson.state(root)
    assert found.power_mode == "MAXN_SUPER"
    assert found.rails_watts == pytest.approx({"VDD_IN": 5.9712, "VDD_CPU_GPU_CV": 1.9904, "VDD_SOC": 1.4904})
    assert found.watts == pytest.approx(5.9712)  # the module's input, not the sum: the others are parts of it
    assert (found.gpu_mhz, found.gpu_most_mhz) == (1020, 1020)
    assert found.celsius == {"cpu-thermal": 51.25, "gpu-thermal": 49.5}
    assert found.slowed_by == []  # the fan turns, and slows nothing
    assert found.absent == {}
    assert jetson.over_current_events(root) == 5


def test_a_throttled_one_names_what_holds_its_clocks_down(tmp_path: Path) -> None:
    root = plant(tmp_path, ORIN_NANO | {"sys/class/thermal/cooling_device1/cur_state": "3"})
    assert jetson.slowed_by(root) == ["gpu-throttle-alert"]


def test_an_agx_orin_has_two_monitors_and_no_rail_is_counted_twice(tmp_path: Path) -> None:
    one, two = (f"sys/bus/i2c/drivers/ina3221/1-004{n}/hwmon/hwmon{n}" for n in (0, 1))
    rails = {one: ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"), two: ("NC", "VDDQ_VDD2_1V8AO", "NC")}
    files: dict[str, str] = {}
    for folder, names in rails.items():
        for channel, name in enumerate(names, 1):
            files |= {f"{folder}/in{channel}_label": name, f"{folder}/in{channel}_input": "5000"}
            files[f"{folder}/curr{channel}_input"] = f"{100 * channel}"
    root = plant(tmp_path, files)
    assert set(jetson.rails_watts(root)) == {"VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"}
    assert jetson.watts(root) == pytest.approx(0.5 + 1.0 + 1.5)


def test_jetpack_4_has_milliwatts_in_other_places(tmp_path: Path) -> None:
    folder = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    root = plant(
        tmp_path,
        {
            f"{folder}/rail_name_0": "POM_5V_IN", f"{folder}/in_power0_input": "2512",
            f"{folder}/rail_name_1": "POM_5V_GPU", f"{folder}/in_power1_input": "120",
            "sys/class/devfreq/57000000.gpu/cur_freq": "921600000",
        },
    )  # fmt: skip
    assert jetson.watts(root) == pytest.approx(2.512)
    assert jetson.state(root).gpu_mhz == 921.6


def test_rails_that_nobody_knows_are_no_total_and_a_bare_board_invents_nothing(tmp_path: Path) -> None:
    names = {f"{HWMON}/in1_label": "VDD_NEW", f"{HWMON}/in1_input": "5000", f"{HWMON}/curr1_input": "10"}
    found = jetson.state(plant(tmp_path / "new", names))
    assert found.watts is None
    assert found.absent["watts"] == "no set of rails that is known to be the whole module: VDD_NEW"
    bare = jetson.state(tmp_path / "bare")
    assert all(getattr(bare, key) is None for key in bare.absent)
    assert set(bare.absent) == set(vars(bare)) - {"slowed_by", "absent", "over_current_events"}
    assert not jetson.is_jetson(tmp_path / "bare")


def test_a_mode_without_a_name_is_its_number(tmp_path: Path) -> None:
    assert jetson.power_mode(plant(tmp_path, {"var/lib/nvpmodel/status": "pmode:0008"})) == "mode 8"


def test_energy_is_power_above_idle_over_the_calls(tmp_path: Path) -> None:
    root = plant(tmp_path, ORIN_NANO)
    meter = JetsonMeter(root)
    assert idle_watts(meter, 0.15) == pytest.approx(5.9712)
    calls: list[int] = []
    found = energy_mj(meter, lambda: calls.append(1), idle=4.9712, seconds=0.2)
    assert found == pytest.approx(1000 * 1.0 * 0.2 / len(calls), rel=0.1)
