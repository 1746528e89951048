"""Claims about fp32 itself: a model that is not read as it was trained is refused with the cause, a right one never."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from toolkit.cli.words import typed
from toolkit.contracts import Float32, Float64, Int64, LabeledImages, Preprocessing, UInt8
from toolkit.data.model_images import ModelImages, Origin, Recipe, images_from_origin
from toolkit.exporting.fp32 import DoubtfulModel, Fp32, Said, fp32_of_graph, require_right
from toolkit.exporting.readings import CARD, ONNX, TORCH
from toolkit.graph.preprocessing import with_preprocessing
from toolkit.storage.documents import failure_of

SIDE, CLASSES = 8, 12
NAMES = tuple(sorted(map(str, range(CLASSES))))  # "0", "1", "10", "11", "2", ...
HALF, QUARTER, ONE, NONE = (0.5,) * 3, (0.25,) * 3, (1.0,) * 3, (0.0,) * 3
RIGHT = Preprocessing(SIDE, SIDE, 3, HALF, QUARTER)
Change = Callable[[UInt8], UInt8]


def pictures(count: int, seed: int) -> tuple[UInt8, Int64]:
    """A colored pattern a class, faded and noisy: uint8 (count, 8, 8, 3), labels."""
    patterns = np.random.default_rng(1).normal(size=(CLASSES, SIDE, SIDE, 3))
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % CLASSES).astype(np.int64)
    noise = rng.normal(size=(count, SIDE, SIDE, 3)) * 30
    values = 118 + 28 * rng.uniform(0.5, 1.1, (count, 1, 1, 1)) * patterns[labels] + noise
    return values.clip(0, 255).astype(np.uint8), labels


TRAIN, TRAIN_LABELS = pictures(960, 2)
TEST, TEST_LABELS = pictures(360, 3)
IMAGES = ModelImages(
    LabeledImages(TRAIN[:120], TRAIN_LABELS[:120], NAMES, "train"),
    LabeledImages(TEST, TEST_LABELS, NAMES, "test"),
    Recipe("test"),
)


@dataclass(frozen=True)
class Trained:
    """A linear classifier that is right on pixels as `wants` says them, and on images changed by `sees`."""

    weight: Float32
    bias: Float32

    def graph(self, read: Preprocessing, ends: str = "") -> onnx.ModelProto:
        """Behind the preprocessing that somebody says it has."""
        tensors = [numpy_helper.from_array(self.weight, "w"), numpy_helper.from_array(self.bias, "b")]
        nodes = [
            helper.make_node("Flatten", ["x"], ["f"], "flat"),
            helper.make_node("Gemm", ["f", "w", "b"], ["z" if ends else "logits"], "fc", transB=1),
        ]
        nodes += [helper.make_node(ends, ["z"], ["logits"], "end")] if ends else []
        into = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])
        out = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])
        model = helper.make_model(
            helper.make_graph(nodes, "g", [into], [out], tensors),
            opset_imports=[helper.make_opsetid("", 17)],
            ir_version=8,
        )
        return with_preprocessing(model, read, nchw=True)


def as_floats(images: UInt8, wants: Preprocessing) -> Float64:
    scale, shift = wants.scale_and_shift()
    values = images.astype(np.float64) * scale + shift
    return (values[..., ::-1] if wants.bgr else values).transpose(0, 3, 1, 2).reshape(len(images), -1)


def trained(wants: Preprocessing = RIGHT, sees: Change = lambda x: x, names: tuple[str, ...] = NAMES) -> Trained:
    """Solved by least squares; a logit a class, in the order of `names`."""
    values = as_floats(sees(TRAIN), wants)
    center, spread = values.mean(), values.std()
    known = np.concatenate([(values - center) / spread, np.ones((len(values), 1))], axis=1)
    places = np.array([names.index(name) for name in NAMES])[TRAIN_LABELS]
    target = 8 * np.eye(CLASSES)[places]
    solved = np.linalg.solve(known.T @ known + 20 * np.eye(known.shape[1]), known.T @ target)
    weight = solved[:-1] / spread
    return Trained(weight.T.astype(np.float32).copy(), (solved[-1] - center * weight.sum(axis=0)).astype(np.float32))


def judged(model: onnx.ModelProto, read: Preprocessing = RIGHT, said: Said | None = None) -> Fp32:
    return fp32_of_graph(model, read, IMAGES, said or Said(ONNX), lambda what, done, total: None)


def read_with(found: Fp32) -> str:
    """What the error says, as it is typed."""
    with pytest.raises(DoubtfulModel) as caught:
        require_right(found, force=False)
    require_right(found, force=True)
    return typed(str(caught.value))


@pytest.mark.parametrize("said", [Said(ONNX, True), Said(TORCH, True), Said(CARD, expected=(("its card", 80.0),))])
def test_a_model_that_is_read_as_it_was_trained_raises_no_doubt(said: Said) -> None:
    found = judged(trained().graph(RIGHT), said=said)
    assert found.doubts == ()
    assert found.kind == "logits"
    require_right(found, force=False)


def test_a_model_that_leaves_no_room_is_not_read_otherwise() -> None:
    easy = replace(IMAGES, evaluation=IMAGES.evaluation.take(np.arange(24)))
    found = fp32_of_graph(trained().graph(RIGHT), RIGHT, easy, Said(), lambda what, done, total: None)
    assert found.readings == 0


CAFFE = Preprocessing(SIDE, SIDE, 3, (0.406, 0.456, 0.485), (1 / 255,) * 3, bgr=True)
ZERO_ONE = Preprocessing(SIDE, SIDE, 3, NONE, ONE)
RAW = Preprocessing(SIDE, SIDE, 3, NONE, (1 / 255,) * 3)


@pytest.mark.parametrize(
    ("wants", "read", "options"),
    [
        (replace(RIGHT, bgr=True), RIGHT, "--bgr"),
        (RIGHT, replace(RIGHT, bgr=True), "leave out --bgr"),
        (RAW, ZERO_ONE, "--pixels 0-255 or"),
        (replace(RAW, bgr=True), RAW, "--bgr"),
        (replace(RAW, bgr=True), ZERO_ONE, "--pixels 0-255 --bgr"),
        (RAW, RIGHT, "--pixels 0-255 or"),
    ],
)  # fmt: skip
def test_pixels_that_are_read_otherwise_than_in_training_are_named_with_what_to_type(
    wants: Preprocessing, read: Preprocessing, options: str
) -> None:
    words = read_with(judged(trained(wants).graph(read), read))
    assert f"try:     {options}" in words
    assert re.search(r"so it is right on ([5-9]\d|100)\.\d % of 360 images, and as it was read on", words)


def test_options_name_mean_and_std_in_the_networks_order_and_for_each_way_in() -> None:
    graph = trained(CAFFE).graph(ZERO_ONE)
    onnx_words = read_with(judged(graph, ZERO_ONE, Said(ONNX)))
    torch_words = read_with(judged(graph, ZERO_ONE, Said(TORCH)))
    assert "--pixels 0-255" in onnx_words
    assert "BGR" in onnx_words
    assert "--pixels" not in torch_words
    assert "--std 0.00392157,0.00392157,0.00392157 --bgr" in torch_words


@pytest.mark.parametrize(
    ("sees", "words"),
    [
        (lambda x: 255 - x, "the pixels are inverted"),
        (lambda x: x[:, ::-1], "upside down"),
        (lambda x: x.transpose(0, 2, 1, 3), "height and width are swapped"),
    ],
)
def test_images_that_are_laid_out_otherwise_than_in_training_are_named(sees: Change, words: str) -> None:
    assert words in read_with(judged(trained(sees=sees).graph(RIGHT)))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (tuple(map(str, range(CLASSES))), "counted as numbers (2 before 10)"),
        (NAMES[1:] + NAMES[:1], "shifted by 1"),
        (NAMES[1::-1] + NAMES[2:], "in another order: 0 to 1, 1 to 0"),
    ],
)
def test_labels_in_another_order_than_the_logits_are_named_with_the_right_one(
    names: tuple[str, ...], words: str
) -> None:
    said = read_with(judged(trained(names=names).graph(RIGHT)))
    assert words in said
    assert f"--labels {','.join(names)}" in said


def test_one_class_for_all_and_less_than_was_said_are_doubts() -> None:
    net = trained()
    always = Trained(net.weight, net.bias + 1000 * np.eye(CLASSES, dtype=np.float32)[4])
    kinds = {doubt.kind for doubt in judged(always.graph(RIGHT)).doubts}
    assert kinds == {"one class", "chance"}
    weak = Trained(net.weight + np.random.default_rng(0).normal(size=net.weight.shape).astype(np.float32), net.bias)
    said = Said(TORCH, expected=(("`expect_top1=`", 91.7),), other_weights="model_ema")
    words = read_with(judged(weak.graph(RIGHT), said=said))
    assert "--expect-top1 says 91.7 %" in words
    assert "--weights: the checkpoint has others in model_ema" in words


def test_a_network_at_chance_is_a_doubt_and_no_reading_is_made_up_for_it() -> None:
    rng = np.random.default_rng(5)
    noise = Trained(rng.normal(size=(CLASSES, 3 * SIDE * SIDE)).astype(np.float32), np.zeros(CLASSES, np.float32))
    assert [doubt.kind for doubt in judged(noise.graph(RIGHT)).doubts] == ["chance"]


def test_pixels_that_are_not_normalized_are_a_doubt_where_somebody_typed_that() -> None:
    twice = Preprocessing(SIDE, SIDE, 3, NONE, (255.0,) * 3)
    found = judged(trained().graph(twice), twice, Said(ONNX, typed=True))
    assert "normalisation" in [doubt.kind for doubt in found.doubts]
    assert "not normalized" in read_with(found)
    plain = judged(trained(ZERO_ONE).graph(ZERO_ONE), ZERO_ONE, Said(TORCH, typed=True))
    assert plain.doubts == ()  # mean 0 and std 1 are PyTorch's way to say that there is none
    caffe = Preprocessing(SIDE, SIDE, 3, HALF, (1 / 255,) * 3)
    assert (
        judged(trained(caffe).graph(caffe), caffe, Said(ONNX, typed=True)).doubts == ()
    )  # it is right, and so are they


@pytest.mark.parametrize(("cut", "kinds"), [(False, ["multi-label"]), (True, [])])
def test_independent_sigmoids_are_refused_as_multi_label_unless_a_softmax_followed(cut: bool, kinds: list[str]) -> None:
    found = judged(trained().graph(RIGHT, "Sigmoid"), said=Said(ONNX, cut=cut))
    assert [doubt.kind for doubt in found.doubts] == kinds
    assert found.kind == ("logits" if cut else "sigmoids")


def test_probabilities_that_no_softmax_explains_are_carried_as_such() -> None:
    found = judged(trained().graph(RIGHT, "Softmax"))
    assert (found.kind, found.doubts) == ("probabilities", ())


def test_the_error_names_its_kinds_for_machines() -> None:
    with pytest.raises(DoubtfulModel) as caught:
        require_right(judged(trained(replace(RIGHT, bgr=True)).graph(RIGHT)), force=False)
    assert failure_of(caught.value).as_dict()["kinds"] == ["reading"]
    (doubt,) = caught.value.doubts
    assert doubt.fix == "`bgr=True`"


@pytest.mark.slow
@pytest.mark.parametrize(("asked", "kinds"), [("squash", ["reading"]), ("pad", ["reading"]), ("crop", [])])
def test_photos_that_are_resized_otherwise_than_in_training_name_the_way_that_is_right(
    asked: str, kinds: list[str], tmp_path: Path
) -> None:
    wide = {
        name: np.concatenate([x[:, :, :4][::-1], x, x[:, :, 4:][::-1]], 2)
        for name, x in (("train", TRAIN), ("test", TEST))
    }
    np.savez(
        tmp_path / "wide.npz", train_images=wide["train"], train_labels=TRAIN_LABELS, test_images=wide["test"],
        test_labels=TEST_LABELS, classes=np.array(NAMES),
    )  # fmt: skip
    origin = Origin(str(tmp_path / "wide.npz"), convert=True, resize=asked, calibration_images=120)
    images = images_from_origin(origin, RIGHT.shape, NAMES, "linear")
    found = fp32_of_graph(trained().graph(RIGHT), RIGHT, images, Said(ONNX), lambda what, done, total: None)
    assert [doubt.kind for doubt in found.doubts] == kinds
    if kinds:
        assert "--resize crop" in read_with(found)
