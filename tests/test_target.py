"""Claims about targets: data that people write, and what a machine can build for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.engine.bundle_engines import tensorrt_for_target
from toolkit.errors import EngineError
from toolkit.target import Target, target_from_name

ROOT = Path(__file__).parents[1]
SHIPPED = sorted(path.stem for path in (ROOT / "export").glob("*.toml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_target_can_be_read_and_says_what_it_is(name: str) -> None:
    assert target_from_name(name).description


UNSERVED = ("jetpack46", "jetpack50")


@pytest.mark.parametrize("name", [name for name in SHIPPED if name.startswith("jetpack") and name not in UNSERVED])
def test_an_engine_for_a_jetson_is_built_on_one(name: str) -> None:
    target = target_from_name(name)
    version = ".".join(map(str, target.tensorrt_version))
    for gpu in target.gpus:
        assert target.obstacle("tensorrt", version, "aarch64", gpu) == ""
        assert target.obstacle("tensorrt", f"{version}.30", "aarch64", gpu) == ""
    assert "a GPU of SM" in target.obstacle("tensorrt", version, "aarch64", "SM121")
    for other in (
        target.obstacle("tensorrt", version, "x86_64"),
        target.obstacle("tensorrt", version + "1", "aarch64"),
        target.obstacle("tensorrt", "11.4.0", "aarch64"),
        target.obstacle("tensorrt-rtx", "1.7.1.116", "x86_64"),
    ):
        assert f"target {name} is TensorRT {version} aarch64" in other
        assert "build on the device" in other
    assert "wants tensorrt," in target.obstacle("tensorrt-rtx", "1.7.1.116", "aarch64")


@pytest.mark.parametrize("name", UNSERVED)
def test_a_jetpack_that_no_bundle_builds_on_is_refused_with_the_reason(name: str) -> None:
    target = target_from_name(name)
    assert "opset 13" in target.obstacle("tensorrt", "8.2.1", "aarch64", "SM72")
    with pytest.raises(EngineError, match=f"no engine is built for {name}"):
        tensorrt_for_target(target)


@pytest.mark.parametrize(
    ("name", "version"), [("tensorrt8", "8.6.1"), ("tensorrt10", "10.3.0"), ("tensorrt11", "11.4.0.106")]
)
def test_a_desktop_target_takes_its_major_version_and_no_other(name: str, version: str) -> None:
    target = target_from_name(name)
    assert target.obstacle("tensorrt", version, "x86_64", "SM89") == ""
    assert "x86_64, and tensorrt 1.7.1" in target.obstacle("tensorrt", "1.7.1", "x86_64", "SM89")
    assert "build on the device" in target.obstacle("tensorrt", version, "aarch64", "SM87")


def test_a_thor_takes_any_tensorrt_and_no_other_gpu() -> None:
    target = target_from_name("thor")
    for version in ("10.13.3.9", "10.16.2.10", "11.4.1"):
        assert target.obstacle("tensorrt", version, "aarch64", "SM110") == ""
    assert "SM87 is here" in target.obstacle("tensorrt", "10.16.2", "aarch64", "SM87")
    assert "no GPU is here" in target.obstacle("tensorrt", "10.16.2", "aarch64")


def test_a_target_that_names_no_version_takes_any() -> None:
    target = Target("any", "", ("tensorrt", "tensorrt-rtx"), (1, 8, 64))
    assert target.obstacle("tensorrt-rtx", "1.7.1.116", "x86_64") == ""
    assert target.obstacle("tensorrt", "8.6.1", "aarch64") == ""


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ('tensorrt_version = "10.3.0.30"', "10.3.0.30"),
        ("workspace_mib = -1", "-1"),
        ("dla = true", "True"),
        ("tensorrt_version = 10.3", "10.3"),
        ('tensorrt_version = "10.x.0"', "10.x.0"),
        ('machine = "arm64"', "arm64"),
        ('tensorrt = ["trt"]', "trt"),
        ('speed = "fast"', "speed"),
        ("tensorrt = [[1]]", "[[1]]"),
        ("gpus = 0.5", "0.5"),
        ("compute_capabilities = [86]", "[86]"),
        ('compatible = "all"', "all"),
    ],
)
def test_a_wrong_entry_is_named(line: str, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "export").mkdir()
    (tmp_path / "export/mine.toml").write_text(f"batch = [1, 2, 4]\n{line}\n")
    monkeypatch.setenv("TOOLKIT_WORKSPACE", str(tmp_path))
    with pytest.raises(EngineError) as found:
        target_from_name("mine")
    assert word in str(found.value)
