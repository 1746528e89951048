"""Claims about the driver probe: every kind of missing driver becomes a reason, never an exception or a crash."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toolkit.runtime.driver import LIBRARY, Device, Driver, probe_driver

ORIN = """
int cuInit(unsigned flags) { return INIT; }
int cuDriverGetVersion(int *v) { *v = 12060; return 0; }
int cuDeviceGetCount(int *n) { *n = COUNT; return 0; }
int cuDeviceGet(int *d, int ordinal) { *d = ordinal; return 0; }
int cuDeviceGetName(char *name, int len, int d) {
  const char *s = "Orin";
  int i = 0;
  do name[i] = s[i]; while (s[i++]);
  return 0;
}
int cuDeviceTotalMem_v2(unsigned long *n, int d) { *n = 7620ul << 20; return 0; }
int cuDeviceGetAttribute(int *v, int a, int d) { *v = a == 75 ? 8 : a == 76 ? 7 : -1; return ATTRIBUTE; }
"""


def _compiled(folder: Path, **constants: int) -> Callable[[str], Any]:
    """A loader of a real shared library that answers as an Orin would."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to make a libcuda of")
    values = {"INIT": 0, "COUNT": 1, "ATTRIBUTE": 0} | constants
    source, library = folder / "fake.c", folder / "libfakecuda.so"
    source.write_text(ORIN)
    defines = [f"-D{name}={value}" for name, value in values.items()]
    subprocess.run([compiler, "-shared", "-fPIC", "-w", *defines, "-o", library, source], check=True)
    return lambda name: ctypes.CDLL(str(library))


def _missing(name: str) -> Any:
    raise OSError(f"{name}: cannot open shared object file")


def test_a_machine_without_libcuda_says_so_with_the_loaders_words() -> None:
    driver = probe_driver(_missing)
    assert driver == Driver(False, f"there is no NVIDIA driver: {LIBRARY}: cannot open shared object file")


def test_a_driver_with_a_gpu_gives_name_capability_and_memory(tmp_path: Path) -> None:
    driver = probe_driver(_compiled(tmp_path))
    assert driver == Driver(True, "", "12.6", (Device("Orin", "SM87", 7620),))


def test_every_gpu_is_listed(tmp_path: Path) -> None:
    assert len(probe_driver(_compiled(tmp_path, COUNT=3)).devices) == 3


def test_a_driver_without_a_gpu_is_not_available(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    driver = probe_driver(_compiled(tmp_path, COUNT=0))
    assert (driver.available, driver.reason, driver.driver_version) == (False, "the driver finds no GPU", "12.6")


def test_hidden_gpus_are_explained_by_the_variable_that_hides_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    driver = probe_driver(_compiled(tmp_path, INIT=100))
    assert driver.reason == "the driver finds no GPU (cuInit returned 100) (CUDA_VISIBLE_DEVICES is '')"


@pytest.mark.parametrize(("code", "word"), [(34, "stub"), (803, "reboot"), (999, "/dev/nvidia"), (7777, "refuses")])
def test_a_failing_cuinit_is_named_with_its_code(tmp_path: Path, code: int, word: str) -> None:
    driver = probe_driver(_compiled(tmp_path, INIT=code))
    assert not driver.available
    assert word in driver.reason
    assert f"cuInit returned {code}" in driver.reason


def test_a_fault_after_cuinit_is_a_reason_too(tmp_path: Path) -> None:
    driver = probe_driver(_compiled(tmp_path, ATTRIBUTE=101))
    assert not driver.available
    assert "cuDeviceGetAttribute returned 101" in driver.reason
    assert driver.driver_version == "12.6"


def test_a_library_that_is_no_driver_is_a_reason() -> None:
    driver = probe_driver(lambda name: object())
    assert not driver.available
    assert "is not a driver that can be asked" in driver.reason


def test_the_answer_is_remembered_unless_a_loader_is_given() -> None:
    assert probe_driver() is probe_driver()
    assert not probe_driver(_missing).available
    assert probe_driver(_missing) is not probe_driver(_missing)
