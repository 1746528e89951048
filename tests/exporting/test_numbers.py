"""Claims about numbers that no training leaves: an export refuses them in words or says so, file by file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import toolkit
from toolkit import Exported, ExportOptions, UserModel
from toolkit.contracts import Float32, Int64, UInt8
from toolkit.errors import ToolkitError

SIDE, CLASSES, FILTERS = 16, 4, 12
Weights = dict[str, Float32]


def _pictures(count: int, seed: int) -> tuple[UInt8, Int64]:
    """Waves whose length is the class: uint8 (count, 16, 16, 3), labels."""
    rng, labels = np.random.default_rng(seed), np.arange(count) % CLASSES
    at = np.arange(SIDE) * np.pi / (2 + labels[:, None])  # (count, 16)
    waves = 70 * np.sin(at)[:, :, None, None] * np.array([1, 0.8, 0.6]) + rng.normal(size=(count, SIDE, SIDE, 3)) * 6
    return (118 + waves).clip(0, 255).astype(np.uint8), labels.astype(np.int64)


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Weights]:
    """A set, and weights of a small network that is right on it: solved by least squares."""
    folder, (train, labels), test = tmp_path_factory.mktemp("numbers"), _pictures(256, 0), _pictures(96, 1)
    np.savez(folder / "set.npz", train_images=train, train_labels=labels, test_images=test[0], test_labels=test[1])
    rng = np.random.default_rng(2)
    kernel, shift = rng.normal(size=(FILTERS, 3, 3, 3)) / 5, rng.normal(size=FILTERS) / 5
    pixels = (train.transpose(0, 3, 1, 2) / 255 - 0.46) / 0.2
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (3, 3), (2, 3))
    seen = np.maximum(np.einsum("nchwij,fcij->nfhw", windows, kernel) + shift[:, None, None], 0).reshape(256, -1)
    wanted = np.eye(CLASSES)[labels] - 1 / CLASSES
    fc = np.linalg.solve(seen.T @ seen + np.eye(seen.shape[1]), seen.T @ wanted).T
    weights = {"k": kernel, "kb": shift, "w": fc, "b": np.full(CLASSES, 1 / CLASSES)}
    return folder, {name: values.astype(np.float32) for name, values in weights.items()}


def _exported(right: tuple[Path, Weights], into: Path, fp16: bool = True, **changed: Float32) -> Exported:
    """The network with other weights as a bundle."""
    nodes = [
        helper.make_node("Conv", ["x", "k", "kb"], ["c"], "conv"),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("Flatten", ["r"], ["f"], "flat"),
        helper.make_node("Gemm", ["f", "w", "b"], ["logits"], "fc", transB=1),
    ]
    pixels = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])
    weights = [numpy_helper.from_array(v.astype(np.float32), name) for name, v in (right[1] | changed).items()]
    graph = helper.make_graph(nodes, "g", [pixels], [logits], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), into / "net.onnx")
    options = ExportOptions(int8=True, fp16=fp16, method="minmax", engines=False, data=str(right[0] / "set.npz"))
    return toolkit.export(into / "net.onnx", into / "b", options, user=UserModel(mean=[0.46], std=[0.2]))


def test_sound_numbers_are_exported_without_a_word(right: tuple[Path, Weights], tmp_path: Path) -> None:
    made = _exported(right, tmp_path)
    assert {name: judged.score.top1_percent > 95 for name, judged in made.accuracy.items()} == dict.fromkeys(
        ("fp32", "fp16", "int8", "int8-fp16", "int8-cpu"), True
    )
    assert not [note for note in made.notes if "zero" in note]


REFUSED: dict[str, tuple[Callable[[Weights], Weights], str]] = {
    "constant logits": (lambda w: {"w": 0 * w["w"]}, "one class"),
    "one class only": (lambda w: {"b": w["b"] + 50 * np.eye(CLASSES)[2]}, "one class, '2'"),
    "dead ReLUs": (lambda w: {"kb": w["kb"] - 1e4}, "one class"),
    "weights of 1e30": (
        lambda w: {"k": 1e30 * w["k"], "kb": 1e30 * w["kb"], "w": 1e-30 * w["w"]},
        "weight 'k' overflows FP16",
    ),
    "weights that overflow": (lambda w: {"k": 1e38 * w["k"], "w": 1e4 * w["w"]}, "NaN or infinity"),
    "denormal logits": (lambda w: {"w": 1e-40 * w["w"], "b": 1e-40 * w["b"]}, "the logits reach"),
    "small logits": (lambda w: {"w": 1e-9 * w["w"], "b": 1e-9 * w["b"]}, "FP16 has no digits"),
    "NaN": (lambda w: {"w": w["w"] * np.nan}, "weight 'w'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_numbers_that_make_another_model_are_refused_in_words(
    case: str, right: tuple[Path, Weights], tmp_path: Path
) -> None:
    change, words = REFUSED[case]
    with pytest.raises(ToolkitError) as refused:
        _exported(right, tmp_path, True, **change(right[1]))
    assert words in f"{refused.value.what} {refused.value.found}"
    assert not (tmp_path / "b").exists()


def test_weights_of_1e30_are_exact_in_int8_and_no_fp16_file_is_written(
    right: tuple[Path, Weights], tmp_path: Path
) -> None:
    weights = right[1]
    made = _exported(
        right, tmp_path, fp16=False, k=weights["k"] * 1e30, kb=weights["kb"] * 1e30, w=weights["w"] * 1e-30
    )
    assert made.accuracy["int8"].agreement_percent > 95
    assert "overflows FP16" in made.left_out["int8-fp16"]


def test_channels_of_zeros_and_denormal_weights_are_said(right: tuple[Path, Weights], tmp_path: Path) -> None:
    weights = right[1]
    some = np.arange(FILTERS) < 2
    made = _exported(right, tmp_path, k=np.where(some[:, None, None, None], 0, weights["k"]))
    assert "2 of 12 channels of 'conv' have no weight but zero." in made.notes
    made = _exported(right, tmp_path, False, k=weights["k"] * 1e-39, kb=weights["kb"] * 1e-39, w=weights["w"] * 1e30,
                     b=weights["b"] * 1e-9)  # fmt: skip
    assert any("the weights of 'conv' reach" in note for note in made.notes)
