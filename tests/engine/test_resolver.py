"""Claims about what is built, on the names that each TensorRT's wheel really has (`capabilities.json`)."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from toolkit.bundle.manifest import PRECISIONS
from toolkit.engine.dla import EXPLICIT, IMPLICIT, dla_form, require_dla
from toolkit.engine.network import network_flags
from toolkit.engine.requirements import why_not_compatible
from toolkit.engine.resolver import resolve, resolve_for_dla, why_not_read
from toolkit.engine.timing_cache import why_no_timing_cache
from toolkit.errors import EngineError
from toolkit.runtime.driver import Device, Driver
from toolkit.runtime.trt.module import TensorRT, described

RECORDED = json.loads((Path(__file__).parent / "capabilities.json").read_text())
EVERYTHING = ("fp32", "fp16", "int8", "int8-fp16", "int8-cpu")
BUILDING = [version for version in RECORDED if "Builder" in RECORDED[version]["module"]]


def recorded(version: str) -> TensorRT:
    """A module with the names of a version, described as the real one would be."""
    entry: dict[str, Any] = {name: object for name in RECORDED[version]["module"]}
    enums = {name: members for name, members in RECORDED[version].items() if name != "module"}
    entry |= {name: SimpleNamespace(**members) for name, members in enums.items()}
    kind = "tensorrt-rtx" if version.startswith("rtx") else "lean" if version.startswith("lean") else "tensorrt"
    return described(SimpleNamespace(__version__=version, **entry), kind)


@pytest.mark.parametrize(
    ("version", "strong", "source"),
    [
        ("8.6.1", False, "int8"),
        ("10.3", True, "int8-fp16"),
        ("10.13", True, "int8-fp16"),
        ("10.16", True, "int8-fp16"),
        ("11.0", True, "int8-fp16"),
        ("11.4", True, "int8-fp16"),
        ("rtx1.7", True, "int8-fp16"),
    ],
)
def test_int8_takes_the_file_whose_scales_the_version_wants(version: str, strong: bool, source: str) -> None:
    found = resolve(recorded(version), "int8", EVERYTHING)
    assert (found.strongly_typed, found.source) == (strong, source)
    assert found.flags == (() if strong else ("FP16", "INT8"))
    assert found.opset_limit == (None if strong else 17)
    assert found.reasons


@pytest.mark.parametrize("version", BUILDING)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "best"])
def test_every_flag_that_is_asked_for_exists(version: str, precision: str) -> None:
    tensorrt = recorded(version)
    for flag in resolve(tensorrt, precision, EVERYTHING).flags:
        assert hasattr(tensorrt.module.BuilderFlag, flag)
    assert network_flags(tensorrt.module) in (1, 2)  # 1 << 0 or 1 << 1, as the integers of that version are


@pytest.mark.parametrize("version", BUILDING)
def test_only_11_and_rtx_have_no_other_way_than_strong_typing(version: str) -> None:
    assert recorded(version).strongly_typed_only == (version in ("11.0", "11.4", "rtx1.7"))


def test_best_is_int8_where_it_fuses_and_fp16_where_it_does_not() -> None:
    assert resolve(recorded("10.3"), "best", EVERYTHING).precision == "int8"
    assert resolve(recorded("rtx1.7"), "best", EVERYTHING).precision == "fp16"
    assert resolve(recorded("rtx1.7"), "best", ("fp32", "int8")).precision == "int8"
    assert resolve(recorded("11.4"), "best", ("fp32",)).precision == "fp32"


def test_without_the_fp16_form_int8_runs_between_float32_layers_and_says_so() -> None:
    found = resolve(recorded("11.4"), "int8", ("fp32", "int8"))
    assert found.source == "int8"
    assert "FP32" in " ".join(found.reasons)


@pytest.mark.parametrize(("precision", "there"), [("fp8", EVERYTHING), ("", EVERYTHING), ("int8", ("fp32",))])
def test_what_is_not_there_is_refused(precision: str, there: tuple[str, ...]) -> None:
    with pytest.raises(EngineError):
        resolve(recorded("10.3"), precision, there)


@pytest.mark.parametrize("version", BUILDING)
def test_what_a_version_misreads_is_never_what_it_is_given(version: str) -> None:
    tensorrt = recorded(version)
    misread = {source for source in EVERYTHING if why_not_read(tensorrt, source)}
    assert misread == ({"int8-cpu", "int8-fp16"} if version == "8.6.1" else {"int8-cpu"})
    assert {resolve(tensorrt, precision, EVERYTHING).source for precision in PRECISIONS}.isdisjoint(misread)


def test_a_lean_runtime_builds_nothing() -> None:
    assert not recorded("lean11.4").can_build


# --- a DLA, timings, compatibility: what each version answers -----------------------------------------------------

ORIN = Driver(True, "", "12.6", (Device("Orin", "SM87", 7620),))
FULL = [version for version in BUILDING if not version.startswith("rtx")]


@pytest.mark.parametrize(
    ("version", "form"),
    [
        ("8.6.1", IMPLICIT),
        ("10.3", IMPLICIT),
        ("10.13", IMPLICIT),
        ("10.16", IMPLICIT),
        ("11.0", EXPLICIT),
        ("11.4", EXPLICIT),
    ],
)
def test_int8_reaches_a_dla_through_calib_cache_where_there_are_calibrators_and_by_qdq_where_not(
    version: str, form: str
) -> None:
    assert dla_form(recorded(version)) == form
    found = resolve_for_dla(recorded(version), "int8", EVERYTHING, has_calib_cache=True)
    if form == IMPLICIT:
        assert (found.source, found.strongly_typed, found.flags) == ("fp32", False, ("FP16", "INT8"))
        assert found.calib_cache
    else:
        assert (found.source, found.strongly_typed, found.flags) == ("int8-fp16", True, ())
        assert not found.calib_cache
    assert all(hasattr(recorded(version).module.BuilderFlag, flag) for flag in (*found.flags, "GPU_FALLBACK"))
    assert found.opset_limit == (17 if version == "8.6.1" else None)


@pytest.mark.parametrize("version", FULL)
def test_best_on_a_dla_is_int8_where_it_has_ranges_and_fp16_where_not(version: str) -> None:
    implicit = dla_form(recorded(version)) == IMPLICIT
    with_ranges = resolve_for_dla(recorded(version), "best", EVERYTHING, has_calib_cache=True)
    without = resolve_for_dla(recorded(version), "best", ("fp32", "fp16"), has_calib_cache=False)
    assert (with_ranges.precision, without.precision) == ("int8", "fp16")
    assert without.flags == (("FP16",) if implicit else ())
    assert without.source == ("fp32" if implicit else "fp16")


def test_what_a_dla_cannot_do_is_refused_in_words() -> None:
    with pytest.raises(EngineError, match="no float32"):
        resolve_for_dla(recorded("10.3"), "fp32", EVERYTHING, has_calib_cache=True)
    with pytest.raises(EngineError, match=r"needs calib\.cache"):
        resolve_for_dla(recorded("10.3"), "int8", EVERYTHING, has_calib_cache=False)
    with pytest.raises(EngineError, match="builds for the GPU"):
        resolve_for_dla(recorded("rtx1.7"), "int8", EVERYTHING, has_calib_cache=True)
    with pytest.raises(EngineError, match="cannot build"):
        resolve_for_dla(recorded("lean11.4"), "int8", EVERYTHING, has_calib_cache=True)


def _builder(cores: int, most: int = 16) -> Any:
    return SimpleNamespace(num_DLA_cores=cores, max_DLA_batch_size=most)


@pytest.mark.parametrize(
    ("cores", "core", "batch", "said"),
    [
        (0, 0, (4, 4, 4), "reports no DLA core on Orin"),
        (2, 2, (4, 4, 4), "there is no such DLA core"),
        (2, 0, (1, 4, 16), r"`batch=\(4, 4, 4\)`"),
        (2, 0, (64, 64, 64), "1 to 16"),
    ],
)
def test_the_builder_says_which_cores_there_are(cores: int, core: int, batch: tuple[int, int, int], said: str) -> None:
    with pytest.raises(EngineError, match=said):
        require_dla(recorded("10.3"), _builder(cores), ORIN, core, batch)
    require_dla(recorded("10.3"), _builder(2), ORIN, 1, (4, 4, 4))


@pytest.mark.parametrize("version", BUILDING)
def test_timings_are_kept_by_every_full_tensorrt_and_not_by_rtx(version: str) -> None:
    reason = why_no_timing_cache(recorded(version), ORIN)
    assert (reason == "") == (version in FULL)
    assert why_no_timing_cache(recorded(version), Driver(False, "none"))


@pytest.mark.parametrize("version", BUILDING)
@pytest.mark.parametrize("how", ["version", "hardware"])
def test_compatible_engines_come_from_every_full_tensorrt_from_8_6_on_and_not_from_rtx(version: str, how: str) -> None:
    assert (why_not_compatible(recorded(version), how) == "") == (version in FULL)
    before = described(SimpleNamespace(__version__="8.5.2", BuilderFlag=SimpleNamespace(FP16=0)), "tensorrt")
    assert "came with 8.6" in why_not_compatible(before, how)


@pytest.mark.parametrize("version", FULL)
def test_a_weak_network_for_a_dla_needs_a_flag_only_where_there_is_one(version: str) -> None:
    expected = 0 if version.startswith("11") else 1
    assert network_flags(recorded(version).module, weak=True) == expected
