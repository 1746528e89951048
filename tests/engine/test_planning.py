"""Claims about `toolkit build --explain`: it starts nothing of TensorRT, needs no GPU, and says what a device gets."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.engine.test_resolver import EVERYTHING, FULL, recorded
from toolkit.bundle.reading import Bundle, bundle_from_folder
from toolkit.engine import planning
from toolkit.engine.planning import expected_tensorrt, plan_of_build
from toolkit.engine.resolver import resolve, resolve_for_dla
from toolkit.errors import BackendUnavailable, EngineError, ToolkitError
from toolkit.runtime.driver import Device, Driver
from toolkit.runtime.trt.module import TensorRT
from toolkit.target import Target, target_from_name

NO_GPU = Driver(False, "there is no NVIDIA driver")
GPU = Driver(True, "", "12.6", (Device("RTX A4000", "SM86", 16_000),))
Use = Callable[..., None]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A copy of the bundle of format 1."""
    shutil.copytree(Path(__file__).parents[1] / "bundle/format-1", tmp_path / "bundle")
    return bundle_from_folder(tmp_path / "bundle")


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """Makes this the TensorRT of this machine, or none; one that is started ends the test."""

    def used(tensorrt: TensorRT | None, driver: Driver, *others: TensorRT) -> None:
        def find(driver: Driver) -> TensorRT:
            if tensorrt is None:
                raise BackendUnavailable("no TensorRT can be imported here")
            return tensorrt

        if tensorrt is not None:
            for name in ("Builder", "Runtime", "OnnxParser"):
                if hasattr(tensorrt.module, name):
                    setattr(tensorrt.module, name, _started)
        monkeypatch.setattr(planning, "probe_driver", lambda: driver)
        monkeypatch.setattr(planning, "find_tensorrt", find)
        monkeypatch.setattr(planning, "installed_tensorrts", lambda: [*others])

    return used


def _started(*arguments: Any) -> None:
    pytest.fail("without a driver TensorRT may end the process here")


@pytest.mark.parametrize(("version", "source"), [("8.6.1", "int8"), ("10.3", "int8-fp16"), ("11.4", "int8-fp16")])
def test_full_tensorrt_without_a_driver_is_explained_and_what_it_lacks_is_said(
    bundle: Bundle, use: Use, version: str, source: str
) -> None:
    use(recorded(version), NO_GPU)
    plan = plan_of_build(bundle, ("int8",), target_from_name("default"))
    assert plan.resolved[0].source == source
    assert "builds engines only on a machine with a GPU; there is no NVIDIA driver" in str(plan.obstacle)


def test_where_it_would_be_built_nothing_stands_in_the_way(bundle: Bundle, use: Use) -> None:
    use(recorded("rtx1.7"), NO_GPU)
    assert plan_of_build(bundle, ("int8",), target_from_name("default")).obstacle is None
    use(recorded("10.3"), GPU)
    assert plan_of_build(bundle, ("int8",), target_from_name("default")).obstacle is None


@pytest.mark.parametrize("here", [None, "rtx1.7", "lean11.4", "11.4"])
@pytest.mark.parametrize(("target", "source"), [("jetpack60", "int8"), ("jetpack61", "int8-fp16")])
def test_a_device_is_explained_on_a_machine_with_another_tensorrt_or_none(
    bundle: Bundle, use: Use, here: str | None, target: str, source: str
) -> None:
    use(None if here is None else recorded(here), NO_GPU)
    plan = plan_of_build(bundle, ("int8",), target_from_name(target))
    assert plan.resolved[0].source == source
    assert plan.described is not None
    assert "is not here" in plan.described.reasons[0]
    assert plan.obstacle


def test_of_two_that_are_installed_the_one_that_the_target_wants_is_explained(bundle: Bundle, use: Use) -> None:
    use(recorded("rtx1.7"), NO_GPU, recorded("8.6.1"))
    plan = plan_of_build(bundle, ("int8",), target_from_name("tensorrt8"))
    assert (plan.tensorrt, plan.resolved[0].source) == ("tensorrt 8.6.1", "int8")
    assert "there is no NVIDIA driver" in str(plan.obstacle)


@pytest.mark.parametrize("version", FULL)
def test_a_tensorrt_that_is_known_from_its_version_builds_as_the_real_one_does(version: str) -> None:
    numbers = tuple(int(part) for part in version.split("."))
    expected = expected_tensorrt(Target("mine", "", ("tensorrt",), (1, 8, 64), tensorrt_version=numbers))
    real = recorded(version)
    assert (expected.kind, expected.name) == (real.kind, real.name)
    assert (expected.can_build, expected.strongly_typed_only) == (real.can_build, real.strongly_typed_only)
    for precision in ("fp32", "fp16", "int8", "best"):
        assert resolve(expected, precision, EVERYTHING) == resolve(real, precision, EVERYTHING)
    for precision in ("fp16", "int8", "best"):
        assert resolve_for_dla(expected, precision, EVERYTHING, True) == resolve_for_dla(
            real, precision, EVERYTHING, True
        )


@pytest.mark.parametrize(
    ("here", "target", "error"),
    [
        (None, "default", BackendUnavailable),  # which TensorRT would it be?
        ("rtx1.7", "thor", EngineError),
        ("rtx1.7", "jetpack46", EngineError),  # nothing is built for it anywhere
    ],
)
def test_what_cannot_be_said_is_one_error(
    bundle: Bundle, use: Use, here: str | None, target: str, error: type[ToolkitError]
) -> None:
    use(None if here is None else recorded(here), NO_GPU)
    with pytest.raises(error):
        plan_of_build(bundle, ("int8",), target_from_name(target))
