"""Claims about what is built, on the names that each TensorRT's wheel really has (`capabilities.json`)."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from toolkit.errors import EngineError
from toolkit.export.network import network_flags
from toolkit.export.resolver import resolve
from toolkit.runtime.trt import TensorRT, described

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


def test_a_lean_runtime_builds_nothing() -> None:
    assert not recorded("lean11.4").can_build
