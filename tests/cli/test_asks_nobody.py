"""Claims about silence: no command asks a network, none writes outside the workspace, the cache and temporary files.

Seen by the kernel: strace names every socket and every file that is opened for writing, of all processes and threads.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest

import toolkit

CALLS = "trace=socket,connect,sendto,sendmsg,open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat"
PATH = re.compile(r'"((?:[^"\\\\]|\\\\.)*)"')
LOAD = """
import sys, time, numpy, toolkit
with toolkit.load(sys.argv[1], backend="ort") as net:
    net.classify(numpy.zeros((1, *net.preprocessing.shape), numpy.uint8))
time.sleep(1)  # what is sent in the background
"""


@cache
def _strace() -> list[str]:
    """The words that trace a process and its children: where the kernel can, it stops them at these calls alone."""
    for words in (["strace", "-f", "--seccomp-bpf"], ["strace", "-f"]):
        with suppress(OSError):
            if subprocess.run([*words, "-e", CALLS, "-o", os.devnull, "true"], capture_output=True).returncode == 0:
                return words
    pytest.skip("strace is not installed here, or may trace nothing")


COMMANDS = (
    "export tiny --int8 --fp16 -o b",
    "selftest bundles/tiny --seconds 0.05",
    "bundle pack bundles/tiny -o t.tar",
    "verify bundles/tiny --backend torch,ort --data set.npz",
    "train again --arch resnet8 --widths 8,16 --blocks 1,1 --strides 1,2 --data set.npz --epochs 1 --batch 16",
)
EACH = """
import gc, os, sys, torch  # which takes seconds to import; each command is a process of its own
from toolkit.__main__ import main
gc.freeze()
for words in sys.argv[1:]:
    if os.fork() == 0:
        sys.argv[1:] = words.split()
        sys.exit(main())
    if os.wait()[1]:
        sys.exit(words)
"""


def traced(home: Path, cwd: Path, *words: str, **environment: str) -> tuple[list[str], list[str]]:
    """Runs Python under strace: the calls that reach for a network, and the paths that it made or wrote to."""
    strace, log = _strace(), home / "strace"
    (home / "tmp").mkdir()
    around = {"HOME": str(home), "TMPDIR": str(home / "tmp"), "TOOLKIT_WORKSPACE": str(cwd), "MPLCONFIGDIR": str(home)}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "ORT_", "TOOLKIT_"))}
    done = subprocess.run(
        [*strace, "-qq", "-e", CALLS, "-o", str(log), sys.executable, *words],
        env=kept | around | {"PYTHONPATH": str(Path(toolkit.__file__).parents[1])} | environment,
        cwd=cwd, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = log.read_text(errors="replace").splitlines()
    return [line for line in lines if "AF_INET" in line], [found[1] for line in lines if (found := _writes(line))]


def _writes(line: str) -> re.Match[str] | None:
    call = line.split("(")[0].split()[-1]
    if "= -1" in line or (call in ("open", "openat") and not re.search(r"O_CREAT|O_WRONLY|O_RDWR", line)):
        return None
    return PATH.search(line) if call not in ("socket", "connect", "sendto", "sendmsg") else None


def outside(paths: list[str], cwd: Path, *folders: Path) -> list[str]:
    """Of paths that were written to, those in none of the folders."""
    roots = (*map(str, folders), "/dev/", "/proc/self/")
    found = {os.path.normpath(os.path.join(cwd, path)) for path in paths}
    above = {str(parent) for folder in folders for parent in folder.parents}
    return sorted(path for path in found - above if not path.startswith(roots) and "__pycache__" not in path)


@pytest.mark.slow
def test_a_load_asks_nobody_and_writes_nothing_but_temporary_files(tiny_workspace: Path, tmp_path: Path) -> None:
    network, written = traced(tmp_path, tmp_path, "-c", LOAD, str(tiny_workspace / "bundles/tiny"))
    assert network == []
    assert outside(written, tmp_path, tmp_path / "tmp") == []
    assert not (tmp_path / ".cache").exists()


@pytest.mark.slow
def test_where_somebody_wants_telemetry_it_is_seen_here(tiny_workspace: Path, tmp_path: Path) -> None:
    """So that the other claims are not about a strace that sees nothing."""
    words = ("-c", LOAD, str(tiny_workspace / "bundles/tiny"))
    _, written = traced(tmp_path, tmp_path, *words, ORT_DISABLE_TELEMETRY="0")
    if not (tmp_path / ".cache").exists():
        pytest.skip("this ONNX Runtime has no telemetry, as none before 1.32")
    assert outside(written, tmp_path, tmp_path / "tmp") != []


def test_what_somebody_set_about_packages_stays_set(monkeypatch: pytest.MonkeyPatch) -> None:
    from toolkit.lazy import QUIET, needs

    for said in ("0", None):
        for name in QUIET:
            monkeypatch.delenv(name, raising=False)
            if said is not None:
                monkeypatch.setenv(name, said)
        with needs("see"):
            pass
        assert {name: os.environ[name] for name in QUIET} == {name: said or value for name, value in QUIET.items()}


@pytest.mark.slow
def test_no_command_asks_a_network_or_writes_elsewhere(tiny_workspace: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    shutil.copytree(tiny_workspace, workspace)
    network, written = traced(tmp_path, workspace, "-c", EACH, *COMMANDS)
    assert network == []
    assert (workspace / "models/again").is_dir()
    assert {"b", "t.tar"} <= set(os.listdir(workspace))
    cache = tmp_path / ".cache" / "trt-edge-toolkit"
    fonts = [tmp_path / name for name in os.listdir(tmp_path) if name.startswith("fontlist")]
    assert outside(written, workspace, workspace, tmp_path / "tmp", cache, *fonts) == []
