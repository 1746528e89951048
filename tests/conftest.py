"""A toy set that a tiny ResNet learns in a second, that ResNet as module, graph and model folder, and a workspace."""

from __future__ import annotations

import gc
import os
import shlex
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import settings

from tests import warm
from toolkit.contracts import Dataset, LabeledImages, Preprocessing, preprocessing_from_images

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    import onnx
    from torch import Tensor

    from toolkit.models.resnet import Classifier, ResNetConfig

# Before torch is imported: its threads wait by spinning, and a tiny net on a busy machine takes ten times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell's background job ignores Ctrl-C, and so would every process that these tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadline: the machine may be busy. No database: a failure prints its seed, and the repository stays clean.
settings.register_profile("toolkit", deadline=None, max_examples=60, database=None)
settings.load_profile("toolkit")

pytest_plugins = ["tests.demo", "tests.leftovers", "tests.rounding"]

CLASSES = ("rows", "columns", "diagonals")
CORES = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set[int]()


def pytest_configure(config: pytest.Config) -> None:
    """Each of several workers keeps to cores of its own, and so do the threads and processes that its tests start.

    Those that wait by spinning would take the time of another worker. `every_core` is for what must happen at once.
    The Python that they, and what slow tests start, are forked from is one for all.
    """
    if address := getattr(config, "workerinput", {}).get("warm"):
        warm.share(address)
    if CORES and (worker := getattr(config, "workerinput", None)):
        number = _number_of_worker(config) % len(CORES)
        with suppress(OSError):  # a sandbox may forbid it
            os.sched_setaffinity(0, sorted(CORES)[number :: worker["workercount"]])


def _number_of_worker(config: pytest.Config) -> int:
    """Of pytest-xdist; 0 without it."""
    return int(getattr(config, "workerinput", {"workerid": "gw0"})["workerid"].removeprefix("gw"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(specs: list[Any]) -> None:
    """The workers of pytest-xdist are forked from the Python that has imported what takes long, too."""
    if sys.platform == "linux":
        for spec in specs:
            spec.python = shlex.join(warm.python())


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """In what starts the workers of pytest-xdist."""
    if node.gateway.spec.python:
        node.workerinput["warm"] = warm.start()


def pytest_unconfigure() -> None:
    """Also where there were no workers."""
    warm.end()


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, pytest.CollectReport, Any]:
    """Every other worker begins at the end: the files of a fresh clone are compiled by one of them, not by each."""
    report = yield
    if isinstance(collector, pytest.Directory) and _number_of_worker(collector.config) % 2:
        report.result = (report.result or [])[::-1]
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first: at the end a worker has nothing left to take over but what takes no time.

    Then by path: workers that began at either end must agree on the order.
    """
    items.sort(key=lambda item: (not item.nodeid.startswith("tests/zoo/"), item.path))


def pytest_collectstart() -> None:
    """What is imported stays: nothing is looked for until everything is."""
    gc.disable()


def pytest_collection_finish() -> None:
    """To look through what was imported again and again was a twentieth of all tests' time."""
    gc.enable()
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)


def _structured(count: int, seed: int, source: str) -> LabeledImages:
    """Stripes of period 4 in three directions, with random phase, color and noise: uint8 (count, 16, 16, 3)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % len(CLASSES)
    y, x = np.mgrid[0:16, 0:16]
    directions = np.stack([y, x, x + y])[labels]
    waves = np.sin(directions * np.pi / 2 + rng.uniform(0, 2 * np.pi, (count, 1, 1)))
    pixels = 128 + waves[..., None] * rng.uniform(30, 90, (count, 1, 1, 3)) + rng.normal(0, 10, (count, 16, 16, 3))
    images = pixels.clip(0, 255).astype(np.uint8)
    images.setflags(write=False)
    return LabeledImages(images, labels, CLASSES, source)


@pytest.fixture
def every_core() -> Iterator[None]:
    """Lets a test and its processes use the cores of the other workers, too."""
    held = os.sched_getaffinity(0) if CORES else CORES
    if held == CORES:
        yield
        return
    os.sched_setaffinity(0, CORES)
    yield
    os.sched_setaffinity(0, held)


@pytest.fixture(scope="session")
def structured_images() -> LabeledImages:
    """60 labeled images, read-only, that no net here was trained on."""
    return _structured(60, 2, "toy evaluation")


@pytest.fixture(scope="session")
def toy_dataset() -> Dataset:
    """120 training and 60 test images."""
    return Dataset("toy", _structured(120, 0, "toy train"), _structured(60, 1, "toy test"))


@pytest.fixture(scope="session")
def tiny_preprocessing(toy_dataset: Dataset) -> Preprocessing:
    """Measured on the toy set."""
    return preprocessing_from_images(toy_dataset.train.images_nhwc)


@pytest.fixture(scope="session")
def tiny_config() -> ResNetConfig:
    """Two stages of one block, one of them with a projection."""
    from toolkit.models.resnet import ResNetConfig

    return ResNetConfig(widths=(8, 16), blocks=(1, 1), strides=(1, 2), classes=len(CLASSES))


@pytest.fixture(scope="session")
def tiny_weights(
    toy_dataset: Dataset, tiny_preprocessing: Preprocessing, tiny_config: ResNetConfig
) -> dict[str, Tensor]:
    """A state dict of the tiny classifier, trained until it tells the directions apart."""
    import torch

    from toolkit.models.checkpoint import classifier_from_config
    from toolkit.training.loop import Recipe, train

    torch.manual_seed(0)
    classifier = classifier_from_config(tiny_config, tiny_preprocessing)
    recipe = Recipe(epochs=6, batch=16, lr=0.05, ema=0.9, crop=2, holdout=24, amp="off")
    return train(classifier, toy_dataset, tiny_preprocessing, recipe, torch.device("cpu")).weights


@pytest.fixture
def tiny_classifier(
    tiny_weights: dict[str, Tensor], tiny_preprocessing: Preprocessing, tiny_config: ResNetConfig
) -> Classifier:
    """The trained tiny net behind its preprocessing, in evaluation mode; a fresh copy for each test."""
    from toolkit.models.checkpoint import classifier_from_config

    classifier = classifier_from_config(tiny_config, tiny_preprocessing)
    classifier.load_state_dict(tiny_weights)
    return classifier.eval()


@pytest.fixture(scope="session")
def tiny_graph_bytes(
    tiny_weights: dict[str, Tensor], tiny_preprocessing: Preprocessing, tiny_config: ResNetConfig
) -> bytes:
    """The trained tiny net as an exported ONNX file."""
    from toolkit.graph.from_torch import onnx_from_torch
    from toolkit.models.checkpoint import classifier_from_config

    classifier = classifier_from_config(tiny_config, tiny_preprocessing)
    classifier.load_state_dict(tiny_weights)
    data: bytes = onnx_from_torch(classifier.eval(), tiny_preprocessing, {"toolkit.model": "tiny"}).SerializeToString()
    return data


@pytest.fixture
def tiny_graph(tiny_graph_bytes: bytes) -> onnx.ModelProto:
    """The trained tiny net as a graph; a fresh copy for each test."""
    import onnx

    return onnx.load_from_string(tiny_graph_bytes)


@pytest.fixture
def tiny_model_folder(tmp_path: Path, tiny_classifier: Classifier, tiny_preprocessing: Preprocessing) -> Path:
    """`models/tiny` under the test's folder: with `workspace` it is found by its name."""
    from toolkit.models.card import Card
    from toolkit.models.checkpoint import arch_from_config, save_model
    from toolkit.models.resnet import ResNet

    assert isinstance(tiny_classifier.net, ResNet)
    card = Card("tiny", arch_from_config(tiny_classifier.net.config), CLASSES, tiny_preprocessing, weights_sha256="")
    folder = tmp_path / "models" / "tiny"
    save_model(folder, card, tiny_classifier.net.state_dict())
    return folder


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty workspace: the test's own folder."""
    monkeypatch.setenv("TOOLKIT_WORKSPACE", str(tmp_path))
    return tmp_path
