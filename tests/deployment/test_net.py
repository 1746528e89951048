"""Claims about `toolkit.load`: right answers or one named error, whatever a camera loop hands over."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import toolkit
from toolkit.bundle.reading import bundle_from_folder
from toolkit.contracts import LabeledImages
from toolkit.deployment import net as net_module
from toolkit.deployment.net import Net
from toolkit.deployment.openers import OPENERS
from toolkit.errors import BackendUnavailable, BundleError, DataError, EngineError, ModelError, ToolkitError


@pytest.fixture(scope="module")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory, tiny_graph_bytes: bytes) -> Path:
    """A bundle of the tiny net, fp32 and the CPU's INT8, written by the parts that `toolkit export` is made of."""
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    source = Path(__file__).parents[1] / "bundle/format-1"
    shutil.copytree(source, folder)
    return folder


@pytest.fixture
def net(bundle_folder: Path) -> Any:
    """The tiny net, loaded with every default, closed afterwards."""
    with toolkit.load(bundle_folder) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def golden(bundle_folder: Path) -> tuple[LabeledImages, dict[str, Any]]:
    """Images and the logits that the host gave for them."""
    return bundle_from_folder(bundle_folder).golden()


def test_a_bundle_of_the_first_format_still_answers_its_golden_logits(
    bundle_folder: Path, golden: tuple[LabeledImages, dict[str, Any]]
) -> None:
    images, logits = golden
    for precision, expected in logits.items():
        with toolkit.load(bundle_folder, precision=precision) as net:
            distance = np.linalg.norm(net.logits(images.images_nhwc) - expected) / np.linalg.norm(expected)
            assert distance < (1e-4 if precision == "fp32" else 0.05), precision


def test_a_net_says_what_it_is(bundle_folder: Path) -> None:
    with toolkit.load(bundle_folder, backend="ort") as net:
        assert repr(net) == f"<toolkit.Net '{net.model}': int8-cpu on ort, CPU; uint8 (N, 16, 16, 3) to 3 classes>"
    assert repr(net).endswith("3 classes, closed>")


def test_a_newer_format_is_refused_in_words(bundle_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle_folder, tmp_path / "b")
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    (tmp_path / "b" / "manifest.json").write_text(json.dumps(manifest | {"format": 3}))
    with pytest.raises(BundleError, match="cannot read") as caught:
        toolkit.load(tmp_path / "b")
    assert "pip install -U" in str(caught.value)


def test_it_says_which_backend_and_file_answer_and_why_not_another(net: Net) -> None:
    assert (net.backend, net.precision) == ("ort", "int8-cpu")
    assert "model.int8-cpu.onnx" in net.description
    assert set(net.passed_over) == {"trt"}
    assert net.passed_over["trt"]


def test_labels_and_probabilities_follow_from_the_logits(
    net: Net, golden: tuple[LabeledImages, dict[str, Any]]
) -> None:
    images = golden[0].images_nhwc
    labels, probabilities = net.classify(images)
    logits = net.logits(images)
    assert labels == [net.labels[i] for i in logits.argmax(1)]
    assert probabilities.dtype == np.float32
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert np.allclose(np.log(probabilities[:, :1] / probabilities[:, 1:2]), logits[:, :1] - logits[:, 1:2], atol=1e-3)


def test_every_way_to_hand_over_the_same_images_gives_the_same_answer(
    net: Net, golden: tuple[LabeledImages, dict[str, Any]]
) -> None:
    import torch

    images = golden[0].images_nhwc[:4]
    expected = net.logits(images)
    read_only = images.copy()
    read_only.setflags(write=False)
    wide = np.zeros((4, *images.shape[1:3], 6), np.uint8)
    wide[..., ::2] = images
    ways = {
        "list": list(images), "read-only": read_only, "strided": wide[..., ::2],
        "fortran": np.asfortranarray(images), "torch": torch.tensor(images), "reversed twice": images[::-1][::-1],
    }  # fmt: skip
    for way, given in ways.items():
        assert np.array_equal(net.logits(given), expected), way
    assert net.logits(images[0]).shape == (1, len(net.labels))
    assert len(net.classify(images[0]).labels) == 1


@pytest.mark.parametrize("nothing", [[], np.zeros((0, 16, 16, 3), np.uint8)])
def test_no_images_give_no_answers(net: Net, nothing: Any) -> None:
    labels, probabilities = net.classify(nothing)
    assert labels == []
    assert probabilities.shape == (0, len(net.labels))


@pytest.mark.slow
def test_ten_thousand_images_are_answered_in_parts(
    net: Net, golden: tuple[LabeledImages, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    some = golden[0].images_nhwc[:7]
    many = np.tile(some, (1429, 1, 1, 1))[:10_000]
    assert net._runner is not None
    seen: list[int] = []
    answer = net._runner.logits

    def counted(part: Any) -> Any:
        seen.append(len(part))
        return answer(part)

    monkeypatch.setattr(net._runner, "logits", counted)
    got = net.logits(many)
    assert max(seen) <= net_module.LARGEST_BATCH
    assert got.shape == (10_000, len(net.labels))
    assert np.allclose(got[:7], got[7:14], atol=1e-4)


class OnAGpu:
    """Something like a torch tensor on a GPU, as far as the interface says."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {"shape": (1, 16, 16, 3), "typestr": "|u1", "data": (0, True), "version": 3}


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (np.zeros((1, 16, 16, 3), np.float32), "0 to 255 as uint8"),
        (np.zeros((1, 15, 16, 3), np.uint8), "resize"),
        (np.zeros((1, 16, 16, 1), np.uint8), "grayscale"),
        (np.zeros((1, 3, 16, 16), np.uint8), "transpose"),
        (np.zeros((1, 16, 16, 4), np.uint8), "uint8 (N, 16, 16, 3)"),
        (np.zeros((16, 16), np.uint8), "uint8 (N, 16, 16, 3)"),
        (np.zeros((5, 16, 16), np.uint8), "without an axis of channels"),
        ([np.zeros((16, 16, 3), np.uint8), np.zeros((15, 16, 3), np.uint8)], "images of one size"),
        ("frame.png", "uint8 (N, 16, 16, 3)"),
        (None, "uint8 (N, 16, 16, 3)"),
        (OnAGpu(), "images.cpu()"),
    ],
)
def test_what_is_no_image_is_one_named_error(net: Net, images: Any, said: str) -> None:
    with pytest.raises(DataError) as caught:
        net.classify(images)
    assert said in str(caught.value)


@pytest.mark.usefixtures("every_core")
def test_sixteen_threads_get_the_same_answers(net: Net, golden: tuple[LabeledImages, dict[str, Any]]) -> None:
    images = golden[0].images_nhwc
    expected = net.logits(images)
    wrong: list[int] = []

    def ask(number: int) -> None:
        if not all(np.array_equal(net.logits(images), expected) for _ in range(20)):
            wrong.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def _ask_in_child(net: Net, images: Any, answers: Any) -> None:
    try:
        net.logits(images)
        answers.put("answered")
    except ToolkitError as error:
        answers.put(error.what)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_net_from_before_a_fork_says_so_and_does_not_hang(
    net: Net, golden: tuple[LabeledImages, dict[str, Any]]
) -> None:
    context = multiprocessing.get_context("fork")
    answers: Any = context.SimpleQueue()
    child = context.Process(target=_ask_in_child, args=(net, golden[0].images_nhwc[:1], answers))
    child.start()
    assert "forked" in answers.get()
    child.join(30)
    assert child.exitcode == 0


def test_a_closed_net_says_so(bundle_folder: Path) -> None:
    net = toolkit.load(bundle_folder)
    net.close()
    net.close()
    with pytest.raises(ToolkitError, match="closed"):
        net.classify(np.zeros((1, 16, 16, 3), np.uint8))


def test_what_was_asked_for_by_name_never_becomes_another(bundle_folder: Path) -> None:
    with pytest.raises(BackendUnavailable):
        toolkit.load(bundle_folder, backend="trt")
    with pytest.raises(BundleError, match="fp16"):
        toolkit.load(bundle_folder, precision="fp16")
    with pytest.raises(ToolkitError, match="unknown backend"):
        toolkit.load(bundle_folder, backend="cuda")


def test_a_backend_that_is_here_and_fails_is_an_error_unless_told_otherwise(
    bundle_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(bundle: Any, precision: str) -> Any:
        raise EngineError("the engine is for another GPU")

    monkeypatch.setitem(OPENERS, "trt", fails)
    with pytest.raises(EngineError, match="another GPU"):
        toolkit.load(bundle_folder)
    with pytest.warns(RuntimeWarning, match="trt failed"):
        net = toolkit.load(bundle_folder, strict=False)
    assert net.backend == "ort"
    assert "another GPU" in net.passed_over["trt"]


def test_a_program_that_loads_a_net_imports_numpy_and_onnxruntime_alone(bundle_folder: Path) -> None:
    code = (
        f"import sys, numpy, toolkit\nnet = toolkit.load({str(bundle_folder)!r})\n"
        "net.classify(numpy.zeros((1, 16, 16, 3), numpy.uint8))\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    root = str(Path(toolkit.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env={"PYTHONPATH": root}
    )
    assert done.returncode == 0, done.stderr
    assert not {"torch", "onnx", "PIL", "typer", "rich", "click", "safetensors"} & set(done.stdout.split())


def test_the_module_has_nothing_else_by_accident() -> None:
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = toolkit.lode


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_memory_stays_flat_over_many_calls(net: Net) -> None:
    image = np.zeros((1, 16, 16, 3), np.uint8)

    def resident_pages() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1])

    for _ in range(2_000):
        net.classify(image)
    before = resident_pages()
    for _ in range(10_000):
        net.classify(image)
    assert (resident_pages() - before) * os.sysconf("SC_PAGE_SIZE") < 1 << 20  # an array a call would be more


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("count", [1, 3])
def test_an_engine_that_answers_nonsense_is_a_named_error(
    net: Net, value: float, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = np.zeros((count, 3), np.float32)
    answers[-1] = value
    assert net._runner is not None
    monkeypatch.setattr(net._runner, "logits", lambda images: answers.copy())
    with pytest.raises(ModelError, match=rf"NaN or infinity[^$]*1 of {count} images, the first at index {count - 1}"):
        net.classify(np.zeros((count, 16, 16, 3), np.uint8))


def test_a_class_that_is_impossible_is_no_nonsense(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    assert net._runner is not None
    monkeypatch.setattr(net._runner, "logits", lambda images: np.array([[-np.inf, 0, 0]], np.float32))
    assert net.classify(np.zeros((16, 16, 3), np.uint8)).probabilities.tolist() == [[0, 0.5, 0.5]]


@pytest.mark.parametrize(("kind", "row"), [("probabilities", [0.1, 0.7, 0.2]), ("sigmoids", [0.9, 0.95, 0.1])])
def test_what_is_no_logit_is_handed_on_as_it_is(
    bundle_folder: Path, kind: str, row: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(bundle_folder, tmp_path / "b")
    manifest = json.loads((tmp_path / "b/manifest.json").read_text())
    manifest["output"]["kind"] = kind
    (tmp_path / "b/manifest.json").write_text(json.dumps(manifest))
    with toolkit.load(tmp_path / "b") as loaded:
        assert loaded._runner is not None
        monkeypatch.setattr(loaded._runner, "logits", lambda images: np.array([row], np.float32))
        answers = loaded.classify(np.zeros((16, 16, 3), np.uint8))
    assert np.allclose(answers.probabilities, [row])
    assert answers.labels == [loaded.labels[1]]


def test_a_masked_array_is_refused_because_nothing_is_left_out(net: Net) -> None:
    images = np.ma.masked_array(
        np.zeros((2, 16, 16, 3), np.uint8), mask=np.arange(2 * 16 * 16 * 3).reshape(2, 16, 16, 3) < 5
    )
    with pytest.raises(DataError, match=r"masked array[^$]*5 of 1,536 pixels"):
        net.classify(images)
