"""A workspace with a tiny trained model, made once by the commands themselves."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.advice import require_good_advice
from tests.schemas import require_schema
from toolkit.cli import run
from toolkit.storage.folders import locked


@dataclass(frozen=True)
class Answer:
    """What a command left: its exit code, the document on stdout's last line, and what people saw."""

    code: int
    document: dict[str, Any]
    text: str


Toolkit = Callable[..., Answer]


def structured_set(count: int, classes: int, seed: int, size: int = 32, channels: int = 1) -> tuple[Any, Any]:
    """Images uint8 (count, size, size, channels) with stripes whose width is the class, and labels.

    A net with a global average pool sees textures, not places.
    """
    draws = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = draws.integers(0, 60, (count, size, size, channels), dtype=np.uint8)
    rows = np.arange(size)
    for image, label in zip(images, labels, strict=True):
        image[rows // (label + 1) % 2 == 0] += 150
    return images, labels.astype(np.int64)


def arrays_of(path: Path) -> dict[str, Any]:
    """An .npz file's arrays; it is closed again."""
    with np.load(path) as archive:
        return dict(archive)


@pytest.fixture(scope="session")
def tiny_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with `set.npz`, the model `tiny` (trained for seconds) and its bundle in every precision.

    One worker makes it, the others have copies of their own.
    """
    base = tmp_path_factory.getbasetemp()
    made = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tiny-workspace"
    with locked(made.with_suffix(".lock")):
        if not (made / "bundles/tiny/manifest.json").exists():
            shutil.rmtree(made, ignore_errors=True)
            _make_workspace(made)
    return Path(shutil.copytree(made, tmp_path_factory.mktemp("workspace"), dirs_exist_ok=True))


def _make_workspace(folder: Path) -> None:
    folder.mkdir()
    train, test = structured_set(320, 4, seed=0), structured_set(120, 4, seed=1)
    np.savez(
        folder / "set.npz",
        train_images=train[0], train_labels=train[1], test_images=test[0], test_labels=test[1],
        classes=np.array(["north", "upper", "lower", "south"]),
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLKIT_WORKSPACE", str(folder))
        patch.chdir(folder)
        for words in (
            "train tiny --arch resnet8 --widths 8,16 --blocks 1,1 --strides 1,2 --data set.npz --epochs 8 --batch 16 "
            "--lr 0.05 --crop 0 --no-flip --images 64",
            "export tiny --int8 --fp16",
        ):
            assert exit_code(words.split()) == 0, words


@pytest.fixture(autouse=True)
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that runs tests is never calm; what settles is told in tests of its own."""
    monkeypatch.setattr("toolkit.deployment.selftest.why_not_settled", lambda latency: "")


@pytest.fixture
def toolkit(tiny_workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Toolkit:
    """Runs a command in this process, in the tiny workspace, and returns its `Answer`."""
    monkeypatch.setenv("TOOLKIT_WORKSPACE", str(tiny_workspace))
    monkeypatch.chdir(tiny_workspace)
    return in_this_process(capsys)


def in_this_process(capsys: pytest.CaptureFixture[str]) -> Toolkit:
    """Runs commands in this process, where it stands."""

    def call(*words: str | Path) -> Answer:
        capsys.readouterr()
        code = exit_code([str(word) for word in words])
        out, err = capsys.readouterr()
        document = json.loads(out.strip().splitlines()[-1])
        if find_spec("jsonschema"):  # whatever a command prints has a schema, and keeps it
            require_schema(document)
        require_good_advice([str(word) for word in words], document, err)
        return Answer(code, document, err)

    return call


def exit_code(words: list[str]) -> int:
    """Runs a command in this process, which goes on behind it."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        with pytest.raises(SystemExit) as ended:
            run(words)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return int(ended.value.code or 0)
