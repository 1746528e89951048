"""Claims about ONNX files of strangers: none hangs, eats the memory or ends in a traceback, and Ctrl-C ends any."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from toolkit.bundle.reading import bundle_from_folder
from toolkit.errors import ModelError
from toolkit.exporting.user_onnx import Pixels, opened_from_file
from toolkit.graph.user import trial
from toolkit.graph.user.trial import require_runs
from toolkit.graph.user.work import declared_by
from toolkit.verification.other import other_bundle

importlib.import_module("onnx_ir.passes.common")  # takes seconds, and is no part of a refusal
SHAPE = ("batch", 3, 8, 8)
OPSET = [helper.make_opsetid("", 17)]


def saved(path: Path, nodes: list[Any], functions: Any = (), shape: Any = SHAPE, constants: Any = None) -> Path:
    """A file with some nodes between images and logits (batch, 3), written whatever the checker says of it."""
    images = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    logits = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])
    initializers = [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(nodes, "g", [images], [logits], initializers)
    opsets = [*OPSET, *([helper.make_opsetid("f", 1)] if functions else [])]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, functions=functions).SerializeToString())
    return path


def head(of: str = "x") -> list[Any]:
    """Means over the image."""
    return [helper.make_node("ReduceMean", [of], ["y"], "head", axes=[2, 3], keepdims=0)]


def function(name: str, *calls: str) -> Any:
    """A function of one input that calls others, each on the last one's answer."""
    names = ["a", *(f"t{at}" for at in range(len(calls) - 1)), "b"]
    nodes = [helper.make_node(op, [names[at]], [names[at + 1]], domain="" if op == "Relu" else "f")
             for at, op in enumerate(calls)]  # fmt: skip
    return helper.make_function("f", name, ["a"], ["b"], nodes, [*OPSET, helper.make_opsetid("f", 1)])


def loop(path: Path) -> Path:
    """A Loop of 2^62 rounds, which onnxruntime would not leave for any signal."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["go"]), helper.make_node("Relu", ["v"], ["w"])], "body",
        [value("i", TensorProto.INT64, []), value("on", TensorProto.BOOL, []), value("v", TensorProto.FLOAT, None)],
        [value("go", TensorProto.BOOL, []), value("w", TensorProto.FLOAT, None)],
    )  # fmt: skip
    constants = {"times": np.array(2**62, np.int64), "yes": np.array(True)}
    return saved(
        path, [helper.make_node("Loop", ["times", "yes", "x"], ["z"], body=body), *head("z")], constants=constants
    )


def giant(path: Path) -> Path:
    """A constant of 8 GiB."""
    nodes = [helper.make_node("ConstantOfShape", ["s"], ["c"]), helper.make_node("ReduceMean", ["c"], ["m"]),
             helper.make_node("Add", ["x", "m"], ["z"]), *head("z")]  # fmt: skip
    return saved(path, nodes, constants={"s": np.array([2048, 1 << 20], np.int64)})


def nested(path: Path) -> Path:
    """30 functions, each calling the one before twice: 2^30 nodes in 2 KiB."""
    functions = [function("f0", "Relu"), *(function(f"f{n}", *[f"f{n - 1}"] * 2) for n in range(1, 31))]
    return saved(path, [helper.make_node("f30", ["x"], ["z"], domain="f"), *head("z")], functions)


def chained(path: Path) -> Path:
    """20,000 nodes, one after the other."""
    names = ["x", *(f"r{n}" for n in range(20_000))]
    return saved(path, [helper.make_node("Relu", [a], [b]) for a, b in pairwise(names)] + head(names[-1]))


def itself(path: Path) -> Path:
    """Two functions that call each other."""
    nodes = [helper.make_node("f1", ["x"], ["z"], domain="f"), *head("z")]
    return saved(path, nodes, [function("f1", "f2"), function("f2", "f1")])


def deep(path: Path) -> Path:
    """A chain of 3,000 functions."""
    functions = [function("f0", "Relu"), *(function(f"f{n}", f"f{n - 1}") for n in range(1, 3000))]
    return saved(path, [helper.make_node("f2999", ["x"], ["z"], domain="f"), *head("z")], functions)


def sized(*shape: Any) -> Callable[[Path], Path]:
    """Images of some size."""
    return lambda path: saved(path, head(), shape=shape)


def tiled(path: Path) -> Path:
    """Each image made a hundred million numbers."""
    nodes = [helper.make_node("Tile", ["x", "s"], ["t"]), *head("t")]
    return saved(path, nodes, constants={"s": np.array([1, 1, 1024, 1024], np.int64)})


def paired(path: Path) -> Path:
    """Every image with every other one, and so on: five times."""
    nodes = [helper.make_node("ReduceMean", ["x"], ["q"], axes=[1, 2, 3], keepdims=0),
             helper.make_node("Einsum", ["q"] * 5, ["r"], equation="a,b,c,d,e->abcde"),
             helper.make_node("ReduceMean", ["r"], ["m"]), helper.make_node("Add", ["x", "m"], ["z"]),
             *head("z")]  # fmt: skip
    return saved(path, nodes)


def doubled(path: Path) -> Path:
    """A constant put behind itself 36 times."""
    nodes = [helper.make_node("Concat", [f"d{n}"] * 2, [f"d{n + 1}"], axis=0) for n in range(36)]
    nodes += [helper.make_node("ReduceMean", ["d36"], ["m"]), helper.make_node("Add", ["x", "m"], ["z"]), *head("z")]
    return saved(path, nodes, constants={"d0": np.zeros(1, np.float32)})


def shapeless(path: Path) -> Path:
    """A weight of 2^60 numbers and none of them there."""
    saved(path, [helper.make_node("Add", ["x", "w"], ["z"]), *head("z")])
    model = onnx.load(path)
    model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[1 << 40, 1 << 20])
    path.write_bytes(model.SerializeToString())
    return path


def summed(path: Path) -> Path:
    """A node of 200,000 inputs."""
    return saved(path, [helper.make_node("Sum", ["x"] * 200_000, ["z"]), *head("z")])


def text(path: Path) -> Path:
    """A string of 4 MB in 4,096 places."""
    nodes = [helper.make_node("Constant", [], ["s"], value_string=b"a" * (1 << 22)),
             helper.make_node("Expand", ["s", "n"], ["e"]), helper.make_node("Shape", ["e"], ["q"]),
             helper.make_node("Cast", ["q"], ["m"], to=TensorProto.FLOAT), helper.make_node("Add", ["x", "m"], ["z"]),
             *head("z")]  # fmt: skip
    return saved(path, nodes, constants={"n": np.array([4096], np.int64)})


HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "loop": (loop, "again and again"), "giant": (giant, "constant that is too large"),
    "nested": (nested, "more nodes"), "chained": (chained, "more nodes"), "itself": (itself, "calls itself"),
    "deep": (deep, "too deeply"), "2^31": (sized("batch", 3, 2**31, 8), "larger than images are"),
    "2^31 images": (sized(2**31, 3, 8, 8), "larger than images are"), "negative": (sized("batch", 3, -7, 8), "open"),
    "tiled": (tiled, "more than any classifier"), "paired": (paired, "more than any classifier"),
    "doubled": (doubled, "more than any classifier"), "shapeless": (shapeless, "not that of its numbers"),
    "text": (text, "holds text"), "summed": (summed, "more inputs, outputs"),
    "negative channels": (sized("batch", -3, 8, 8), "takes no images"),
}  # fmt: skip


LARGE = ("doubled", "tiled", "chained", "summed")  # files that take a second to write, or to be run


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in LARGE else []) for n in HOSTILE])
def test_a_file_that_asks_for_too_much_is_refused_before_it_is_run(name: str, tmp_path: Path) -> None:
    make, words = HOSTILE[name]
    path = make(tmp_path / "m.onnx")
    begun = time.process_time()
    with pytest.raises(ModelError, match=words):
        opened_from_file(path, Pixels(scale="0-1"))
    assert time.process_time() - begun < 2


def expanded(path: Path) -> Path:
    """Gigabytes whose shape is known to the run alone: the image's own numbers say it."""
    nodes = [helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0), helper.make_node("Add", ["most", "n"], ["a"]),
             helper.make_node("Cast", ["a"], ["b"], to=TensorProto.INT64),
             helper.make_node("Range", ["0", "b", "1"], ["r"]),
             helper.make_node("Cast", ["r"], ["f"], to=TensorProto.FLOAT), helper.make_node("ReduceMean", ["f"], ["m"]),
             helper.make_node("Add", ["x", "m"], ["z"]), *head("z")]  # fmt: skip
    constants = {"n": np.array(1e12, np.float32), "0": np.array(0, np.int64), "1": np.array(1, np.int64)}
    return saved(path, nodes, constants=constants)


@pytest.mark.slow
def test_what_is_not_counted_beforehand_dies_in_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match="too much memory"):
        opened_from_file(expanded(tmp_path / "broad.onnx"), Pixels(scale="0-1"))
    with pytest.raises(ModelError, match="does not come to an end"):
        require_runs(Path("m.onnx"), loop(tmp_path / "l.onnx").read_bytes(), (2, 3, 8, 8))
    good = saved(tmp_path / "good.onnx", head())
    assert opened_from_file(good, Pixels(scale="0-1")).classes == 3  # a new process takes the dead one's place


def test_a_file_may_take_what_its_layers_declare_and_no_more(tmp_path: Path) -> None:
    """Work of layers is counted from their shapes; what does not grow with the images counts for nothing."""
    wide = np.zeros((512, 3, 3, 3), np.float32)
    layers = [helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4), *head("c")]
    image = declared_by(onnx.load(saved(tmp_path / "m.onnx", layers, constants={"w": wide})), [2, 3, 8, 8]).image
    assert image.multiplications == 512 * 8 * 8 * 27
    assert image.largest == 4 * 512 * 8 * 8
    square = [helper.make_node("ConstantOfShape", ["s"], ["a"]), helper.make_node("MatMul", ["a", "a"], ["b"]),
              helper.make_node("ReduceMean", ["b"], ["m"]), helper.make_node("Add", ["x", "m"], ["z"]),
              *head("z")]  # fmt: skip
    path = saved(tmp_path / "s.onnx", square, constants={"s": np.array([4096, 4096], np.int64)})
    assert declared_by(onnx.load(path), [2, 3, 8, 8]).image.multiplications == 0


def test_ctrl_c_ends_a_trial_at_once(tmp_path: Path) -> None:
    model = loop(tmp_path / "l.onnx").read_bytes()
    require_runs(Path("good"), saved(tmp_path / "good.onnx", head()).read_bytes(), (2, 3, 8, 8))  # started
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        require_runs(Path("m.onnx"), model, (2, 3, 8, 8))
    assert time.monotonic() - begun < 3
    assert trial._children == {}


@pytest.mark.slow
def test_a_trial_imports_nothing_from_the_current_folder_and_ends_with_its_parent(tmp_path: Path) -> None:
    good = saved(tmp_path / "good.onnx", head())
    for module in ("json", "numpy", "onnxruntime"):
        (tmp_path / f"{module}.py").write_text("open('ran', 'w')")
    code = f"""
import sys; sys.path.remove('') if '' in sys.path else None
from pathlib import Path
from toolkit.graph.user import trial
trial.require_runs(Path("m"), Path({str(good)!r}).read_bytes(), (2, 3, 8, 8))
print(next(iter(trial._children.values())).pid)
"""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/code.py").write_text("import os; os.chdir('..')\n" + code)
    done = subprocess.run(
        [sys.executable, tmp_path / "elsewhere/code.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "ran").exists()
    assert not Path(f"/proc/{done.stdout.strip()}").exists()


def test_a_file_that_a_bundle_is_compared_with_is_counted_too(tmp_path: Path) -> None:
    bundle = bundle_from_folder(Path(__file__).parents[1] / "bundle/format-1")
    with pytest.raises(ModelError, match="again and again"):
        other_bundle(loop(tmp_path / "l.onnx"), bundle)


def test_a_file_that_is_fine_is_run_as_it_is(tmp_path: Path) -> None:
    assert isinstance(onnx.load(saved(tmp_path / "m.onnx", head())), onnx.ModelProto)
    assert opened_from_file(tmp_path / "m.onnx", Pixels(scale="0-1")).classes == 3


def test_a_file_that_squeezes_away_the_batch_of_one_image_answers_any_batch(tmp_path: Path) -> None:
    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["p"]), helper.make_node("Squeeze", ["p"], ["y"])]
    opened = opened_from_file(saved(tmp_path / "m.onnx", nodes), Pixels(scale="0-1"))
    images = np.random.default_rng(0).integers(0, 256, size=(9, 8, 8, 3), dtype=np.uint8)
    assert set(opened.require_same(images)["relative_difference_by_batch"]) == {"1", "7", "64"}
