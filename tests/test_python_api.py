"""Claims about docs/python-api.md: it names what toolkit offers and nothing else, as it is, and its programs run."""

from __future__ import annotations

import dataclasses
import inspect
import pkgutil
import re
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import toolkit
from tests.cli.conftest import structured_set
from tests.warm import python

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/python-api.md").read_text()
PARTS = {
    name: (signature, text)
    for name, signature, text in re.findall(
        r"^### `toolkit\.(\w+)(.*?)`\n(.*?)(?=^##)", PAGE, flags=re.DOTALL | re.MULTILINE
    )
}
FUNCTIONS = [name for name in toolkit.__all__ if inspect.isfunction(getattr(toolkit, name))]
CLASSES = [name for name in toolkit.__all__ if dataclasses.is_dataclass(getattr(toolkit, name))]


def test_dir_lists_what_the_page_names_and_nothing_else() -> None:
    assert dir(toolkit) == sorted(toolkit.__all__) == sorted(PARTS)
    assert len(FUNCTIONS) == 9


@pytest.mark.parametrize("name", toolkit.__all__)
def test_what_the_page_names_can_be_imported_and_says_what_it_is(name: str) -> None:
    value = getattr(toolkit, name)
    assert name == "__version__" or inspect.getdoc(value)
    assert PARTS[name][1].strip()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_the_arguments_that_the_page_says(name: str) -> None:
    signature = inspect.signature(getattr(toolkit, name))
    said, returned = PARTS[name][0].split(" -> ")
    keyword = [p.name for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY]
    first = [p.name for p in signature.parameters.values() if p.kind is not p.KEYWORD_ONLY]
    assert said.strip("()").split(", ") == [*first, "*", *keyword]
    assert signature.return_annotation == returned
    assert returned in toolkit.__all__
    arguments = inspect.getdoc(getattr(toolkit, name)) or ""
    assert "Raises:" in arguments
    assert "Args:" in arguments


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_has_the_fields_that_the_page_says(name: str) -> None:
    kind, text = getattr(toolkit, name), PARTS[name][1]
    fields = {field.name for field in dataclasses.fields(kind)}
    said = set(re.findall(r"`(\w+)`", text))
    assert said >= fields
    assert {word for word in said - fields if not hasattr(kind, word)} <= {*toolkit.__all__}
    assert kind.__dataclass_params__.frozen


def test_a_net_and_an_error_have_what_the_page_says() -> None:
    error = toolkit.ToolkitError("wrong", found=1, allowed=2, fix="mend it")
    words = re.findall(r"`(\w+)(?:\(|`)", PARTS["ToolkitError"][1])
    assert all(hasattr(error, word) for word in words)
    with toolkit.load(ROOT / "tests/bundle/format-1") as net:
        words = re.findall(r"`(\w+)(?:\(|`)", PARTS["Net"][1])
        assert {"classify", "passed_over"} <= set(words)
        assert [word for word in words if not hasattr(net, word)] == ["with"]


def test_every_other_room_is_called_private() -> None:
    private = re.findall(r"`toolkit\.(\w+)`", PAGE.partition("## Everything else may change")[2])
    rooms = {module.name for module in pkgutil.iter_modules(toolkit.__path__)} - {"__main__"}
    assert set(private) == rooms
    assert not rooms & set(toolkit.__all__)


def _stripes_told_apart() -> onnx.ModelProto:
    """Somebody's file, float (N, 1, 32, 32), right by construction: wider stripes have fewer edges."""
    edges = np.array([150, 83, 62, 49], np.float32) / (255 * 0.25)  # mean |difference| of two rows of each class
    constants = {
        "rows": np.array([[1, -1], [-1, 1]], np.float32).reshape(2, 1, 2, 1),
        "weight": np.stack([edges, edges], 1),
        "bias": -(edges**2) / 2,
    }
    nodes = [
        helper.make_node("Conv", ["x", "rows"], ["difference"]),
        helper.make_node("Relu", ["difference"], ["edges"]),
        helper.make_node("GlobalAveragePool", ["edges"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"], transB=1),
    ]
    ends = [
        helper.make_tensor_value_info("x", 1, ["n", 1, 32, 32]),
        helper.make_tensor_value_info("logits", 1, ["n", 4]),
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "stripes", ends[:1], ends[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.slow
def test_the_programs_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = structured_set(200, 4, seed=0), structured_set(120, 4, seed=1)
    np.savez(
        tmp_path / "photos.npz",
        train_images=train[0], train_labels=train[1], test_images=test[0], test_labels=test[1],
        classes=np.array(["north", "upper", "lower", "south"]),
    )  # fmt: skip
    onnx.save(_stripes_told_apart(), tmp_path / "theirs.onnx")
    program = "\n".join(re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
    (tmp_path / "program.py").write_text(program)
    monkeypatch.setenv("TOOLKIT_WORKSPACE", str(tmp_path))
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    done = subprocess.run([*python(), "program.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[0].startswith("top-1 ")
    assert "verify: True" in done.stdout
    assert "fit for use: True" in done.stdout
    assert "<toolkit.Net 'my-net': int8-cpu on ort, CPU; uint8 (N, 32, 32, 1) to 4 classes>" in said
    assert "theirs.onnx, opset 17" in said[-1]
    assert (tmp_path / "report.html").is_file()
    assert done.stderr == ""
