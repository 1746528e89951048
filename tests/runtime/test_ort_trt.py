"""Claims about the options of ONNX Runtime's TensorRT provider: no stale engine, flags only where they exist."""

from __future__ import annotations

import stat
from pathlib import Path

import onnx
import onnxruntime
import pytest

from toolkit.bundle.manifest import VARIANTS
from toolkit.errors import ToolkitError
from toolkit.runtime.ort import tensorrt_options as ort_trt
from toolkit.runtime.ort.tensorrt_options import LIBRARY, tensorrt_of_provider, tensorrt_options
from toolkit.storage.files import Content, content_of
from toolkit.storage.limits import FILE_BYTES

BATCH = (1, 8, 64)


@pytest.fixture
def model(tiny_graph_bytes: bytes, tmp_path: Path) -> Path:
    """The tiny net as a file."""
    path = tmp_path / "model.int8.onnx"
    path.write_bytes(tiny_graph_bytes)
    return path


def read(path: Path) -> Content:
    """An ONNX file as a bundle hands it out."""
    return content_of(path, FILE_BYTES)


def with_tensorrt(monkeypatch: pytest.MonkeyPatch, major: int | None) -> None:
    """The provider is linked with that TensorRT."""
    monkeypatch.setattr(ort_trt, "tensorrt_of_provider", lambda package: major)


@pytest.mark.parametrize("major", [8, 10, 11])
def test_the_tensorrt_is_read_off_the_providers_library(tmp_path: Path, major: int) -> None:
    (tmp_path / "capi").mkdir()
    (tmp_path / "capi" / LIBRARY).write_bytes(b"\x7fELF\0libcudart.so.13\0libnvinfer.so.%d\0libcudnn.so.9" % major)
    assert tensorrt_of_provider(tmp_path) == major


def test_a_build_without_the_provider_has_no_tensorrt(tmp_path: Path) -> None:
    assert tensorrt_of_provider(tmp_path) is None
    if "TensorrtExecutionProvider" not in onnxruntime.get_available_providers():
        assert tensorrt_of_provider(Path(onnxruntime.__file__).parent) is None


@pytest.mark.parametrize(
    ("major", "precision", "flags"),
    [
        (8, "fp32", set()),
        (8, "fp16", {"trt_fp16_enable"}),
        (10, "int8", {"trt_fp16_enable", "trt_int8_enable"}),
        (10, "int8-fp16", {"trt_fp16_enable", "trt_int8_enable"}),
        (11, "int8", set()),
        (11, "fp16", set()),
        (None, "int8", set()),
    ],
)
def test_types_need_flags_only_below_tensorrt_11(
    monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path, major: int | None, precision: str, flags: set[str]
) -> None:
    with_tensorrt(monkeypatch, major)
    options = tensorrt_options(read(model), VARIANTS[precision].builder_flags, BATCH, tmp_path / "cache", "Orin")
    assert {name for name in options if name.endswith(("fp16_enable", "int8_enable"))} == flags
    assert all(isinstance(value, str) for value in options.values())


def test_the_batches_of_the_target_are_the_profile(model: Path, tmp_path: Path) -> None:
    options = tensorrt_options(read(model), (), BATCH, tmp_path / "cache", "Orin")
    shapes = {name: value for name, value in options.items() if "profile" in name}
    assert shapes == {
        "trt_profile_min_shapes": "images:1x16x16x3",
        "trt_profile_opt_shapes": "images:8x16x16x3",
        "trt_profile_max_shapes": "images:64x16x16x3",
    }


def test_a_fixed_batch_has_no_profile(tiny_graph: onnx.ModelProto, tmp_path: Path) -> None:
    tiny_graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(tiny_graph, tmp_path / "fixed.onnx")
    options = tensorrt_options(read(tmp_path / "fixed.onnx"), (), BATCH, tmp_path / "cache", "Orin")
    assert not [name for name in options if "profile" in name]


def test_engines_of_other_bytes_gpus_tensorrts_and_options_lie_apart(
    monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path
) -> None:
    def engines(types: tuple[str, ...] = (), device: str = "Orin", batch: tuple[int, int, int] = BATCH) -> str:
        return tensorrt_options(read(model), types, batch, tmp_path / "cache", device)["trt_engine_cache_path"]

    with_tensorrt(monkeypatch, 10)
    first = engines()
    assert engines() == first
    others = {engines(("FP16", "INT8")), engines(device="Thor"), engines(batch=(1, 8, 32))}
    with_tensorrt(monkeypatch, 11)
    others.add(engines())
    weights = onnx.load(model)
    weights.graph.initializer[0].raw_data = bytes(len(weights.graph.initializer[0].raw_data))
    onnx.save(weights, model)  # the names of its nodes stay: ONNX Runtime's own cache would not tell them apart
    others.add(engines())
    assert len(others | {first}) == 6


def test_only_this_user_may_write_where_engines_are_kept(model: Path, tmp_path: Path) -> None:
    options = tensorrt_options(read(model), (), BATCH, tmp_path / "cache", "Orin")
    for name in ("trt_engine_cache_path", "trt_timing_cache_path"):
        folder = Path(options[name])
        assert stat.S_IMODE(folder.stat().st_mode) & 0o077 == 0
        assert tmp_path / "cache" in folder.parents


def test_a_cache_that_cannot_be_made_is_one_error(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ToolkitError, match="cannot write"):
        tensorrt_options(read(model), (), BATCH, tmp_path / "file" / "cache", "Orin")
