"""Claims about `toolkit train` as people use it: configs, summaries, fine-tuning, logs, and several processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.cli.conftest import Toolkit, exit_code, structured_set
from tests.warm import python

SMALL = "--arch resnet8 --widths 8,16 --blocks 1,1 --strides 1,2 --batch 16 --lr 0.05 --images 32"
NET = SMALL.split()


def card_of(folder: Path, name: str) -> dict[str, Any]:
    """A model's card as JSON."""
    card: dict[str, Any] = json.loads((folder / "models" / name / "card.json").read_text())
    return card


def test_a_run_leaves_a_line_an_epoch_and_a_learning_curve(tiny_workspace: Path) -> None:
    lines = [json.loads(line) for line in (tiny_workspace / "models/tiny/training.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, 9))
    assert set(lines[0]) == {"epoch", "loss", "holdout_top1", "lr", "images_per_s", "seconds"}
    assert lines[-1]["loss"] < lines[0]["loss"]
    training = card_of(tiny_workspace, "tiny")["training"]
    best = lines[training["best_epoch"] - 1]
    assert 100 * best["holdout_top1"] == pytest.approx(training["holdout_top1_percent"], abs=1e-3)
    assert (tiny_workspace / "models/tiny/training.png").read_bytes().startswith(b"\x89PNG\r\n")


@pytest.mark.slow
def test_a_config_gives_options_and_the_command_line_wins(toolkit: Toolkit, tmp_path: Path) -> None:
    file = tmp_path / "net.toml"
    file.write_text(
        'arch = "resnet8"\nwidths = [8, 16]\nblocks = "1,1"\nstrides = [1, 2]\ndata = "set.npz"\nepochs = 5\n'
        "batch = 32\nlr = 0.05\nflip = false\ncrop = 0\nimages = 32\nweight-decay = 0\ndeterministic = true\n"
    )
    answer = toolkit("train", "configured", "--config", file, "--epochs", "1", "--flip")
    assert answer.code == 0, answer.text
    training = card_of(Path.cwd(), "configured")["training"]
    wanted = {"epochs": 1, "batch": 32, "flip": True, "weight_decay": 0, "deterministic": True}
    assert wanted.items() <= training["recipe"].items()
    assert {"widths": "8,16", "data": "set.npz", "epochs": 1, "weight-decay": 0}.items() <= training["options"].items()
    assert training["threads"] >= 1


@pytest.mark.slow
def test_photos_that_were_cropped_in_training_are_cropped_by_export_and_verify(
    toolkit: Toolkit, tmp_path: Path
) -> None:
    images, labels = structured_set(160, 4, seed=6)
    np.savez(
        tmp_path / "wide.npz", images=np.concatenate([images[:, :, :8], images, images[:, :, 8:]], 2), labels=labels
    )
    words = ("--data", tmp_path / "wide.npz", "--size", "16x16x1", "--resize", "crop")
    answer = toolkit("train", "cropped", *NET, *words, "--epochs", "1")
    assert answer.code == 0, answer.text
    assert "were cropped" in answer.text
    assert card_of(Path.cwd(), "cropped")["training"]["options"]["resize"] == "crop"
    again = toolkit("verify", "cropped", "--data", tmp_path / "wide.npz", "--convert")
    assert again.document["card_top1_percent"] == answer.document["accuracy"]["top1_percent"]  # the very same images
    exported = toolkit("export", "cropped", "--data", tmp_path / "wide.npz", "--convert", "--force", "-o", "cropped")
    assert exported.code == 0, exported.text
    manifest = json.loads(Path("cropped/manifest.json").read_text())
    assert manifest["evaluation"]["read"]["resize"] == "crop"
    Image.fromarray(np.concatenate([images[0, :, :24, 0], 255 - images[0, :, :, 0]], 1)).save(tmp_path / "wide.png")
    for place in ("cropped", "models/cropped"):
        own, crop, squash = (
            toolkit("predict", place, tmp_path / "wide.png", *how).document["images"][0]["top"]
            for how in (("--convert",), ("--resize", "crop"), ("--resize", "squash"))
        )
        assert own == crop != squash


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("weight_decai = 0.1", ("weight_decai", "weight-decay = ...")),
        ("frobnicate = 1", ("frobnicate", "--help")),
        ('epochs = "3"', ("epochs", "a whole number")),
        ("flip = 1", ("flip", "true or false")),
        ("epochs = = 3", ("is not TOML",)),
    ],
)
def test_a_config_that_cannot_be_meant_is_refused(
    toolkit: Toolkit, tmp_path: Path, text: str, words: tuple[str, ...]
) -> None:
    file = tmp_path / "net.toml"
    file.write_text(text)
    answer = toolkit("train", "net", "--config", file)
    assert answer.code == 1
    assert all(word in answer.text for word in words)


def test_a_missing_config_is_one_sentence(toolkit: Toolkit) -> None:
    answer = toolkit("train", "net", "--config", "nosuch.toml")
    assert answer.code == 1
    assert "cannot read nosuch.toml" in answer.text


@pytest.mark.slow
def test_test_images_in_the_training_part_are_counted_and_left_out_of_it(toolkit: Toolkit, tmp_path: Path) -> None:
    train, test = structured_set(80, 4, seed=5), structured_set(40, 4, seed=6)
    train[0][:8], train[1][:8] = test[0][:8], test[1][:8]
    train[0][20] = train[0][24]
    np.savez(tmp_path / "s.npz", train_images=train[0], train_labels=train[1], test_images=test[0], test_labels=test[1])
    answer = toolkit("train", "honest", "--data", tmp_path / "s.npz", "--epochs", "1", *NET)
    assert answer.code == 0, answer.text
    assert "8 test images are also training images" in answer.text
    assert "1 training images repeat another one" in answer.text
    assert answer.document["data"]["training_images_dropped"] == 8
    training = card_of(Path.cwd(), "honest")["training"]
    assert (training["images"], training["images_dropped"]) == (72, 8)
    assert card_of(Path.cwd(), "honest")["accuracy"]["images"] == 40


def test_a_training_part_of_nothing_but_test_images_is_refused(toolkit: Toolkit, tmp_path: Path) -> None:
    images, labels = structured_set(40, 4, seed=5)
    np.savez(tmp_path / "s.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    answer = toolkit("train", "honest2", "--data", tmp_path / "s.npz", "--epochs", "1", *NET)
    assert answer.code == 1
    assert "no image is left" in answer.text


@pytest.mark.slow
def test_the_summary_shows_each_class_and_folds_many(toolkit: Toolkit, tmp_path: Path) -> None:
    images, labels = structured_set(400, 15, seed=7)
    kept = (labels != 3) | (np.arange(400) < 200)
    np.savez(tmp_path / "many.npz", images=images[kept], labels=labels[kept])
    answer = toolkit("train", "many", "--data", tmp_path / "many.npz", "--epochs", "1", *NET)
    assert answer.code == 0, answer.text
    assert "... 5 more" in answer.text
    assert "times the images of the smallest" in answer.text
    assert "mean 0." in answer.text


@pytest.mark.slow
def test_fine_tuning_on_few_images_of_new_classes_beats_the_majority_by_far(toolkit: Toolkit, tmp_path: Path) -> None:
    Image = pytest.importorskip("PIL.Image")
    images, labels = structured_set(200, 3, seed=8)
    for name in "abc":
        (tmp_path / "photos" / name).mkdir(parents=True)
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        Image.fromarray(255 - image[..., 0]).save(tmp_path / "photos" / "abc"[label] / f"{index}.png")
    answer = toolkit("train", "tuned", "--from", "tiny", "--data", tmp_path / "photos", "--images", "32")
    assert answer.code == 0, answer.text
    card, origin = card_of(Path.cwd(), "tuned"), card_of(Path.cwd(), "tiny")
    assert card["accuracy"]["top1_percent"] > 80
    assert card["labels"] == ["a", "b", "c"]
    assert card["preprocessing"] == origin["preprocessing"]
    assert card["arch"] == origin["arch"] | {"classes": 3}
    assert card["training"]["from"] == {"name": "tiny", "weights_sha256": origin["weights"]["sha256"]}
    recipe = card["training"]["recipe"]
    assert (recipe["lr"], recipe["epochs"], recipe["batch"]) == (0.01, 10, 16)
    assert card["training"]["options"]["from"] == "tiny"


@pytest.mark.slow
def test_fine_tuning_on_the_same_classes_keeps_the_head(toolkit: Toolkit) -> None:
    words = ("--data", "set.npz", "--epochs", "1", "--lr", "1e-6", "--images", "32", "--crop", "0", "--no-flip")
    answer = toolkit("train", "again", "--from", "tiny", *words)
    assert answer.code == 0, answer.text
    assert answer.document["accuracy"]["top1_percent"] > 90


def test_fine_tuning_refuses_what_does_not_fit_in_words(toolkit: Toolkit, tmp_path: Path) -> None:
    images, labels = structured_set(40, 4, seed=5, channels=3)
    np.savez(tmp_path / "rgb.npz", images=images, labels=labels)
    for words, said in (
        (("--data", tmp_path / "rgb.npz"), "RGB and the model takes grayscale"),
        (("--data", "set.npz", "--arch", "resnet20"), "--from brings its own architecture"),
        (("--data", "set.npz", "--widths", "8,8", "--stem-kernel", "1"), "--widths and --stem-kernel"),
    ):
        answer = toolkit("train", "unfit", "--from", "tiny", *words)
        assert answer.code == 1
        assert said in answer.text
    answer = toolkit("train", "unfit", "--from", "nosuch", "--data", "set.npz")
    assert answer.code == 1
    assert "there is no model 'nosuch'" in answer.text


def test_tensorboard_that_is_not_there_is_said_before_training(
    toolkit: Toolkit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    answer = toolkit("train", "board", "--data", "set.npz", "--epochs", "1", "--tensorboard", *NET)
    assert answer.code == 1
    assert answer.document["error"] == "MissingPackage"
    assert "[tensorboard]" in answer.text
    assert "epoch 1/1" not in answer.text


def test_tensorboard_scalars_lie_in_the_models_folder(tiny_workspace: Path) -> None:
    pytest.importorskip("tensorboard", reason="scalars need the tensorboard package (extra tensorboard)")
    words = ["train", "board", "--data", "set.npz", "--epochs", "2", "--tensorboard", *NET]
    environment = os.environ | {"TOOLKIT_WORKSPACE": str(tiny_workspace)}
    done = subprocess.run(
        [*python(), "-m", "toolkit", *words], cwd=tiny_workspace, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tiny_workspace / "models/board/tensorboard").glob("events.*"))) == 1
    assert not list((tiny_workspace / "models").glob(".board*"))


# Several processes ------------------------------------------------------------------------------------------------

SHARED = ["--data", "set.npz", *NET, "--epochs", "2", "--lr", "0.005", "--amp", "off", "--ema", "0.9", "--crop", "2"]


def torchrun(folder: Path, *words: str) -> subprocess.Popen[str]:
    """Two processes on this machine, started as people start them."""
    environment = os.environ | {"TOOLKIT_WORKSPACE": str(folder)}
    return subprocess.Popen(
        [*python(), "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python",
         *python(), "-m", "toolkit", "train", *words],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def weights_of(folder: Path, name: str) -> dict[str, NDArray[np.float32]]:
    """A model's tensors by name."""
    from safetensors.numpy import load_file

    return dict(load_file(folder / "models" / name / "weights.safetensors"))


def require_same(a: dict[str, NDArray[np.float32]], b: dict[str, NDArray[np.float32]]) -> None:
    """Within what training makes of float32 rounding; tests/training/test_distributed.py looks at it in float64."""
    assert a.keys() == b.keys()
    for name in a:
        assert np.abs(a[name] - b[name]).max() <= 5e-3 * np.abs(a[name]).max(), name


@pytest.fixture(scope="module")
def alone(tiny_workspace: Path) -> Path:
    """The workspace with `alone`, trained by one process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLKIT_WORKSPACE", str(tiny_workspace))
        patch.chdir(tiny_workspace)
        assert (tiny_workspace / "models/alone").exists() or exit_code(["train", "alone", *SHARED]) == 0
    return tiny_workspace


def process_of_rank_0(folder: Path, seconds: float = 60) -> int:
    """What torchrun started for a workspace with RANK=0."""
    wanted, ends = {b"RANK=0", f"TOOLKIT_WORKSPACE={folder}".encode()}, time.monotonic() + seconds
    while time.monotonic() < ends:
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended, or is somebody else's
                if wanted <= set((process / "environ").read_bytes().split(b"\0")):
                    return int(process.name)
        time.sleep(0.05)
    raise AssertionError("torchrun started no rank 0")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds processes in /proc")
@pytest.mark.usefixtures("every_core")
def test_two_processes_reach_the_weights_of_one_though_sigterm_on_rank_0_ended_them_once(alone: Path) -> None:
    process = torchrun(alone, "halted", *SHARED)
    assert process.stderr is not None
    seen = ""
    for line in process.stderr:
        seen += line
        if "epoch 1/2" in line:
            break
    os.kill(process_of_rank_0(alone), signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert re.search(r"exitcode +: 143", err), err  # of rank 0; torchrun's own is 1
    assert json.loads(out.splitlines()[-1])["interrupted"] is True, seen + err
    assert "--resume" in err
    assert card_of(alone, "halted")["accuracy"] is None
    again = torchrun(alone, "halted", *SHARED, "--resume")
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert [json.loads(line)["ok"] for line in out.splitlines()] == [True]
    assert err.count("epoch 2/2") == 1
    require_same(weights_of(alone, "halted"), weights_of(alone, "alone"))
    one, two = card_of(alone, "alone"), card_of(alone, "halted")
    assert (one["training"]["processes"], two["training"]["processes"]) == (1, 2)
    assert one["accuracy"] == two["accuracy"]
    lines = (alone / "models/halted/training.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]


@pytest.mark.slow
@pytest.mark.usefixtures("every_core")
def test_a_fault_in_several_processes_is_said_once(tiny_workspace: Path) -> None:
    process = torchrun(tiny_workspace, "faulty", "--data", "set.npz", *NET, "--batch", "15")
    out, err = process.communicate(timeout=120)
    assert process.returncode != 0
    assert json.loads(out.splitlines()[-1])["ok"] is False
    assert err.count("\nerror: ") == 1, err
    assert "a batch of 15 images cannot be shared evenly by 2 processes" in err


def test_half_an_environment_is_refused_in_words(toolkit: Toolkit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    answer = toolkit("train", "net", "--data", "set.npz")
    assert answer.code == 1
    assert "torchrun --nproc-per-node" in answer.text
