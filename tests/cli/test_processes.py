"""What only real processes show: Ctrl-C in every command, two exports at once, imports, output streams."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import toolkit
from tests.cli.conftest import structured_set
from tests.cli.test_bad_input import leftovers
from tests.cli.test_train import NET
from tests.warm import python
from toolkit.bundle import bundle_from_folder
from toolkit.bundle.manifest import VARIANTS
from toolkit.runtime.trt.module import MODULES

pytestmark = pytest.mark.usefixtures("every_core")
ROOT = Path(toolkit.__file__).parents[1]


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    """A command in its own process, in `folder` as its workspace."""
    environment = os.environ | {"TOOLKIT_WORKSPACE": str(folder)}
    return subprocess.Popen(
        [*python(), "-m", "toolkit", *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def interrupt_when(process: subprocess.Popen[str], word: str, number: int) -> tuple[str, str]:
    """Sends a signal once `word` was printed for people; returns stdout and all of stderr."""
    assert process.stderr is not None
    seen = ""
    for line in process.stderr:
        seen += line
        if word in line:
            break
    else:
        raise AssertionError(f"'{word}' never came: {seen}")
    time.sleep(0.2)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    return out, seen + err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "word", "number"),
    [
        ("export tiny --int8 -o out", "measure ranges", signal.SIGINT),
        ("export tiny --int8 -o out", "measure ranges", signal.SIGTERM),
        ("verify --sample 120", "run torch", signal.SIGTERM),
        ("export tiny --int8 -o out", "measure ranges", signal.SIGHUP),
        ("bench --seconds 30", "measure", signal.SIGINT),
        ("doctor", "examine", signal.SIGTERM),
    ],
)
def test_an_interrupted_command_leaves_nothing_half_written(
    tiny_workspace: Path, words: str, word: str, number: int
) -> None:
    process = start(tiny_workspace, *words.split())
    out, err = interrupt_when(process, word, number)
    assert "Traceback" not in err
    if process.returncode == 0:  # it was done before the signal came
        assert json.loads(out.splitlines()[-1])["ok"]
    else:
        assert process.returncode == {int(signal.SIGINT): 1, int(signal.SIGTERM): 143, int(signal.SIGHUP): 129}[number]
        assert json.loads(out.splitlines()[-1])["error"] == "Interrupted"
        assert not (tiny_workspace / "out").exists()
    assert leftovers(tiny_workspace) == []
    subprocess.run(["rm", "-rf", str(tiny_workspace / "out")], check=True)


DEAF = """
import hashlib, sys
from toolkit import cli
cli.stopping.PATIENCE = 0.2
def computing(arguments):
    print("computing", file=sys.stderr, flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**8)  # a minute in C, which lets other threads run
cli._outcome = computing
cli.run([])
"""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 1), (signal.SIGTERM, 143)])
def test_a_library_that_hears_nothing_is_ended_too(number: int, code: int) -> None:
    process = subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, err = interrupt_when(process, "computing", number)
    assert (process.returncode, json.loads(out)["error"]) == (code, "Interrupted")
    assert "interrupted" in err


@pytest.mark.slow
def test_interrupted_training_leaves_the_best_epoch_and_goes_on(tiny_workspace: Path) -> None:
    images, labels = structured_set(1500, 4, seed=3)
    np.savez(tiny_workspace / "long.npz", images=images, labels=labels)
    words = ["train", "long", "--data", "long.npz", "--epochs", "3", *NET, "--batch", "64", "--holdout", "64"]
    process = start(tiny_workspace, *words)
    out, err = interrupt_when(process, "epoch 1/3", signal.SIGINT)
    assert process.returncode == 1
    document = json.loads(out.splitlines()[-1])
    assert document["interrupted"] is True
    assert "--resume" in err
    card = json.loads((tiny_workspace / "models/long/card.json").read_text())
    assert card["accuracy"] is None
    assert card["training"]["epochs_done"] == document["epochs_done"] < 3
    again = start(tiny_workspace, *words, "--resume")
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert json.loads(out.splitlines()[-1])["epochs_done"] == 3
    assert json.loads((tiny_workspace / "models/long/card.json").read_text())["accuracy"]["images"] == 300
    assert not list((tiny_workspace / "models").glob(".long*"))


@pytest.mark.slow
def test_two_exports_to_one_target_leave_one_whole_bundle(tiny_workspace: Path) -> None:
    words = ("export", "tiny", "--int8", "--fp16", "--no-engines", "-o", "twice")
    both = [start(tiny_workspace, *words), start(tiny_workspace, *words)]
    for process in both:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    assert set(bundle_from_folder(tiny_workspace / "twice").precisions) == set(VARIANTS)
    assert leftovers(tiny_workspace) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("missing", "words"),
    [("typer", "--help"), ("shellingham", "--help"), ("rich", "--help"), ("rich", "doctor"), ("rich", "init here")],
)
def test_a_command_line_without_what_it_stands_on_is_one_error_with_the_pip_command(
    tmp_path: Path, missing: str, words: str
) -> None:
    # A typer that was copied, or installed with --no-deps, lacks packages that only some of its modules import.
    (tmp_path / f"{missing}.py").write_text(
        f"raise ModuleNotFoundError(\"No module named '{missing}'\", name='{missing}')"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run(
        [sys.executable, "-m", "toolkit", *words.split()], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert f"pip install {missing}" in done.stderr
    document = json.loads(done.stdout.splitlines()[-1])
    assert (document["ok"], document["error"], document["fix"]) == (False, "MissingPackage", f"pip install {missing}")


def imported_by(*words: str, cwd: Path) -> set[str]:
    """Top-level modules that a command imported, whatever its exit code."""
    code = (
        "import sys, json, atexit\n"
        "from toolkit.cli import run\n"
        "names = lambda: sorted({m.partition('.')[0] for m in sys.modules})\n"
        "atexit.register(lambda: print(json.dumps(names()), file=sys.stderr))\n"
        f"run({list(words)!r})"
    )
    environment = os.environ | {"TOOLKIT_WORKSPACE": str(cwd)}
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True)
    return set(json.loads(done.stderr.strip().splitlines()[-1]))


HEAVY = {"torch", "onnx", "onnxruntime", "PIL", "safetensors", *MODULES}


@pytest.mark.slow
@pytest.mark.parametrize("words", ["--help", "train --help", "export --help", "--version", "init here"])
def test_help_imports_nothing_heavy(words: str, tmp_path: Path) -> None:
    assert not imported_by(*words.split(), cwd=tmp_path) & HEAVY


def test_help_imports_no_numpy(tmp_path: Path) -> None:
    assert "numpy" not in imported_by("--help", cwd=tmp_path)


@pytest.mark.slow
def test_onnx_runtime_alone_needs_no_torch(tiny_workspace: Path) -> None:
    # verify looks into the files too where onnx is installed; without it that check is named as left out.
    for verb, absent in (("verify", {"torch", "PIL"}), ("bench --seconds 0.05 --batch 1", {"torch", "onnx", "PIL"})):
        loaded = imported_by(*verb.split(), "--backend", "ort", cwd=tiny_workspace)
        assert "onnxruntime" in loaded
        assert not loaded & absent


def test_stdout_is_one_json_line_and_people_read_stderr(tiny_workspace: Path) -> None:
    process = start(tiny_workspace, "bench", "--backend", "ort", "--batch", "1", "--seconds", "0.05")
    out, err = process.communicate(timeout=60)
    assert len(out.splitlines()) == 1
    assert json.loads(out)["ok"] is True
    assert "p50" in err
    assert "p50" not in out.partition("{")[0]


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m toolkit init here | true"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert (tmp_path / "here").is_dir()
    assert "BrokenPipe" not in done.stderr
    assert "Traceback" not in done.stderr
