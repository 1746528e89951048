"""Claims about targets: data that people write, and what a machine can build for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.errors import EngineError
from toolkit.export.target import Target, target_from_name

ROOT = Path(__file__).parent.parent.parent
SHIPPED = sorted(path.stem for path in (ROOT / "export").glob("*.toml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_target_can_be_read_and_says_what_it_is(name: str) -> None:
    assert target_from_name(name).description


@pytest.mark.parametrize("name", [name for name in SHIPPED if name.startswith("jetpack")])
def test_an_engine_for_a_jetson_is_built_on_one(name: str) -> None:
    target = target_from_name(name)
    version = ".".join(map(str, target.tensorrt_version))
    assert target.obstacle("tensorrt", version, "aarch64") == ""
    assert target.obstacle("tensorrt", f"{version}.30", "aarch64") == ""
    for other in (
        target.obstacle("tensorrt", version, "x86_64"),
        target.obstacle("tensorrt", version + "1", "aarch64"),
        target.obstacle("tensorrt", "11.4.0", "aarch64"),
        target.obstacle("tensorrt-rtx", "1.7.1.116", "x86_64"),
    ):
        assert f"target {name} is TensorRT {version} aarch64" in other
        assert "build on the device" in other
    assert "wants tensorrt," in target.obstacle("tensorrt-rtx", "1.7.1.116", "aarch64")


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
    ],
)
def test_a_wrong_entry_is_named(line: str, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "export").mkdir()
    (tmp_path / "export/mine.toml").write_text(f"batch = [1, 2, 4]\n{line}\n")
    monkeypatch.setenv("TOOLKIT_WORKSPACE", str(tmp_path))
    with pytest.raises(EngineError) as found:
        target_from_name("mine")
    assert word in str(found.value)
