"""The embedded default: its card is true, and its bundle keeps the promise on real images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.demo import RESULTS
from toolkit.bundle import Bundle, bundle_from_folder
from toolkit.bundle.manifest import VARIANTS
from toolkit.compare.parity import logits_in_batches, parity_from_logits, score_from_logits
from toolkit.contracts import LabeledImages, sha256_of_each
from toolkit.data import dataset_from_spec
from toolkit.data.model_images import images_from_folder
from toolkit.errors import DataError
from toolkit.models.card import card_from_folder
from toolkit.runtime.ort.runner import OrtRunner
from toolkit.workspace import DEFAULT_MODEL

ROOT = Path(__file__).parent.parent
CARD = card_from_folder(ROOT / "models" / DEFAULT_MODEL)


def fashion_mnist() -> LabeledImages:
    """The 10,000 test images, where the set is installed."""
    try:
        return dataset_from_spec("fashion-mnist").test
    except DataError as error:
        pytest.skip(f"Fashion-MNIST is not installed here ({error.fix})")


@pytest.fixture(scope="module")
def exported(demo: Path) -> tuple[Bundle, dict[str, Any]]:
    """The default's bundle and export's document."""
    return bundle_from_folder(demo / "bundles" / DEFAULT_MODEL), result(demo, "export")


def result(demo: Path, command: str) -> dict[str, Any]:
    """What a command of the demo printed."""
    document: dict[str, Any] = json.loads((demo / RESULTS / f"{command}.json").read_text())
    return document


def test_the_card_says_at_least_94_percent_with_its_interval() -> None:
    assert CARD.accuracy is not None
    low, high = CARD.accuracy["interval95_percent"]
    assert CARD.accuracy["images"] == 10_000
    assert CARD.accuracy["top1_percent"] >= 94.0
    assert low < CARD.accuracy["top1_percent"] < high


@pytest.mark.slow
def test_pytorch_and_onnx_runtime_answer_the_embedded_images_alike(demo: Path) -> None:
    document = result(demo, "verify")
    (parity,) = (
        row for row in document["parity"] if (row["reference"], row["candidate"]) == ("torch fp32", "ort fp32")
    )
    assert parity["reference_score"]["images"] == 1000
    assert (parity["flips"], parity["nonfinite"]) == (0, 0)
    assert parity["relative_l2"] < 1e-5


def test_the_images_are_512_to_calibrate_and_2000_to_evaluate_and_none_is_both() -> None:
    images = images_from_folder(ROOT / "calibration" / DEFAULT_MODEL)
    assert (len(images.calibration), len(images.evaluation)) == (512, 2000)
    assert not set(sha256_of_each(images.calibration.images_nhwc)) & set(sha256_of_each(images.evaluation.images_nhwc))
    license = (ROOT / "calibration" / DEFAULT_MODEL / "LICENSE").read_text()
    assert "Zalando" in license
    assert "MIT" in license


def test_the_images_are_those_of_the_data_set() -> None:
    dataset = dataset_from_spec("fashion-mnist") if fashion_mnist() else None
    assert dataset is not None
    images = images_from_folder(ROOT / "calibration" / DEFAULT_MODEL)
    for part, whole in ((images.calibration, dataset.train), (images.evaluation, dataset.test)):
        label_of = dict(zip(sha256_of_each(whole.images_nhwc), whole.labels.tolist(), strict=True))
        found = [label_of[digest] for digest in sha256_of_each(part.images_nhwc)]
        assert found == part.labels.tolist()


@pytest.mark.slow
def test_int8_stays_within_0_3_points_and_1_5_percent_of_flips(exported: tuple[Bundle, dict[str, Any]]) -> None:
    bundle, document = exported
    assert bundle.manifest["evaluation"]["images"] == 2000
    fp32, fp16, int8 = (document["accuracy"][p] for p in ("fp32", "fp16", "int8"))
    assert abs(fp32["top1_percent"] - int8["top1_percent"]) <= 0.3
    assert int8["flips"] < 0.015 * 2000
    assert fp16["agreement_percent"] >= 99.9


@pytest.mark.slow
def test_tensorrt_builds_all_three_and_reads_int8_in_every_convolution(
    exported: tuple[Bundle, dict[str, Any]],
) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="needs the TensorRT-RTX wheels (extra rtx)")
    engines = {entry["precision"]: entry for entry in exported[1]["engines"]}
    assert set(engines) == {"fp32", "fp16", "int8", "int8-fp16"}
    assert engines["int8"]["census"]["convolutions"] == 15
    for precision, reads in (("fp32", "Float"), ("fp16", "Half"), ("int8", "Int8"), ("int8-fp16", "Int8")):
        assert engines[precision]["census"]["convolutions_reading"][reads] == 15


@pytest.mark.slow
def test_on_all_10000_images_the_card_is_true_and_int8_keeps_its_bounds(
    exported: tuple[Bundle, dict[str, Any]],
) -> None:
    images, bundle = fashion_mnist(), exported[0]
    logits = {}
    for precision in ("fp32", "int8"):
        with OrtRunner(bundle.onnx_file(precision)) as runner:
            logits[precision] = logits_in_batches(runner, images.images_nhwc)
    assert CARD.accuracy is not None
    measured = score_from_logits(logits["fp32"], images.labels)
    # Another engine adds up in another order: an image whose two best logits are a millionth apart may turn.
    assert abs(measured.correct - CARD.accuracy["correct"]) <= 1
    parity = parity_from_logits("ort fp32", "ort int8", logits["fp32"], logits["int8"], images.labels)
    assert abs(parity.lost - parity.gained) / 100 <= 0.3
    assert parity.flips < 150


@pytest.mark.slow
def test_golden_answers_come_out_again(exported: tuple[Bundle, dict[str, Any]]) -> None:
    bundle = exported[0]
    images, logits = bundle.golden()
    for precision in bundle.precisions:
        with OrtRunner(bundle.onnx_file(precision), optimize=VARIANTS[precision].optimize) as runner:
            got = logits_in_batches(runner, images.images_nhwc)
        assert np.array_equal(got.argmax(axis=1), logits[precision].argmax(axis=1))
        assert np.abs(got - logits[precision]).max() < 0.05
