"""Claims about timings kept between builds, by a stand-in for the cache that merges and refuses as TensorRT's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.standin import Cache
from toolkit.engine.timing_cache import (
    keep_timing_cache,
    timing_cache_file,
    use_timing_cache,
)
from toolkit.runtime.driver import Device, Driver
from toolkit.runtime.trt.causes import cause_of
from toolkit.runtime.trt.module import Log, TensorRT

ROOT = Path(__file__).parent.parent.parent
TRT = SimpleNamespace(ILogger=type("ILogger", (), {"__init__": lambda self: None}))
# What TensorRT 8.6.1 says of a file that is no cache: github.com/NVIDIA/TensorRT/issues/3566
WORDS = (
    "1: [stdArchiveReader.cpp::nvinfer1::rt::StdArchiveReader::StdArchiveReaderInitCommon::36] Error Code 1: "
    "Serialization (Serialization assertion magicTagRead == kMAGIC_TAG failed.Magic tag does not match)",
    "4: The timing cache will not be used!",
)


class Config:
    """The part of an IBuilderConfig that has to do with timings."""

    def __init__(self, log: Log, device: str = "Orin") -> None:
        self.log, self.device, self.cache = log, device, Cache(device, {})

    def create_timing_cache(self, data: bytes) -> Cache | None:
        cache = Cache.from_bytes(data, self.device)
        for words in () if cache else WORDS:
            self.log.add("ERROR", words)
        return cache

    def set_timing_cache(self, cache: Cache, ignore_mismatch: bool) -> bool:
        if cache.device != self.device and not ignore_mismatch:
            return False
        self.cache = cache
        return True

    def get_timing_cache(self) -> Cache:
        return self.cache


def build(file: Path, kernels: list[str], device: str = "Orin") -> tuple[list[str], Log]:
    """One build: takes what is known, times what is not, keeps it; returns the sentences."""
    log = Log(TRT)
    config = Config(log, device)
    notes = [use_timing_cache(config, file, log)]
    config.cache.timings |= {kernel: 1.0 for kernel in kernels if kernel not in config.cache.timings}
    notes.append(keep_timing_cache(config, file, log))
    return [note for note in notes if note], log


def kept(file: Path) -> set[str]:
    """The kernels of a file."""
    return set(json.loads(file.read_bytes()[4:])[1])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "timing" / "tensorrt_10.3.0_SM87_Orin.cache"


def test_a_second_build_finds_what_the_first_measured(file: Path) -> None:
    assert build(file, ["a", "b"])[0] == []
    log = Log(TRT)
    config = Config(log)
    assert use_timing_cache(config, file, log) == ""
    assert set(config.cache.timings) == {"a", "b"}


def test_what_another_build_wrote_meanwhile_is_merged(file: Path) -> None:
    log = Log(TRT)
    config = Config(log)
    use_timing_cache(config, file, log)
    config.cache.timings["mine"] = 1.0
    build(file, ["theirs"])
    assert keep_timing_cache(config, file, log) == ""
    assert kept(file) == {"mine", "theirs"}


@pytest.mark.slow
@pytest.mark.usefixtures("every_core")
def test_two_processes_that_build_at_once_lose_nothing(file: Path) -> None:
    program = (
        "from pathlib import Path; import sys; from tests.engine.test_timing_cache import build\n"
        "for n in range(60): build(Path(sys.argv[1]), [f'{sys.argv[2]}{n}'])"
    )
    words = [sys.executable, "-c", program, str(file)]
    processes = [subprocess.Popen([*words, name], cwd=ROOT) for name in ("a", "b")]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    assert kept(file) == {f"{name}{n}" for name in ("a", "b") for n in range(60)}
    assert [path.name for path in file.parent.iterdir()] == [file.name]  # no lock and no part is left


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(data=st.binary(min_size=1, max_size=40))
def test_a_broken_cache_is_set_aside_with_a_sentence_and_a_new_one_begins(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    (note,), log = build(file, ["a"])
    assert f"it is now {file.with_suffix('.unusable')}" in note
    assert file.with_suffix(".unusable").read_bytes() == data
    assert kept(file) == {"a"}
    assert log.errors() == ()  # else a build that fails later would be said to have failed for the cache
    assert cause_of(WORDS) is not None


def test_timings_of_another_device_are_not_taken(file: Path) -> None:
    build(file, ["a"], device="Xavier")
    (note,), _ = build(file, ["b"])
    assert "not of this TensorRT and device" in note
    assert kept(file) == {"b"}


def test_a_cache_that_cannot_be_written_fails_no_build(file: Path) -> None:
    file.parent.write_text("a file, where a folder should be")
    (note,), _ = build(file, ["a"])
    assert note.startswith("the timing cache was not kept")


def test_each_device_kind_and_version_has_a_file_of_its_own(tmp_path: Path) -> None:
    def named(kind: str, version: str, device: Device) -> str:
        trt = TensorRT(SimpleNamespace(), kind, version, True, False)
        return timing_cache_file(tmp_path, trt, Driver(True, "", "12.6", (device,))).name

    orin, other = Device("Orin (nvgpu)", "SM87", 1), Device("NVIDIA H100 80GB HBM3", "SM90", 1)
    assert named("tensorrt", "10.3.0", orin) == "tensorrt_10.3.0_SM87_Orin-nvgpu-.cache"
    names = {named(kind, version, gpu) for kind in ("tensorrt", "x") for version in "12" for gpu in (orin, other)}
    assert len(names) == 8


def test_what_is_given_to_tensorrt_is_never_told_to_ignore_a_mismatch(file: Path) -> None:
    asked: list[Any] = []

    class Strict(Config):
        def set_timing_cache(self, cache: Cache, ignore_mismatch: bool) -> bool:
            asked.append(ignore_mismatch)
            return super().set_timing_cache(cache, ignore_mismatch)

    log = Log(TRT)
    use_timing_cache(Strict(log), file, log)
    assert asked == [False]
