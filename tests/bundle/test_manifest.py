"""Claims about the table of file variants: what follows from it, and that no other place knows it better."""

from __future__ import annotations

import ast
from pathlib import Path

import onnx
import pytest

import toolkit
from tests.sources import nodes_of
from toolkit.bundle.manifest import (
    FOR_TENSORRT,
    PRECISIONS,
    VARIANTS,
    Variant,
    best_first,
    old_bundle,
    variant_of_file,
)

ROOT = Path(toolkit.__file__).parent
BUNDLE = Path(__file__).parent / "format-1"
REDUCED = ("fp16", "int8")
LETTERS = {"startswith", "endswith", "removeprefix", "removesuffix", "partition", "rpartition", "split", "rsplit"}
GROUPS = {"precisions", "in_bundle"}  # to ask whether one is among several is no question about a name


def test_a_variant_is_found_by_its_name_and_by_its_file_and_no_other_file_is_one() -> None:
    for name, variant in VARIANTS.items():
        assert variant.name == name
        assert variant_of_file(variant.file) is variant
    assert len({variant.file for variant in VARIANTS.values()}) == len(VARIANTS)
    for file in ("theirs.onnx", "int8.onnx", "model.int8.onnx.bak", "engines/model.onnx", ""):
        assert variant_of_file(file) is None


def test_each_precision_has_a_file_of_its_own_name_that_tensorrt_builds() -> None:
    assert PRECISIONS == ("fp32", "fp16", "int8")
    for precision in PRECISIONS:
        assert VARIANTS[precision].precision == precision
        assert precision in FOR_TENSORRT
    assert set(VARIANTS) - set(FOR_TENSORRT) == {"int8-cpu"}


@pytest.mark.parametrize(
    ("name", "types", "flags"),
    [
        ("fp32", (), ()),
        ("fp16", ("FP16",), ("FP16",)),
        ("int8", ("INT8",), ("FP16", "INT8")),
        ("int8-fp16", ("FP16", "INT8"), ("FP16", "INT8")),
    ],
)
def test_a_weakly_typed_tensorrt_is_allowed_the_types_of_the_file_and_half_beside_int8(
    name: str, types: tuple[str, ...], flags: tuple[str, ...]
) -> None:
    assert (VARIANTS[name].types, VARIANTS[name].builder_flags) == (types, flags)


@pytest.mark.parametrize("variant", [v for v in VARIANTS.values() if (BUNDLE / v.file).is_file()], ids=lambda v: v.name)
def test_the_table_says_what_a_written_file_holds(variant: Variant) -> None:
    graph = onnx.load(BUNDLE / variant.file).graph
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    read = {made_by.get(node.input[0]) for node in graph.node if node.op_type == "Conv"}
    assert ("DequantizeLinear" in read) == variant.is_int8
    assert any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in graph.initializer) == variant.half


def test_what_is_run_where_nothing_is_said_is_the_smallest_of_what_suits_the_machine() -> None:
    assert best_first(on_cpu=False) == ("int8-fp16", "int8", "fp16", "fp32")
    assert best_first(on_cpu=True) == ("int8-cpu", "fp32")


def test_an_engine_is_named_after_its_file_and_a_file_after_what_writes_it() -> None:
    assert [variant.engine_file for variant in VARIANTS.values()][:2] == ["model.engine", "model.fp16.engine"]
    options = [variant.export_options for variant in VARIANTS.values()]
    int8 = "options=ExportOptions(int8=True)"
    assert options == ["", "options=ExportOptions(fp16=True)", int8, int8, int8]


def test_what_lies_in_somebodys_folder_is_not_looked_through_before_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.bundle.manifest.others_in", None)  # `-o /` would walk all disks
    assert old_bundle(tmp_path, "tiny").manifest == {}
    assert old_bundle(BUNDLE, "tiny").manifest["model"]["name"] == "tiny"


def _asks_letters(node: ast.AST) -> bool:
    """Whether it is `"int8" in name`, `name.startswith("int8")`, `precision.partition("-")` or the like."""
    if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
        asked, where = node.left, ast.unparse(node.comparators[0]).rpartition(".")[2]
        return isinstance(asked, ast.Constant) and asked.value in REDUCED and where not in GROUPS
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LETTERS):
        return False
    said = " ".join(ast.unparse(argument) for argument in node.args)
    return any(word in said for word in REDUCED) or (
        ast.unparse(node.func.value).endswith("precision") and "," not in said
    )


@pytest.mark.parametrize(
    ("code", "caught"),
    [
        ('"int8" in name', True),
        ('"fp16" in path.name', True),
        ('"int8" not in sidecar["onnx"]["file"]', True),
        ('precision.startswith("int8")', True),
        ('file.endswith(".int8.onnx")', True),
        ('name.split("int8")', True),
        ('entry.precision.partition("-")', True),
        ('"int8" in bundle.precisions', False),
        ('"fp16" in in_bundle', False),
        ('name.startswith("preprocess.")', False),
    ],
)
def test_a_question_to_a_names_letters_is_recognized(code: str, caught: bool) -> None:
    assert _asks_letters(ast.parse(code, mode="eval").body) == caught


def test_nobody_asks_a_names_letters_what_the_table_says() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}: {ast.unparse(node)}"
        for path in ROOT.rglob("*.py")
        for node in nodes_of(path)
        if _asks_letters(node)
    ]
    assert found == []


def test_no_other_table_is_keyed_by_variants() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in ROOT.rglob("*.py")
        for node in nodes_of(path)
        if isinstance(node, ast.Dict)
        and sum(isinstance(key, ast.Constant) and key.value in VARIANTS for key in node.keys) > 1
    ]
    assert found == []
