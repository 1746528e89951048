"""Claims about weights beside an ONNX file: what a stranger's file names is read only where it is a file of its own."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from toolkit.errors import ToolkitError
from toolkit.storage.external_data import take_in

Change = Callable[[Path, onnx.ModelProto], Any]
WEIGHTS = np.arange(12, dtype=np.float32).reshape(3, 4)


def model_beside(folder: Path, **told: str) -> onnx.ModelProto:
    """X @ w, with w in `w.bin`."""
    (folder / "w.bin").write_bytes(WEIGHTS.tobytes())
    weights = numpy_helper.from_array(WEIGHTS, "w")
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    for key, value in ({"location": "w.bin"} | told).items():
        weights.external_data.add(key=key, value=value)
    inside = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [inside], [out], [weights])
    return helper.make_model(graph)


def test_weights_beside_a_model_are_taken_in_to_the_last_bit(tmp_path: Path) -> None:
    for told in ({}, {"offset": "0", "length": "48"}):
        model = model_beside(tmp_path, **told)
        (file,) = take_in(tmp_path / "m.onnx", model)
        assert file.path == tmp_path / "w.bin"
        assert np.array_equal(numpy_helper.to_array(model.graph.initializer[0]), WEIGHTS)
    model = model_beside(tmp_path, offset="65536", length="48")
    (tmp_path / "w.bin").write_bytes(bytes(65536) + WEIGHTS.tobytes())
    take_in(tmp_path / "m.onnx", model)
    assert np.array_equal(numpy_helper.to_array(model.graph.initializer[0]), WEIGHTS)


def _told(key: str, value: str) -> Change:
    def change(folder: Path, model: onnx.ModelProto) -> None:
        entries = {e.key: e.value for e in model.graph.initializer[0].external_data} | {key: value}
        del model.graph.initializer[0].external_data[:]
        for name, text in entries.items():
            model.graph.initializer[0].external_data.add(key=name, value=text)

    return change


def _replaced(make: Callable[[Path], Any]) -> Change:
    def change(folder: Path, model: onnx.ModelProto) -> None:
        (folder / "w.bin").unlink()
        make(folder / "w.bin")

    return change


def _sparse(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(8 << 30)


def _constant(folder: Path, model: onnx.ModelProto) -> None:
    hidden = TensorProto(name="hidden", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    hidden.external_data.add(key="location", value="w.bin")
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=hidden))


HOSTILE: dict[str, Change] = {
    "above": _told("location", "../w.bin"),
    "absolute": _told("location", "/etc/passwd"),
    "below": _told("location", "folder/w.bin"),
    "no name": _told("location", ""),
    "the folder itself": _told("location", "."),
    "missing": _replaced(lambda path: None),
    "a link": _replaced(lambda path: path.symlink_to("/etc/passwd")),
    "a folder": _replaced(lambda path: path.mkdir()),
    "a pipe that nobody writes to": _replaced(os.mkfifo),
    "sparse": _replaced(_sparse),
    "cut short": _replaced(lambda path: path.write_bytes(bytes(47))),
    "a long part": _told("length", "49"),
    "a negative place": _told("offset", "-1"),
    "a place that is no number": _told("offset", "x"),
    "behind the end": _told("offset", "48"),
    "a name longer than any": _told("location", "a" * 5000),
    "negative sizes": lambda folder, model: model.graph.initializer[0].dims.__setitem__(0, -3),
    "more than there is memory": lambda folder, model: model.graph.initializer[0].dims.__setitem__(0, 1 << 40),
    "an unknown type": lambda folder, model: setattr(model.graph.initializer[0], "data_type", 99),
    "a constant": _constant,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_whatever_else_it_names_is_refused_at_once_and_not_allocated(kind: str, tmp_path: Path) -> None:
    model = model_beside(tmp_path)
    HOSTILE[kind](tmp_path, model)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(ToolkitError):
        take_in(tmp_path / "m.onnx", model)

    assert time.monotonic() - started < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10  # KiB


def test_a_device_is_not_read() -> None:
    """In a process of its own, which would never end."""
    code = "from pathlib import Path; from toolkit.storage.files import content_of; content_of(Path('/dev/zero'), 1)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert "no regular file" in done.stderr
