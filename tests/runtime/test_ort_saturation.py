"""Claims about products of uint8 and int8: they saturate on the processors that lack VNNI, and on no others."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from toolkit.doctor.packages import ort_on_cpu
from toolkit.runtime.ort.quirks import saturates

CPUINFO = Path("/proc/cpuinfo")


@pytest.mark.skipif(
    platform.machine() != "x86_64" or not CPUINFO.exists(),
    reason="what x86 processors can do is read from /proc/cpuinfo",
)
def test_they_saturate_where_the_processor_has_no_vnni() -> None:
    flags = CPUINFO.read_text().partition("flags")[2].partition("\n")[0].split()
    assert saturates() == (not {"avx512_vnni", "avx_vnni"} & set(flags))


@pytest.mark.parametrize("answer", [False, True])
def test_doctor_warns_about_files_of_others_there(answer: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.doctor.packages.saturates", lambda: answer)
    detail = ort_on_cpu()[1]
    assert detail.startswith("Relu with CPUExecutionProvider is right")
    assert ("INT8 files of others lose accuracy here" in detail) == answer
