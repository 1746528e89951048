"""Claims about names of runners: what is written is read back, whatever it is, and in one place alone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import toolkit
from tests.sources import nodes_of
from toolkit.bundle.manifest import VARIANTS
from toolkit.deployment.runners import BACKENDS
from toolkit.runtime.runner_id import AGAINST, FIRST, SECOND, RunnerId

ROOT = Path(toolkit.__file__).parent
words = st.from_regex(r"[A-Za-z0-9._-]+", fullmatch=True)
ids = st.builds(
    RunnerId,
    st.sampled_from(BACKENDS) | words.filter(lambda word: word != "B"),  # "B int8" is the int8 of a second bundle
    st.sampled_from(["", *VARIANTS]) | words,
    st.sampled_from([FIRST, AGAINST, SECOND]),
    st.booleans(),
)


@given(ids)
def test_what_was_written_is_read_back(one: RunnerId) -> None:
    assert RunnerId.from_name(str(one)) == one


@given(st.text() | st.lists(st.sampled_from(["B ", "ort", " ", "int8", " without graph", " (against)"])).map("".join))
def test_any_text_that_somebody_calls_a_runner_is_given_back_as_it_was(text: str) -> None:
    assert str(RunnerId.from_name(text)) == text


@pytest.mark.parametrize(
    ("one", "name"),
    [
        (RunnerId("ort", "int8"), "ort int8"),
        (RunnerId("ort-cuda"), "ort-cuda"),
        (RunnerId("ort", "int8", AGAINST), "ort int8 (against)"),
        (RunnerId("trt", "fp16", graph=False), "trt fp16 without graph"),
        (RunnerId("trt", "fp16", AGAINST, graph=False), "trt fp16 without graph (against)"),
        (RunnerId("ort", "int8-cpu", SECOND), "B ort int8-cpu"),
        (RunnerId("trt", side=SECOND), "B trt"),
        (RunnerId("model.int8.onnx"), "model.int8.onnx"),
        (RunnerId("my own camera", "int8"), "my own camera int8"),
    ],
)
def test_documents_and_tables_have_the_names_that_they_always_had(one: RunnerId, name: str) -> None:
    assert f"{one}" == name
    assert RunnerId.from_name(name) == one


def test_who_computes_on_a_device_is_known_by_the_backend_on_either_side() -> None:
    found = {backend: RunnerId(backend, "fp32", AGAINST).on_device for backend in BACKENDS}
    assert found == {"torch": False, "ort": False, "trt": True, "ort-cuda": True, "ort-trt": True}


ROOMS = (
    "runtime", "bundle", "compare", "timing", "engine",
    "deployment", "exporting", "verification", "benchmarking", "reporting", "cli",
)  # fmt: skip
READERS = {"verification/verify.py", "reporting/evidence.py"}  # names that a user gives; saved documents
PARTS = {"split", "rsplit", "partition", "rpartition", "startswith", "endswith", "removeprefix", "removesuffix"}
NAMES = {"name", "runner", "reference", "candidate"}
AFFIXES = {" (against)", " without graph", "B ", *(f"{backend} " for backend in BACKENDS)}
WHOLE = {f"{backend} {variant}" for backend in BACKENDS for variant in VARIANTS}


def _spells(node: ast.AST) -> bool:
    """Whether it is `name.partition(" ")`, `runner.split()`, "ort int8" or f"ort {variant}"."""
    if isinstance(node, ast.Constant):
        return node.value in AFFIXES | WHOLE
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in PARTS):
        return False
    said = [argument.value if isinstance(argument, ast.Constant) else "" for argument in node.args]
    return ast.unparse(node.func.value).rpartition(".")[2] in NAMES and all(" " in str(text) for text in said)


@pytest.mark.parametrize(
    ("code", "caught"),
    [
        ('name.partition(" ")[0]', True),
        ("name.split()[1]", True),
        ('point.runner.partition(" ")', True),
        ('runner.endswith(" (against)")', True),
        ('name.startswith("ort ")', True),
        ('SUFFIX == " (against)"', True),
        ('f"ort {precision}"', True),
        ('reference = "ort fp32"', True),
        ('name.startswith("extra_")', False),
        ('text.split(" ")', False),
    ],
)
def test_a_name_that_is_spelled_or_taken_apart_is_recognized(code: str, caught: bool) -> None:
    assert any(_spells(node) for node in ast.walk(ast.parse(code))) == caught


def test_nobody_spells_a_runners_name_or_takes_it_apart() -> None:
    files = [file for room in ROOMS for file in (ROOT / room).rglob("*.py") if file.name != "runner_id.py"]
    found = [
        f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}: {ast.unparse(node)}"
        for file in files
        for node in nodes_of(file)
        if _spells(node)
    ]
    assert found == []
    named = ((file, node) for file in files for node in nodes_of(file) if isinstance(node, ast.Attribute))
    assert {str(file.relative_to(ROOT)) for file, node in named if node.attr == "from_name"} == READERS
